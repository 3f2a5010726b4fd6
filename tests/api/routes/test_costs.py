# SPDX-License-Identifier: Apache-2.0
"""Tests of the cost routes, on ledgers with known spans."""

from __future__ import annotations

import csv
import io
import threading
import tracemalloc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sqlalchemy import Connection

from novitai.api.schemas.costs import (
    CostsResponse,
    CostSummaryResponse,
    InstanceCostResponse,
    ReconciliationResponse,
)
from novitai.clock import iso
from novitai.domain.api_key import Scope
from novitai.domain.billing import DAY_MS, HOUR_MS, LedgerSpan, SpanKind
from novitai.domain.billing_book import BillingState, Book
from novitai.domain.billing_periods import Bucket
from novitai.domain.event import EventType
from novitai.domain.instance import BillingMode
from novitai.lifecycle.money import costs
from novitai.lifecycle.money.costs import CostReport, CostsWanted, GroupBy, report_of
from novitai.store.queries import billing, coordination, instances, reconciliation
from novitai.store.queries.billing import SpanOf
from novitai.store.queries.coordination import LastListing
from novitai.store.queries.reconciliation import Bill, BillReading
from novitai.testing import an_instance
from tests.api.client import ApiProcess

RATE = 35_000 * 24


async def have(api_process: ApiProcess, *spans: LedgerSpan, number: int = 0, **more: Any) -> str:
    """Have a record with these spans, last seen now."""
    now = api_process.clock.now()
    one = replace(an_instance(), id=f"inst_1_{number:012}", upstream_id=f"up-{number}", **more)
    state = BillingState(one.id, f"up-{number}", since=0, known_at=now, word="running")
    closed = [span for span in spans if span.ended_by is not None]
    state = replace(
        state,
        least=sum((span.rate or 0) * span.least(0) for span in closed),
        most=sum((span.rate or 0) * span.most(0) for span in closed),
        unknown=any(span.rate is None for span in closed),
    )

    def write(connection: Any) -> None:
        instances.insert(connection, one, b"sealed")
        columns = {"upstream_id": one.upstream_id, "hourly_price": 35_000, "obs_at": now}
        instances.update_columns(connection, one.id, columns)
        coordination.record_listing(connection, LastListing(now, complete=True, whole=True))
        billing.save(connection, [(None, Book(state, tuple(spans)))])

    await api_process.app.database.write(write)
    return one.id


def gpu(began: int, ended: int | None, rate: int | None = RATE, **more: Any) -> LedgerSpan:
    """A span of the GPUs whose begin and end are known exactly."""
    return LedgerSpan(SpanKind.GPU, rate, began, began, ended, ended, **more)


async def test_what_an_instance_costs(api_process: ApiProcess) -> None:
    """The answer has the bounds, their parts and the spans; the view has the same bounds."""
    now = api_process.clock.now()
    span = replace(gpu(now - HOUR_MS, None), began_after=now - HOUR_MS - 36_000)
    disk = LedgerSpan(SpanKind.DISK, 24_000, now - HOUR_MS, now - HOUR_MS)
    one = await have(api_process, span, disk)
    answer = await api_process.call("GET", f"/api/instances/{one}/cost")
    assert answer.status_code == 200
    TypeAdapter(InstanceCostResponse).validate_python(answer.json())
    found = answer.json()
    assert found["gpu"] == {"accrued": 0.35, "accruedAtMost": 0.3535}
    assert found["storage"] == {"accrued": 0.01, "accruedAtMost": 0.01}
    assert (found["accrued"], found["accruedAtMost"]) == (0.36, 0.3635)
    assert (found["asOf"], found["hourlyPrice"]) == (iso(now), 0.35)
    assert found["spans"][0] == {
        "kind": "gpu",
        "hourlyRate": 0.35,
        "beganAfter": iso(now - HOUR_MS - 36_000),
        "beganBy": iso(now - HOUR_MS),
    }
    cost = {name: found[name] for name in ("currency", "hourlyPrice", "accrued", "accruedAtMost")}
    read = (await api_process.call("GET", f"/api/instances/{one}")).json()
    listed = (await api_process.call("GET", "/api/instances")).json()["instances"]
    assert read["cost"] == {**cost, "asOf": iso(now)} == listed[0]["cost"]


