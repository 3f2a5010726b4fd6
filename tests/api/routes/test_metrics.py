# SPDX-License-Identifier: Apache-2.0
"""Tests of the metrics route."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample
from pydantic import TypeAdapter
from sqlalchemy import Connection

from novitai.api.schemas.metrics import MetricsResponse
from novitai.domain.account import AccountState
from novitai.domain.api_key import Scope
from novitai.store.queries import account, coordination
from novitai.store.queries.account import Unmanaged
from novitai.store.queries.coordination import LastListing
from novitai.upstream.errors import CallOutcome
from tests.api.application import CREATE, Api
from tests.api.client import House


@pytest.fixture
async def busy(api: Api) -> Api:
    """Return an application that has served requests and run jobs."""
    api.jobs.register("create_instance")
    api.jobs.processed("create_instance", 1.0)
    api.jobs.failed("create_instance", 2.0)
    templates = api.services.caches.named("templates")
    templates.put("a", object())
    templates.peek("a")
    templates.peek("b")
    for path in ("/api/instances/a", "/v1/api/instances/b"):
        await api.call("GET", path)
    await api.call("POST", "/api/instances", body=CREATE)
    api.services.requests.observe("GET", "/api/instances", 200, 0.5)
    return api


async def test_json_is_the_default(busy: Api) -> None:
    """The API reference's body, with route templates and job types."""
    answer = await busy.call("GET", "/v1/metrics", scope=Scope.READ)
    assert answer.headers["Content-Type"] == "application/json"
    TypeAdapter(MetricsResponse).validate_python(answer.json())
    body = answer.json()
    assert body["status"] == "success"
    requests = body["data"]["requests"]
    assert requests["total"]["count"] == 4
    expected = {"200": 1, "201": 1, "400": 0, "401": 0, "404": 2, "500": 0}
    assert requests["total"]["statusCodes"] == expected
    assert requests["total"]["maxDuration"] == 500
    assert requests["byEndpoint"]["GET /api/instances/{instanceId}"]["count"] == 2
    assert requests["byMethod"]["POST"]["count"] == 1
    jobs = body["data"]["jobs"]
    assert jobs["total"] == {
        "processed": 1,
        "failed": 1,
        "averageProcessingTime": 1500,
        "queueSize": 3,
    }
    assert jobs["byType"]["create_instance"]["processed"] == 1
    assert body["data"]["cache"] == {
        "hits": 1,
        "misses": 1,
        "hitRatio": 0.5,
        "totalSize": 1,
        "evictions": 0,
    }
    memory = body["data"]["system"]["memory"]
    assert memory["rss"] > 1_000_000
    assert 0 < memory["heapUsed"] <= memory["heapTotal"]
    assert 0 <= body["data"]["system"]["cpu"]["usage"] <= 1


async def test_an_idle_process_has_numbers_too(api: Api) -> None:
    """The metrics are zeros, not errors."""
    answer = await api.call("GET", "/metrics")
    TypeAdapter(MetricsResponse).validate_python(answer.json())
    assert answer.json()["data"]["requests"]["total"]["count"] == 0


async def test_a_queue_that_cannot_be_reached_does_not_hide_the_rest(busy: Api) -> None:
    """If the queue is unreachable, the metrics of the process itself are still returned."""
    busy.dependencies.queue_sizes = None
    answer = await busy.call("GET", "/metrics")
    assert answer.status_code == 200
    assert answer.json()["data"]["jobs"]["total"]["processed"] == 1


