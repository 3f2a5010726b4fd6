# SPDX-License-Identifier: Apache-2.0
"""Tests of the health routes."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from novitai.api.schemas.health import HealthCheckResponse, ProbeResponse
from novitai.store.engine.errors import StorageFull
from tests.api.application import CREATE, Api


async def test_when_all_is_well_it_is_200(api: Api) -> None:
    """The response is 200 with the API reference's body."""
    answer = await api.call("GET", "/health", scope=None)
    assert answer.status_code == 200
    TypeAdapter(HealthCheckResponse).validate_python(answer.json())
    body = answer.json()
    assert body["status"] == "healthy"
    assert body["services"] == {"novitaApi": "up", "jobQueue": "up", "cache": "up"}


@pytest.mark.parametrize("part", ["novitaApi", "jobQueue", "cache", "database"])
async def test_when_one_part_is_down_it_is_503(api: Api, part: str) -> None:
    """Each failing part alone makes it unhealthy and is the only part shown as down."""
    if part == "novitaApi":
        api.dependencies.upstream_down = True
    elif part == "jobQueue":
        api.dependencies.queue_seen = ConnectionError("gone")
    elif part == "cache":
        api.dependencies.cache_works = False
    else:
        api.dependencies.database = ConnectionError("gone")
    answer = await api.call("GET", "/health", scope=None)
    assert answer.status_code == 503
    body = answer.json()
    TypeAdapter(HealthCheckResponse).validate_python(body)
    assert body["status"] == "unhealthy"
    assert [name for name, state in body["services"].items() if state == "down"] == [
        name for name in [part] if name != "database"
    ]


async def test_a_worker_that_was_not_seen_for_half_a_minute_is_down(api: Api) -> None:
    """The worker counts as down after 30 s, to the millisecond."""
    await api.clock.advance(30)
    assert (await api.call("GET", "/health")).status_code == 200
    await api.clock.advance(0.001)
    assert (await api.call("GET", "/health")).json()["services"]["jobQueue"] == "down"


async def test_a_worker_that_was_seen_in_the_future_is_down(api: Api) -> None:
    """After the clock was set back, an old sign of life proves nothing."""
    api.clock.jump(-86_400)
    assert (await api.call("GET", "/health")).json()["services"]["jobQueue"] == "down"


async def test_rates_are_over_the_last_minute(api: Api) -> None:
    """Requests, their mean duration, the percentage of 5xx, and jobs."""
    api.jobs.register("create_instance")
    for _ in range(3):
        api.jobs.processed("create_instance", 0.5)
    for path in ("/api/instances", "/nowhere", "/health"):
        await api.call("GET", path)
    api.instances.error = ZeroDivisionError()
    await api.call("POST", "/api/instances", body=CREATE)
    api.services.requests.observe("GET", "/x", 200, 0.5)
    performance = (await api.call("GET", "/health")).json()["performance"]
    assert performance == {
        "requestsPerMinute": 5,
        "averageResponseTime": 100.0,
        "errorRate": 20.0,
        "jobProcessingRate": 3,
    }
    await api.clock.advance(60)
    performance = (await api.call("GET", "/health")).json()["performance"]
    assert set(performance.values()) == {0}


async def test_units_are_those_of_the_reference(api: Api) -> None:
    """Uptime is in seconds, memory in MB, CPU use in percent."""
    await api.clock.advance(29)
    body = (await api.call("GET", "/health")).json()
    assert body["uptime"] == 29
    memory = body["system"]["memory"]
    assert 1 < memory["usedMB"] <= memory["rss"] <= memory["totalMB"]
    assert memory["usedMB"] + memory["externalMB"] == pytest.approx(memory["rss"], abs=0.2)
    assert 0 <= body["system"]["cpu"]["usage"] <= 100
    assert len(body["system"]["cpu"]["loadAverage"]) == 3


async def test_live_and_ready_are_apart(api: Api) -> None:
    """A process without its database is live but not ready."""
    api.dependencies.database = ConnectionError("gone")
    live = await api.call("GET", "/health/live", scope=None)
    ready = await api.call("GET", "/health/ready", scope=None)
    assert (live.status_code, live.json()["status"]) == (200, "ok")
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert ready.json()["reason"] == "UNAVAILABLE"


async def test_readiness_says_why(api: Api) -> None:
    """`reason` is the error code that a client would get, and absent if the process is ready."""
    assert "reason" not in (await api.call("GET", "/health/ready", scope=None)).json()
    api.dependencies.database = StorageFull("No space is left for the database.")
    ready = await api.call("GET", "/health/ready", scope=None)
    TypeAdapter(ProbeResponse).validate_python(ready.json())
    assert (ready.status_code, ready.json()["reason"]) == (503, "STORAGE_FULL")
