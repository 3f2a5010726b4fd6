# SPDX-License-Identifier: Apache-2.0
"""Several API and worker processes on one PostgreSQL database."""

from __future__ import annotations

import signal

import pytest

from tests.blackbox.harness import House, until

pytestmark = pytest.mark.postgresql


def test_a_worker_may_die_amid_twenty_purchases(house: House, postgresql_url: str) -> None:
    """With two APIs and two workers, twenty instances run although one worker is killed."""
    house.env["NOVITAI_DATABASE_URL"] = postgresql_url
    emulator = house.emulator()
    early = house.ended("api", "--port", "0")
    assert (early.code, "novitai migrate" in early.err) == (78, True), early.err
    migrated = house.ended("migrate")
    assert migrated.code == 0, migrated.err
    assert "migrated from nothing to " in migrated.out
    started = [house.run("api", "--port", "0") for _ in range(2)]
    workers = [house.run("worker") for _ in range(2)]
    apis = [house.ready(process) for process in started]
    for worker in workers:
        worker.says("novitai: working")
    emulator.fault(
        kind="call", path="/gpu/instance/create", when="after", latencySeconds=0.5, every=2
    )
    ids = apis[0].create_many(10) + apis[1].create_many(10)
    until(lambda: emulator.create_calls() >= 3, 30, "some create calls arrived", every=0.01)
    workers[0].kill()
    apis[1].until_running(ids, 75)
    assert emulator.instances() == (20, 20)
    for process in (*started, workers[1]):
        process.send(signal.SIGTERM)
    assert [process.wait() for process in (*started, workers[1])] == [0, 0, 0]