def value(samples: Iterator[Sample], name: str, **labels: str) -> float:
    """Return the value of one sample."""
    (found,) = [
        sample.value for sample in samples if sample.name == name and sample.labels == labels
    ]
    return float(found)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("text/plain", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0;"),
        (
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text",
        ),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
    ],
)
async def test_accept_chooses_the_form(busy: Api, accept: str, media_type: str) -> None:
    """Prometheus requests its own formats; other clients get JSON."""
    answer = await busy.call("GET", "/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith(media_type)


@pytest.mark.parametrize("openmetrics", [False, True])
async def test_both_texts_have_the_same_numbers_as_json(busy: Api, openmetrics: bool) -> None:
    """All formats have the same values from one snapshot."""
    accept = "application/openmetrics-text" if openmetrics else "text/plain"
    text = (await busy.call("GET", "/metrics", headers={"Accept": accept})).text
    parse: Callable[[str], Iterable[Metric]] = parse_openmetrics if openmetrics else parse_text
    families = list(parse(text))
    samples = [sample for family in families for sample in family.samples]
    route = {"method": "GET", "route": "/api/instances/{instanceId}"}
    assert value(iter(samples), "novitai_http_requests_total", **route, status="404") == 2
    assert value(iter(samples), "novitai_http_request_duration_seconds_count", **route) == 2
    listed = {"method": "GET", "route": "/api/instances"}
    bucket = "novitai_http_request_duration_seconds_bucket"
    assert value(iter(samples), bucket, **listed, le="0.25") == 0
    assert value(iter(samples), bucket, **listed, le="0.5") == 1
    assert value(iter(samples), bucket, **listed, le="+Inf") == 1
    job = {"type": "create_instance"}
    assert value(iter(samples), "novitai_jobs_total", **job, outcome="failed") == 1
    assert value(iter(samples), "novitai_job_duration_seconds_sum", **job) == 3
    assert value(iter(samples), "novitai_jobs_queued", **job) == 3
    assert value(iter(samples), "novitai_cache_hits_total", cache="templates") == 1


async def test_the_text_keeps_prometheus_rules(busy: Api) -> None:
    """The rules of `promtool check metrics`: help, base units, `_total` only on counters."""
    text = (await busy.call("GET", "/metrics", headers={"Accept": "text/plain"})).text
    for family in parse_text(text):
        assert family.documentation
        assert re.fullmatch(r"novitai_[a-z0-9_]+", family.name)
        assert not re.search(r"_(ms|milliseconds|minutes|mb|kb|percent)(_|$)", family.name)
        names = {sample.name for sample in family.samples}
        if family.type == "counter":
            assert all(name.endswith("_total") for name in names)
        else:
            assert not any(name.endswith(("_total", "_info")) for name in names)
        if family.type == "gauge":
            assert not any(name.endswith(("_count", "_sum", "_bucket")) for name in names)


async def test_labels_do_not_grow_with_traffic(busy: Api) -> None:
    """IDs and unknown paths add no series."""
    before = len((await busy.call("GET", "/metrics", headers={"Accept": "text/plain"})).text)
    for number in range(30):
        await busy.call("GET", f"/api/instances/inst_{number}")
        await busy.call("GET", f"/nowhere/{number}", scope=None)
    text = (await busy.call("GET", "/metrics", headers={"Accept": "text/plain"})).text
    assert "inst_" not in text
    assert "nowhere" not in text
    assert len(text) < before + 5000


async def test_what_is_doubted_of_the_account_is_a_metric(house: House) -> None:
    """Orphans that were not dismissed, a hold, and incomplete listings."""
    orphan = Unmanaged("up-1", "box-nvabcdefaaaaaaaaaaaaaaaa", "running", orphan=True)

    def write(connection: Connection) -> None:
        account.replace_unmanaged(connection, [orphan])
        account.save_state(connection, AccountState(restored_at=1))
        for began_at in (1, 2):
            coordination.record_listing(connection, LastListing(began_at, complete=False))

    await house.app.database.write(write)
    text = (await house.call("GET", "/metrics", headers={"Accept": "text/plain"})).text
    assert "novitai_orphans 1.0" in text
    assert "novitai_account_held 1.0" in text
    assert "novitai_incomplete_listings 2.0" in text


async def test_calls_to_novita_are_metrics(house: House) -> None:
    """Calls by endpoint and outcome, latency, calls waiting for a permit, and each breaker."""
    house.app.calls("start", CallOutcome.OK, 0.2)
    house.app.calls("start", CallOutcome.BREAKER_OPEN, 0.0)
    text = (await house.call("GET", "/metrics", headers={"Accept": "text/plain"})).text
    samples = [sample for family in parse_text(text) for sample in family.samples]
    prefix, start = "novitai_upstream", {"endpoint": "start"}
    assert value(iter(samples), f"{prefix}_calls_total", **start, outcome="ok") == 1
    assert value(iter(samples), f"{prefix}_calls_total", **start, outcome="breaker_open") == 1
    duration = f"{prefix}_call_duration_seconds"
    assert value(iter(samples), f"{duration}_bucket", **start, le="0.1") == 0
    assert value(iter(samples), f"{duration}_bucket", **start, le="0.25") == 1
    assert value(iter(samples), f"{duration}_count", **start) == 1
    assert value(iter(samples), f"{duration}_count", endpoint="stop") == 0
    assert value(iter(samples), f"{prefix}_permits_waiting") == 0
    state = f"{prefix}_breaker_state"
    for name in ("catalogue", "instances", "create", "lifecycle"):
        assert value(iter(samples), state, **{"class": name}, state="closed") == 1
        assert value(iter(samples), state, **{"class": name}, state="open") == 0