async def test_costs_move_with_listings_outside_of_the_etag(api_process: ApiProcess) -> None:
    """A later listing raises the amounts; the ETag stays, and 304 is still the answer."""
    one = await have(api_process, gpu(api_process.clock.now() - HOUR_MS, None))
    before = await api_process.call("GET", f"/api/instances/{one}")
    later = api_process.clock.now() + HOUR_MS

    def write(connection: Any) -> None:
        [book] = billing.books_of(connection, [one])[one]
        billing.save(connection, [(book, replace(book, state=replace(book.state, counts_after=0)))])
        coordination.record_listing(connection, LastListing(later, complete=True, whole=True))

    await api_process.app.database.write(write)
    after = await api_process.call("GET", f"/api/instances/{one}")
    assert (before.json()["cost"]["accrued"], after.json()["cost"]["accrued"]) == (0.35, 0.7)
    assert before.headers["ETag"] == after.headers["ETag"]
    tag = {"If-None-Match": before.headers["ETag"]}
    assert (await api_process.call("GET", f"/api/instances/{one}", headers=tag)).status_code == 304


async def test_an_unknown_price_is_told(api_process: ApiProcess) -> None:
    """Without a price there are no amounts, and `unknown` is true."""
    now = api_process.clock.now()
    one = await have(api_process, gpu(now - HOUR_MS, None, rate=None))
    found = (await api_process.call("GET", f"/api/instances/{one}")).json()["cost"]
    assert found == {"currency": "USD", "asOf": iso(now), "unknown": True}


async def test_costs_by_group(api_process: ApiProcess) -> None:
    """Costs are summed up by each group; records without the tag have the key ""."""
    now = api_process.clock.now()
    begin = now - 2 * HOUR_MS
    await have(api_process, gpu(begin, now - HOUR_MS, key_id="key_a", tags='{"team":"vision"}'))
    await have(api_process, gpu(begin, now), number=1, region="EU-WEST-01")

    async def ask(group: str) -> list[tuple[str, float]]:
        query = f"/api/costs?groupBy={group}&from={iso(begin - DAY_MS)}"
        answer = await api_process.call("GET", query)
        assert answer.status_code == 200, answer.text
        TypeAdapter(CostsResponse).validate_python(answer.json())
        assert answer.json()["total"] == 1.05
        return [(row["key"], row["amount"]) for row in answer.json()["rows"]]

    first, second = f"inst_1_{0:012}", f"inst_1_{1:012}"
    assert await ask("instance") == [(first, 0.35), (second, 0.7)]
    assert await ask("region") == [("EU-WEST-01", 0.7), ("US-WEST-01", 0.35)]
    assert await ask("product") == [("gpu-basic", 1.05)]
    assert await ask("billingMode") == [("onDemand", 1.05)]
    assert await ask("key") == [("", 0.7), ("key_a", 0.35)]
    assert await ask("tag:team") == [("", 0.7), ("vision", 0.35)]


