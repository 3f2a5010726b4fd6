# SPDX-License-Identifier: Apache-2.0
"""Network storages (upstream.md §11)."""

from __future__ import annotations

import uuid

import orjson

from novitai.emulator import wire
from novitai.emulator.calling import Call, Reply, integer, ok, text
from novitai.emulator.errors import Refusal, invalid, not_found
from novitai.emulator.gate import RouteTable
from novitai.emulator.resources import Storage
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator

LEAST_GB, MOST_GB = 10, 10_240


def list_all(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`GET /networkstorages/list`, and the path that Novita's command line uses."""
    offset, size = call.page("pageNo")
    name, storage_id = call.param("storageName").lower(), call.param("storageId")
    matching = [
        each
        for each in emulator.storages.values()
        if name in each.name.lower() and (not storage_id or each.id == storage_id)
    ]
    return ok(
        {
            "data": [_row(emulator, each) for each in matching[offset : offset + size]],
            "total": len(matching),
        }
    )


def create(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /networkstorage/create`; the reply is the object or, by setting, the bare ID."""
    cluster = emulator.cluster(text(call.body, "clusterId", least=1))
    if not cluster.network_storage:
        raise Refusal(
            400, "CUR_CLUSTER_NETWORK_STORAGE_NOT_SUPPORT", "cluster has no network storage"
        )
    storage = Storage(
        str(uuid.UUID(int=emulator.rng.getrandbits(128), version=4)),
        text(call.body, "storageName", least=1),
        _size(call),
        cluster.id,
    )
    emulator.storages[storage.id] = storage
    if emulator.settings.storage_create_reply == "string":
        return Reply(200, orjson.dumps(storage.id))
    return ok(_row(emulator, storage))


def update(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /networkstorage/update`: change the name or grow the storage."""
    storage = _wanted(emulator, call)
    size = _size(call)
    if size < storage.size:
        raise invalid("storageSize can only grow")
    name = text(call.body, "storageName") or storage.name
    emulator.storages[storage.id] = Storage(storage.id, name, size, storage.cluster_id)
    return ok({})


def delete(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /networkstorage/delete`; `id` is accepted instead of `storageId`."""
    storage = _wanted(emulator, call)
    if emulator.in_use(storage=storage.id):
        raise Refusal(400, "NETWORK_STORAGE_IN_USE", "network storage is in use")
    del emulator.storages[storage.id]
    return ok({})


def _wanted(emulator: Emulator, call: Call) -> Storage:
    storage = emulator.storages.get(text(call.body, "storageId", least=1, alias="id"))
    if storage is None:
        raise not_found("network storage", "NETWORK_STORAGE_NOT_FOUND")
    return storage


def _size(call: Call) -> int:
    size = integer(call.body, "storageSize", least=LEAST_GB)
    if size > MOST_GB:
        raise Refusal(
            400, "NETWORK_STORAGE_TOO_LARGE", "network storage too large", {"limit": str(MOST_GB)}
        )
    return size


def _row(emulator: Emulator, storage: Storage) -> dict[str, object]:
    cluster = emulator.clusters.get(storage.cluster_id)
    return wire.storage(storage, cluster.name if cluster else "")


ROUTES: RouteTable = {
    ("GET", "/networkstorages/list"): list_all,
    ("GET", "/networkstorages"): list_all,
    ("POST", "/networkstorage/create"): create,
    ("POST", "/networkstorage/update"): update,
    ("POST", "/networkstorage/delete"): delete,
}
