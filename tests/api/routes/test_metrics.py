# SPDX-License-Identifier: Apache-2.0
"""Tests of the metrics route."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample
from pydantic import TypeAdapter
from sqlalchemy import Connection, Engine, event

from novitai.api.app import create_api
from novitai.api.schemas.metrics import MetricsResponse
from novitai.domain.account import AccountState
from novitai.domain.api_key import Scope
from novitai.store.queries import account, coordination, fleet
from novitai.store.queries.account import Unmanaged
from novitai.store.queries.coordination import LastListing
from novitai.store.queries.fleet import FleetNumbers, MoneyNumbers
from novitai.upstream.breaker import BreakerState
from novitai.upstream.errors import CallOutcome
from tests.api.application import CREATE, Api
from tests.api.client import ApiProcess, Http


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


async def test_json_has_each_series_of_the_text(api_process: ApiProcess) -> None:
    """`series` has the names, labels and values of the Prometheus text."""
    await api_process.have()
    await api_process.app.fleet_count.once()
    await api_process.call("GET", "/metrics", headers={"Accept": "text/plain"})
    text = (await api_process.call("GET", "/metrics", headers={"Accept": "text/plain"})).text
    told = (await api_process.call("GET", "/metrics")).json()["data"]["series"]
    samples = [sample for family in parse_text(text) for sample in family.samples]
    assert {(one.name, *sorted(one.labels.items())) for one in samples} == {
        (name, *sorted(one["labels"].items())) for name, found in told.items() for one in found
    }
    labels = {"status": "running", "billing_mode": "onDemand"}
    assert value(iter(samples), "novitai_instances", **labels) == 1
    assert {"labels": labels, "value": 1} in told["novitai_instances"]


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Collect the SQL statements of all databases from now on."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield found
    event.remove(Engine, "before_cursor_execute", note)


async def test_a_scrape_costs_the_same_with_many_instances(
    api_process: ApiProcess, statements: list[str]
) -> None:
    """The statements of a scrape are the same, few, and read no table from end to end."""

    async def scrape() -> list[str]:
        await api_process.app.fleet_count.once()
        await api_process.call("GET", "/metrics", headers={"Accept": "text/plain"})
        statements.clear()
        await api_process.call("GET", "/metrics", headers={"Accept": "text/plain"})
        # A scrape only reads. That its key was used is written later, at times in between.
        return [one for one in statements if one.startswith("SELECT")]

    empty = await scrape()
    for number in range(30):
        await api_process.have(name=f"instance-{number}")
    assert await scrape() == empty
    assert 0 < len(empty) <= 5

    def plans(connection: Connection) -> list[str]:
        return [
            str(row[3])
            for one in empty
            for row in connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN {one}", (None,) * one.count("?")
            )
        ]

    found = await api_process.app.database.read(plans)
    assert found
    assert not [one for one in found if one.startswith("SCAN")], found


async def test_a_breaker_that_is_not_closed_is_open(api_process: ApiProcess) -> None:
    """While the breaker opens and tries again, the metric stays 1."""
    numbers = api_process.app.services().upstream()
    for state, told in (
        (BreakerState.CLOSED, 0),
        (BreakerState.OPEN, 1),
        (BreakerState.HALF_OPEN, 1),
    ):
        changed = replace(numbers, breakers={"create": state})
        services = replace(api_process.app.services(), upstream=partial(replace, changed))
        http = await Http.open(api_process.app, create_api(services))
        text = (await http.call("GET", "/metrics", headers={"Accept": "text/plain"})).text
        assert f'novitai_upstream_breaker_open{{class="create"}} {told}.0' in text
        await http.aclose()


async def test_what_is_doubted_of_the_account_is_a_metric(api_process: ApiProcess) -> None:
    """Orphans that were not dismissed, a hold, and incomplete listings."""
    orphan = Unmanaged("up-1", "box-nvabcdefaaaaaaaaaaaaaaaa", "running", orphan=True)

    def write(connection: Connection) -> None:
        account.replace_unmanaged(connection, [orphan])
        account.save_state(connection, AccountState(restored_at=1))
        for began_at in (1, 2):
            coordination.record_listing(connection, LastListing(began_at, complete=False))

    await api_process.app.database.write(write)
    assert await api_process.app.fleet_count.once()
    text = (await api_process.call("GET", "/metrics", headers={"Accept": "text/plain"})).text
    assert "novitai_orphans 1.0" in text
    assert "novitai_account_held 1.0" in text
    assert "novitai_incomplete_listings 2.0" in text


async def test_the_figures_of_the_fleet_have_their_units(api_process: ApiProcess) -> None:
    """Dollars and seconds, made of 1/100000 USD a day and of moments in milliseconds."""
    now = api_process.app.clock.now()
    numbers = FleetNumbers(
        counted_at=now - 10_000,
        instances=[("running", "spot", 2)],
        operations=[("stop", "waiting", 1)],
        oldest_due=now - 5_000,
        orphans=1,
        unmanaged=3,
        held=False,
        incomplete_listings=0,
        listed_at=now - 30_000,
        listing_interval=20.0,
        unenforced=4,
        burn=24 * 150_000,
        bills_until=now - 7_000,
        bill_events={"costs.bill_differs": 6},
        money=MoneyNumbers(now, {"gpu": 250_000}, {"team": 0.5}, 12.5),
    )
    await api_process.app.database.write(lambda connection: fleet.save(connection, numbers))
    text = (await api_process.call("GET", "/metrics", headers={"Accept": "text/plain"})).text
    for line in (
        'instances{billing_mode="spot",status="running"} 2.0',
        'operations{kind="stop",phase="waiting"} 1.0',
        "operation_oldest_due_seconds 5.0",
        "orphans 1.0",
        "unmanaged 3.0",
        "account_held 0.0",
        "listing_age_seconds 30.0",
        "listing_interval_seconds 20.0",
        "fleet_age_seconds 10.0",
        "limits_unenforced 4.0",
        "burn_usd_per_hour 1.5",
        'spend_usd_total{kind="gpu"} 2.5',
        'budget_used_ratio{budget="team"} 0.5',
        "account_balance_usd 12.5",
        "bills_age_seconds 7.0",
        'bill_events{type="costs.bill_differs"} 6.0',
    ):
        assert f"\nnovitai_{line}\n" in text, line


async def test_calls_to_novita_are_metrics(api_process: ApiProcess) -> None:
    """Calls by operation and outcome, latency, calls waiting for a permit, and each breaker."""
    api_process.app.calls("start", CallOutcome.OK, 0.2)
    api_process.app.calls("start", CallOutcome.BREAKER_OPEN, 0.0)
    text = (await api_process.call("GET", "/metrics", headers={"Accept": "text/plain"})).text
    samples = [sample for family in parse_text(text) for sample in family.samples]
    prefix, start = "novitai_upstream", {"operation": "start"}
    assert value(iter(samples), f"{prefix}_calls_total", **start, outcome="ok") == 1
    assert value(iter(samples), f"{prefix}_calls_total", **start, outcome="breaker_open") == 1
    duration = f"{prefix}_call_seconds"
    assert value(iter(samples), f"{duration}_bucket", **start, le="0.1") == 0
    assert value(iter(samples), f"{duration}_bucket", **start, le="0.25") == 1
    assert value(iter(samples), f"{duration}_count", **start) == 1
    assert value(iter(samples), f"{duration}_count", operation="stop") == 0
    assert value(iter(samples), f"{prefix}_permits_waiting") == 0
    for name in ("catalogue", "instances", "create", "lifecycle"):
        assert value(iter(samples), f"{prefix}_breaker_open", **{"class": name}) == 0