async def test_a_report_holds_no_more_than_its_rows(
    api_process: ApiProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans are summed up one by one, in a thread of the store: no request waits for that."""
    now = api_process.clock.now()
    count = 2_000
    await have(api_process, *(gpu(now - (n + 2) * 60_000, now - n * 60_000) for n in range(count)))
    threads: list[int] = []

    def watched(found: Iterable[SpanOf], wanted: CostsWanted, at: int) -> CostReport:
        threads.append(threading.get_ident())
        return report_of(found, wanted, at)

    monkeypatch.setattr(costs, "report_of", watched)
    wanted = CostsWanted(now - 10 * DAY_MS, now)
    await api_process.app.costs.report(wanted)
    assert threads
    assert threads[0] != threading.get_ident()

    def held(connection: Connection, one_by_one: bool) -> int:
        tracemalloc.start()
        try:
            with billing.between(connection, wanted.since, wanted.until) as spans:
                report_of(spans if one_by_one else list(spans), wanted, now)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    read = partial(api_process.app.database.read, snapshot=True)
    summed = await read(partial(held, one_by_one=True))
    listed = await read(partial(held, one_by_one=False))
    assert summed < listed / 2


async def test_too_many_rows_are_refused(
    api_process: ApiProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to change, and the next answers are up to date."""
    now = api_process.clock.now()
    monkeypatch.setattr(costs, "MAX_ROWS", 2)
    for number in range(2):
        await have(api_process, gpu(now - HOUR_MS, now), number=number)
    fine = await api_process.call("GET", "/api/costs")
    await have(api_process, gpu(now - HOUR_MS, now), number=2)
    refused = await api_process.call("GET", "/api/costs")
    monkeypatch.undo()
    assert (len(fine.json()["rows"]), refused.status_code) == (2, 400)
    assert refused.json()["error"]["details"][0]["field"] == "bucket"
    assert len((await api_process.call("GET", "/api/costs")).json()["rows"]) == 3


async def test_csv_has_the_rows(api_process: ApiProcess) -> None:
    """With `Accept: text/csv` the answer has the same rows as CSV."""
    now = api_process.clock.now()
    await have(api_process, gpu(now - 3 * HOUR_MS, now, tags='{"team":"=1+1"}'))
    query = f"/api/costs?groupBy=tag:team&bucket=hour&from={iso(now - DAY_MS)}"
    rows = (await api_process.call("GET", query)).json()["rows"]
    answer = await api_process.call("GET", query, headers={"Accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    read = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["key"] for row in read] == ["'=1+1"] * len(rows)
    assert [row["bucket"] for row in read] == [row["bucket"] for row in rows]
    assert [float(row["amount"]) for row in read] == [row["amount"] for row in rows]
    assert [float(row["gpuHours"]) for row in read] == [row["gpuHours"] for row in rows]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("tz=Mars/Phobos", "tz"),
        ("groupBy=colour", "groupBy"),
        ("groupBy=tag:", "groupBy"),
        ("bucket=year", "bucket"),
        ("from=yesterday", "from"),
        ("from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "to"),
        ("from=2024-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("until=2024-01-01T00:00:00Z", "until"),
    ],
)
async def test_a_wrong_question_is_refused(api_process: ApiProcess, query: str, field: str) -> None:
    """A wrong parameter is 400 and named as it is written."""
    answer = await api_process.call("GET", f"/api/costs?{query}")
    assert answer.status_code == 400
    assert [one["field"] for one in answer.json()["error"]["details"]] == [field]


async def test_the_summary(api_process: ApiProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The summary has the burn, today's and this month's costs, and how long the balance lasts."""
    now = api_process.clock.now()
    await have(api_process, gpu(now - HOUR_MS, None))

    asked: list[int] = []

    async def balance() -> int:
        asked.append(1)
        return 70_000

    monkeypatch.setattr(api_process.app.balance, "_ask", balance)
    for _ in range(3):
        answer = await api_process.call("GET", "/api/costs/summary")
    TypeAdapter(CostSummaryResponse).validate_python(answer.json())
    assert answer.json() == {
        "currency": "USD",
        "burnPerHour": 0.35,
        "today": 0.35,
        "thisMonth": 0.35,
        "balance": 7.0,
        "runwayHours": 20.0,
        "asOf": iso(now),
    }
    assert asked == [1]


async def billed(
    api_process: ApiProcess,
    hours: Mapping[str, Mapping[int, int | None]],
    reached: int,
    **more: Any,
) -> None:
    """Have bills by owner and hour, read up to `reached`."""
    found = [
        Bill(owner, hour, amount)
        for owner, amounts in hours.items()
        for hour, amount in amounts.items()
    ]

    def write(connection: Any) -> None:
        begin = min(one.hour for one in found)
        reconciliation.replace_bills(connection, "gpu", begin, reached, found)
        newest = max(one.hour for one in found) + HOUR_MS
        reading = BillReading(0, DAY_MS, reached=reached, billed_until=newest)
        reconciliation.save_reading(connection, reading)

    await api_process.app.database.write(write)


async def test_the_reconciliation(api_process: ApiProcess) -> None:
    """Each owner has its bounds, its bill and a state; the totals are the sums of the rows."""
    begin = api_process.clock.now() // HOUR_MS * HOUR_MS - 30 * HOUR_MS
    end = begin + 4 * HOUR_MS
    one = await have(api_process, gpu(begin, end))
    await have(api_process, gpu(begin, end), number=1)
    await have(api_process, gpu(begin, end, rate=None), number=2)
    hours = [begin + number * HOUR_MS for number in range(4)]
    await billed(
        api_process,
        {
            "up-0": dict.fromkeys(hours, 3_500),
            "up-1": dict.fromkeys(hours, 5_000),
            "up-2": dict.fromkeys(hours, 1_000),
            "who": {hours[0]: 100},
        },
        begin + 28 * HOUR_MS,
    )
    answer = await api_process.call(
        "GET",
        f"/api/costs/reconciliation?from={iso(begin)}&to={iso(end)}",
        scope=Scope.READ,
    )
    assert answer.status_code == 200, answer.text
    TypeAdapter(ReconciliationResponse).validate_python(answer.json())
    shown = answer.json()
    assert (shown["from"], shown["to"]) == (iso(begin), iso(end))
    assert shown["billKnownUntil"] == iso(end)
    rows = {row["upstreamId"]: row for row in shown["rows"]}
    assert {owner: row["state"] for owner, row in rows.items()} == {
        "up-0": "matched",
        "up-1": "over",
        "up-2": "matched",
        "who": "unknownOwner",
    }
    assert rows["up-0"]["instanceId"] == one
    assert rows["up-0"]["billed"] == 1.4
    assert rows["up-0"]["ours"] <= 1.4 <= rows["up-0"]["oursAtMost"] < 1.401
    assert rows["up-0"]["difference"] == 0
    assert rows["up-1"]["difference"] == pytest.approx(0.6, abs=0.001)
    assert "oursAtMost" not in rows["up-2"]
    assert "instanceId" not in rows["who"]
    for name in ("ours", "billed", "difference", "pending"):
        total = sum(row[name] for row in shown["rows"])
        assert shown["totals"][name] == pytest.approx(total, abs=1e-9), name


async def test_the_reconciliation_before_a_bill_was_read(api_process: ApiProcess) -> None:
    """Everything is pending, and how far bills are known is left out."""
    now = api_process.clock.now()
    await have(api_process, gpu(now - 2 * HOUR_MS, None))
    shown = (await api_process.call("GET", "/api/costs/reconciliation")).json()
    assert "billKnownUntil" not in shown
    [row] = shown["rows"]
    assert (row["state"], row["billed"], row["pending"]) == ("notBilledYet", 0, 0.7)
    assert shown["totals"]["pending"] == 0.7


async def test_an_interval_is_one_of_full_hours(api_process: ApiProcess) -> None:
    """An hour that begins in the interval counts as a whole, others do not."""
    hour = api_process.clock.now() // HOUR_MS * HOUR_MS
    query = f"from={iso(hour - HOUR_MS + 1)}&to={iso(hour + 1)}"
    shown = (await api_process.call("GET", f"/api/costs/reconciliation?{query}")).json()
    assert (shown["from"], shown["to"]) == (iso(hour), iso(hour + HOUR_MS))
    assert shown["rows"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("tz=UTC", "tz"),
        ("from=yesterday", "from"),
        ("from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "to"),
        ("from=2024-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
    ],
)
async def test_a_wrong_interval_is_refused(api_process: ApiProcess, query: str, field: str) -> None:
    """The interval obeys the rules of that of the costs."""
    answer = await api_process.call("GET", f"/api/costs/reconciliation?{query}")
    assert answer.status_code == 400
    assert [one["field"] for one in answer.json()["error"]["details"]] == [field]


async def test_the_reconciliation_in_the_metrics(api_process: ApiProcess) -> None:
    """How old the compared bills are, and how many events they have led to in a day."""
    hour = api_process.clock.now() // HOUR_MS * HOUR_MS
    await billed(api_process, {"who": {hour - 5 * HOUR_MS: 1}}, hour - 2 * HOUR_MS)

    def write(connection: Any) -> None:
        for day, at in ((0, api_process.clock.now()), (1, api_process.clock.now() - DAY_MS - 1)):
            reconciliation.tell(connection, EventType.COST_UNKNOWN_OWNER, "who", day, now=at)

    await api_process.app.database.write(write)
    await api_process.app.fleet_count.once()
    text = (await api_process.call("GET", "/metrics", headers={"Accept": "text/plain"})).text
    age = (api_process.clock.now() - hour) / 1000 + 7_200
    assert f"novitai_bills_age_seconds {age}" in text
    assert 'novitai_bill_events{type="cost.unknown_owner"} 1.0' in text
    assert 'novitai_bill_events{type="cost.unexplained"} 0.0' in text


spans = st.builds(
    lambda began, length, slack, rate, owner: SpanOf(
        LedgerSpan(
            SpanKind.GPU, rate, began, began + slack, began + length, began + length + slack
        ),
        0,
        f"inst-{owner}",
        "gpu",
        "US",
        BillingMode.SPOT,
        2,
    ),
    st.integers(0, 60 * DAY_MS),
    st.integers(0, 20 * DAY_MS),
    st.integers(0, 90_000),
    st.integers(1, 10**7),
    st.integers(0, 4),
)


@given(
    found=st.lists(spans, max_size=12),
    since=st.integers(0, 40 * DAY_MS),
    length=st.integers(1, 40 * DAY_MS),
    bucket=st.sampled_from([None, *Bucket]),
    name=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"]),
)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
def test_rows_add_up(
    found: Sequence[SpanOf], since: int, length: int, bucket: Bucket | None, name: str
) -> None:
    """The rows add up to the totals to the last unit, with and without periods."""
    whole = CostsWanted(since, since + length, GroupBy.INSTANCE)
    report = report_of(found, replace(whole, bucket=bucket, tz=ZoneInfo(name)), 0)
    assert sum(row.amount for row in report.rows) == report.total
    assert sum(row.at_most for row in report.rows) == report.total_at_most
    assert report.total == report_of(found, whole, 0).total
    exact = sum(
        Fraction(
            (one.span.rate or 0)
            * max(
                0,
                min(one.span.ended_after or 0, since + length) - max(one.span.began_by or 0, since),
            ),
            DAY_MS,
        )
        for one in found
    )
    assert report.total == round(exact)
