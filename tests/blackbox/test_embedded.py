# SPDX-License-Identifier: Apache-2.0
"""`novitai serve` on the embedded database: from request to running, whatever kills it."""

from __future__ import annotations

import signal
import time

import pytest

from tests.blackbox.harness import ENV_VALUE, STOP_WITHIN, House, until


def test_a_request_becomes_a_running_instance(house: House) -> None:
    """One request, one create call, one instance that runs; /health says that all is well."""
    emulator, server = house.emulator(), house.server()
    instance_id = server.create(envs={"TOKEN": ENV_VALUE})
    server.until_running([instance_id], 30)
    assert emulator.create_calls() == 1
    assert emulator.instances() == (1, 1)
    health = server.http.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "healthy"), health.text


def test_fifty_requests_at_once_buy_fifty_instances(house: House) -> None:
    """Fifty concurrent requests run, and exactly fifty create calls were made."""
    emulator, server = house.emulator(), house.server()
    ids = server.create_many(50)
    assert len(set(ids)) == 50
    server.until_running(ids, 60)
    assert emulator.create_calls() == 50
    assert emulator.instances() == (50, 50)


def test_a_killed_server_loses_nothing_and_buys_nothing_twice(house: House) -> None:
    """SIGKILL amid fifty purchases, and the next start brings all fifty to running."""
    emulator, server = house.emulator(), house.server()
    # Some calls are still on their way to be done at the kill, some are done and not yet answered.
    emulator.fault(
        kind="call", path="/gpu/instance/create", when="before", latencySeconds=1, every=3
    )
    emulator.fault(
        kind="call", path="/gpu/instance/create", when="after", latencySeconds=1, every=2
    )
    ids = server.create_many(50)
    until(lambda: emulator.create_calls() >= 10, 30, "ten create calls arrived", every=0.01)
    server.process.kill()
    again = house.server()
    assert set(ids) <= set(again.statuses())
    again.until_running(ids, 75)
    assert emulator.instances() == (50, 50)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_asked_to_end_does_and_the_next_goes_on(
    house: House, number: signal.Signals
) -> None:
    """With steps in hand it ends in time with code 0, and the next start finishes them."""
    emulator, server = house.emulator(), house.server()
    emulator.fault(
        kind="call", path="/gpu/instance/create", when="after", latencySeconds=3, times=5
    )
    ids = server.create_many(10)
    until(lambda: emulator.create_calls() >= 5, 30, "create calls are under way", every=0.01)
    began = time.monotonic()
    server.process.send(number)
    assert server.process.wait(STOP_WITHIN) == 0, server.process.err
    assert time.monotonic() - began < STOP_WITHIN
    again = house.server()
    again.until_running(ids, 60)
    assert emulator.instances() == (10, 10)


def test_a_second_signal_ends_at_once(house: House) -> None:
    """Who does not want to wait for the steps in hand asks twice."""
    emulator, server = house.emulator(), house.server()
    emulator.fault(kind="call", path="/gpu/instance/create", latencySeconds=30)
    server.create()
    until(lambda: emulator.create_calls() >= 1, 30, "the create call is under way", every=0.01)
    server.process.send(signal.SIGTERM)
    time.sleep(0.5)
    assert server.process.code is None
    server.process.send(signal.SIGTERM)
    assert server.process.wait() == 128 + signal.SIGTERM


def test_a_deadline_survives_a_kill(house: House) -> None:
    """The placement deadline counts from the request, whoever was killed on the way."""
    emulator = house.emulator()
    emulator.fault(kind="call", path="/gpu/instance/create", status=401)
    patient = {"NOVITAI_PLACEMENT_DEADLINE_SECONDS": "8"}
    server = house.ready(house.run("serve", "--port", "0", **patient))
    instance_id = server.create()
    server.process.kill()
    again = house.ready(house.run("serve", "--port", "0", **patient))
    until(lambda: again.statuses()[instance_id] == "failed", 45, "the deadline has passed")
    view = again.http.get(f"/api/instances/{instance_id}").json()
    assert view["error"]["code"] == "UPSTREAM_UNAVAILABLE"
    assert emulator.instances() == (0, 0)
