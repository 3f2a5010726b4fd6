# SPDX-License-Identifier: Apache-2.0
"""Several API processes: they share revoked keys and the rate limit."""

from __future__ import annotations

import re
import time

import pytest

from tests.blackbox.harness import Sandbox, Server, until


@pytest.fixture
def pair(sandbox: Sandbox, postgresql_url: str, redis_url: str) -> tuple[Server, Server]:
    """Two API processes on one PostgreSQL and one Redis; 60 requests a minute, no burst."""
    sandbox.env |= {
        "NOVITAI_DATABASE_URL": postgresql_url,
        "NOVITAI_REDIS_URL": redis_url,
        "NOVITAI_RATE_LIMIT_PER_MINUTE": "60",
        "NOVITAI_RATE_LIMIT_BURST": "0",
    }
    sandbox.emulator()
    migrated = sandbox.ended("migrate")
    assert migrated.code == 0, migrated.err
    started = [sandbox.run("api", "--port", "0") for _ in range(2)]
    one, two = (sandbox.ready(process) for process in started)
    return one, two


@pytest.mark.postgresql
@pytest.mark.redis
def test_two_processes_are_one_to_whoever_calls_them(
    pair: tuple[Server, Server], sandbox: Sandbox
) -> None:
    """Both share one bucket, and a key that one revokes is refused by the other within 2 s."""
    one, two = pair
    created = sandbox.ended("keys", "create", "--name", "ci", "--scope", "read")
    assert created.code == 0, created.err
    found = re.search(r"nvt_[A-Za-z0-9]{38}", created.out)
    assert found is not None, created.out
    key = {"Authorization": f"Bearer {found[0]}"}
    began = time.monotonic()
    answers = [(one, two)[n % 2].http.get("/api/cache/stats", headers=key) for n in range(70)]
    passed = time.monotonic() - began
    allowed = sum(answer.status_code == 200 for answer in answers)
    assert 60 <= allowed <= 61 + passed
    (made,) = one.http.get("/api/keys").json()["keys"]
    assert two.http.get("/api/cache/stats", headers=key).status_code in {200, 429}
    assert one.http.delete(f"/api/keys/{made['id']}").status_code == 200
    assert one.http.get("/api/cache/stats", headers=key).status_code == 401

    def refused() -> bool:
        return two.http.get("/api/cache/stats", headers=key).status_code == 401

    until(refused, 2.5, "the other process refuses the revoked key")
