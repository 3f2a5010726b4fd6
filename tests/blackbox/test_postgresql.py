# SPDX-License-Identifier: Apache-2.0
"""Several API and worker processes on one PostgreSQL database."""

from __future__ import annotations

import signal

import httpx2
import pytest

from tests.blackbox.harness import ADMIN_KEY, Sandbox, until
from tests.pooler import pgbouncer

pytestmark = pytest.mark.postgresql


def shown_by_a_worker(url: str) -> str:
    """Return the metrics of a worker, after a look at what it must not serve."""
    with httpx2.Client(base_url=url, trust_env=False) as http:
        assert http.get("/health/ready").status_code == 200
        assert http.get("/metrics").status_code == 401
        http.headers["Authorization"] = f"Bearer {ADMIN_KEY}"
        assert http.get("/api/instances").status_code == 404
        assert http.get("/openapi.json").status_code == 404
        answer = http.get("/metrics", headers={"Accept": "text/plain"})
        assert answer.status_code == 200, answer.text
        return answer.text


def test_a_worker_may_die_amid_twenty_purchases(sandbox: Sandbox, postgresql_url: str) -> None:
    """With two APIs and two workers, twenty instances run although one worker is killed."""
    sandbox.env["NOVITAI_DATABASE_URL"] = postgresql_url
    emulator = sandbox.emulator()
    early = sandbox.ended("api", "--port", "0")
    assert (early.code, "novitai migrate" in early.err) == (78, True), early.err
    migrated = sandbox.ended("migrate")
    assert migrated.code == 0, migrated.err
    assert "migrated from nothing to " in migrated.out
    started = [sandbox.run("api", "--port", "0") for _ in range(2)]
    workers = [sandbox.run("worker"), sandbox.run("worker", "--port", "0")]
    apis = [sandbox.ready(process) for process in started]
    workers[0].says("novitai: working\n")
    listening = workers[1].says(r"novitai: working, metrics at (http://127\.0\.0\.1:\d+)/metrics")
    emulator.fault(
        kind="call", path="/gpu/instance/create", when="after", latencySeconds=0.5, every=2
    )
    ids = apis[0].create_many(10) + apis[1].create_many(10)
    until(lambda: emulator.create_calls() >= 3, 30, "some create calls arrived", every=0.01)
    workers[0].kill()
    apis[1].until_running(ids, 75)
    assert emulator.instances() == (20, 20)
    shown = shown_by_a_worker(listening[1])
    assert 'novitai_upstream_calls_total{operation="create"' in shown
    for process in (*started, workers[1]):
        process.send(signal.SIGTERM)
    assert [process.wait() for process in (*started, workers[1])] == [0, 0, 0]


def test_behind_a_pooler_in_transaction_mode(sandbox: Sandbox, postgresql_url: str) -> None:
    """With a direct address beside it, instances run, stop and are streamed as without it."""
    with pgbouncer(postgresql_url, "transaction") as url:
        sandbox.env["NOVITAI_DATABASE_URL"] = url
        refused = sandbox.ended("migrate")
        assert (refused.code, "NOVITAI_DATABASE_DIRECT_URL" in refused.err) == (78, True)
        sandbox.env["NOVITAI_DATABASE_DIRECT_URL"] = postgresql_url
        sandbox.emulator()
        assert sandbox.ended("migrate").code == 0
        started = [sandbox.run("api", "--port", "0") for _ in range(2)]
        workers = [sandbox.run("worker") for _ in range(2)]
        apis = [sandbox.ready(process) for process in started]
        for worker in workers:
            worker.says("novitai: working\n")
        ids = apis[0].create_many(6) + apis[1].create_many(6)
        apis[0].until_running(ids, 75)
        for one in ids:
            assert apis[1].http.post(f"/api/instances/{one}/stop").status_code == 202
        until(
            lambda: set(apis[0].statuses().values()) == {"stopped"}, 75, "all instances are stopped"
        )
        told = sandbox.ended("doctor", "--json")
        assert told.code == 0, told.out
        for process in (*started, *workers):
            process.send(signal.SIGTERM)
        assert [process.wait() for process in (*started, *workers)] == [0, 0, 0, 0]
