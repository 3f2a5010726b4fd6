# SPDX-License-Identifier: Apache-2.0
"""Private networks (upstream.md §13)."""

from __future__ import annotations

from dataclasses import replace

from novitai.emulator import wire
from novitai.emulator.calling import Call, JsonObject, Reply, ok, text
from novitai.emulator.errors import Refusal, not_found
from novitai.emulator.gate import RouteTable
from novitai.emulator.instances import Status, phase
from novitai.emulator.resources import Network
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator

READY_AFTER_SECONDS = 5.0
MOST_NETWORKS = 50


def list_all(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`GET /networks`; the reply has the list under both keys that clients read."""
    offset, size = call.page()
    name = call.param("name").lower()
    matching = [each for each in emulator.networks.values() if name in each.name.lower()]
    rows = [_row(emulator, each, call.now) for each in matching[offset : offset + size]]
    return ok({"network": rows, "networks": rows, "total": len(matching)})


def get(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`GET /network`."""
    return _shown(emulator, _wanted(emulator, call.param("networkId")), call.now)


def create(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /network/create`."""
    cluster = emulator.cluster(text(call.body, "clusterId", least=1))
    if not cluster.instance_network:
        raise Refusal(400, "CLUSTER_STATUS", "cluster has no instance networks")
    if len(emulator.networks) >= MOST_NETWORKS:
        raise Refusal(400, "NETWORK_MAX_LIMIT", "too many networks")
    number = len(emulator.networks)
    network = Network(
        f"net-{emulator.hex_id()}",
        text(call.body, "name", most=30) or f"network-{number + 1}",
        cluster.id,
        f"10.{number % 250}.0.0/16",
        call.now,
        call.now + READY_AFTER_SECONDS,
    )
    emulator.networks[network.id] = network
    return _shown(emulator, network, call.now)


def update(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /network/update`: change the name."""
    network = _wanted(emulator, text(call.body, "networkId", least=1))
    renamed = replace(network, name=text(call.body, "name", least=1, most=30))
    emulator.networks[network.id] = renamed
    return _shown(emulator, renamed, call.now)


def delete(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /network/delete`; refused while an instance uses the network."""
    network = _wanted(emulator, text(call.body, "networkId", least=1))
    if emulator.in_use(network=network.id):
        raise Refusal(400, "NETWORK_IN_USE", "network is in use")
    del emulator.networks[network.id]
    return ok({})


def _wanted(emulator: Emulator, network_id: str) -> Network:
    network = emulator.networks.get(network_id)
    if network is None:
        raise not_found("network", "NETWORK_NOT_FOUND")
    return network


def _shown(emulator: Emulator, network: Network, now: float) -> Reply:
    return ok({"network": [_row(emulator, network, now)]})


def _row(emulator: Emulator, network: Network, now: float) -> JsonObject:
    members = [
        each
        for each in emulator.instances.values()
        if each.network_id == network.id and phase(each, now).status is not Status.REMOVED
    ]
    return wire.network(network, now, members)


ROUTES: RouteTable = {
    ("GET", "/networks"): list_all,
    ("GET", "/network"): get,
    ("POST", "/network/create"): create,
    ("POST", "/network/update"): update,
    ("POST", "/network/delete"): delete,
}
