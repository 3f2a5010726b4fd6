# SPDX-License-Identifier: Apache-2.0
"""Reads the ledger: the costs of one record, and those of an interval by group and period."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.billing import (
    HOUR_MS,
    HOURS_PER_DAY,
    Cost,
    LedgerSpan,
    SpanKind,
    half_even,
    shares,
)
from novitai.domain.billing_periods import Bucket, begin_of, periods
from novitai.domain.product import PRICE_UNITS_PER_USD
from novitai.errors import FieldError, NotFound, ValidationFailed
from novitai.lifecycle.money import ledger
from novitai.store.engine.database import Database
from novitai.store.queries import billing, coordination, instances
from novitai.store.queries.billing import SpanOf

MAX_ROWS: Final = 100_000
"""The most rows of one answer."""
_UTC: Final = ZoneInfo("UTC")
_GPU_HOUR_UNIT: Final = HOUR_MS // 10_000
"""GPU-milliseconds in the unit to which GPU-hours are rounded, 1/10000."""


class GroupBy(StrEnum):
    """By what costs are grouped, besides tags."""

    INSTANCE = "instance"
    PRODUCT = "product"
    REGION = "region"
    BILLING_MODE = "billingMode"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class CostsWanted:
    """A question about an interval; times in Unix milliseconds.

    Attributes:
        tag: The name of the tag by which costs are grouped, in place of `group_by`.
    """

    since: int
    until: int
    group_by: GroupBy = GroupBy.INSTANCE
    tag: str | None = None
    bucket: Bucket | None = None
    tz: ZoneInfo = _UTC


@dataclass(frozen=True, slots=True)
class CostRow:
    """The costs of one group, in one period if periods were asked for.

    Attributes:
        bucket: When the period begins, in Unix milliseconds.
        amount: The amount that is certainly billed, in 1/100000 USD.
        at_most: The amount that may be billed, in 1/100000 USD.
        gpu_hours: In 1/10000 GPU-hours, of what is certainly billed.
    """

    key: str
    bucket: int | None
    amount: int
    at_most: int
    gpu_hours: int


@dataclass(frozen=True, slots=True)
class CostReport:
    """The costs of an interval. The rows add up to the totals, which are in 1/100000 USD."""

    since: int
    until: int
    total: int
    total_at_most: int
    rows: Sequence[CostRow]


@dataclass(frozen=True, slots=True)
class CostDetails:
    """The costs of one record: in all, and by kind in exact amounts, with its spans."""

    instance_id: str
    cost: Cost
    by_kind: Mapping[SpanKind, tuple[int, int]]
    spans: Sequence[LedgerSpan]


@dataclass(frozen=True, slots=True)
class CostSummary:
    """Present spending; amounts in 1/100000 USD, `burn` per hour; times in Unix milliseconds."""

    burn: int
    today: int
    this_month: int
    as_of: int


class Costs:
    """Answers questions about costs from the ledger; Novita is not called."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def of_instance(self, instance_id: str) -> CostDetails:
        """Return what a record costs, with all its spans.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
        """

        def load(connection: Connection) -> CostDetails:
            instance = instances.load(connection, instance_id)
            if instance is None:
                raise NotFound(f"Instance '{instance_id}' not found", code="INSTANCE_NOT_FOUND")
            cost = ledger.costs_of(connection, [instance])[instance_id]
            spans = billing.spans_of(connection, instance_id)
            books = billing.books_of(connection, [instance_id]).get(instance_id, ())
            listed_at = coordination.listed_at(connection)
            # An open span is certain up to the time at which its own instance was last seen.
            closed = [(span, cost.as_of) for span in spans if span.ended_by is not None]
            opened = [(span, one.state.shown_at(listed_at)) for one in books for span in one.spans]
            by_kind = {
                kind: _bounds(
                    [one for one in (*closed, *opened) if one[0].kind is kind], cost.as_of
                )
                for kind in SpanKind
            }
            return CostDetails(instance_id, cost, by_kind, spans)

        return await self._database.read(load, snapshot=True)

    async def report(self, wanted: CostsWanted) -> CostReport:
        """Return the costs of an interval by group and period.

        Raises:
            ValidationFailed: the answer would have more than `MAX_ROWS` rows.
        """
        now = self._clock.now()

        def load(connection: Connection) -> CostReport:
            with billing.between(connection, wanted.since, wanted.until) as found:
                return report_of(found, wanted, now)

        return await self._database.read(load, snapshot=True)

    async def summary(self, tz: ZoneInfo) -> CostSummary:
        """Return the present burn, and the costs of this day and this month of a zone."""
        now = self._clock.now()
        today, month = begin_of(Bucket.DAY, now, tz), begin_of(Bucket.MONTH, now, tz)

        def load(connection: Connection) -> CostSummary:
            spent = {today: 0, month: 0}
            with billing.between(connection, month, now + 1) as found:
                for one in found:
                    for since in spent:
                        spent[since] += (one.span.rate or 0) * one.span.least(
                            one.shown_at, since, now + 1
                        )
            return CostSummary(
                burn=half_even(billing.burn(connection, now), HOURS_PER_DAY),
                today=half_even(spent[today]),
                this_month=half_even(spent[month]),
                as_of=coordination.listed_at(connection) or now,
            )

        return await self._database.read(load, snapshot=True)


def report_of(found: Iterable[SpanOf], wanted: CostsWanted, now: int) -> CostReport:
    """Sum spans up by group and period, exactly, and round once at the end.

    An open span is certain up to the time at which its instance was last seen, and may be billed
    up to `now` (Unix milliseconds); neither goes beyond the purge of its disk.

    Raises:
        ValidationFailed: there would be more than `MAX_ROWS` rows.
    """
    key_of = _key(wanted)
    sums: dict[tuple[int | None, str], list[int]] = {}
    cuts = [(wanted.since, wanted.until)]
    if wanted.bucket:
        cuts = list(periods(wanted.bucket, wanted.since, wanted.until, wanted.tz))
    begins = [since for since, _ in cuts]
    for one in found:
        span, key = one.span, key_of(one)
        first = span.began_after
        last = span.last(max(now, one.shown_at))
        for number in range(max(0, bisect_right(begins, first) - 1), len(cuts)):
            since, until = cuts[number]
            if until <= first:
                continue
            if since >= last:
                break
            least = span.least(one.shown_at, since, until)
            most = span.most(last, since, until)
            row = sums.setdefault((since if wanted.bucket else None, key), [0, 0, 0])
            row[0] += (span.rate or 0) * least
            row[1] += (span.rate or 0) * most
            row[2] += least * one.gpu_num if span.kind is SpanKind.GPU else 0
            if len(sums) > MAX_ROWS:
                raise ValidationFailed(
                    "Validation failed",
                    details=[
                        FieldError(
                            "bucket",
                            f"The answer would have more than {MAX_ROWS} rows: choose a longer "
                            "bucket or a shorter interval",
                            wanted.bucket.value if wanted.bucket else None,
                        )
                    ],
                )
    order = sorted(sums, key=lambda at: (at[0] or 0, at[1]))
    total, amounts = shares([sums[at][0] for at in order])
    total_at_most, at_most = shares([sums[at][1] for at in order])
    rows = []
    for at, amount, most in zip(order, amounts, at_most, strict=True):
        *_, gpu_hours = sums.pop(at)  # the sums go as the rows are made
        bucket, key = at
        rows.append(CostRow(key, bucket, amount, most, half_even(gpu_hours, _GPU_HOUR_UNIT)))
    return CostReport(wanted.since, wanted.until, total, total_at_most, rows)


def usd_of(units: int) -> float:
    """Convert 1/100000 USD to USD."""
    return units / PRICE_UNITS_PER_USD


def gpu_hours_of(units: int) -> float:
    """Convert the unit of `CostRow.gpu_hours` to GPU-hours."""
    return units / 10_000


def _bounds(found: Sequence[tuple[LedgerSpan, int]], as_of: int) -> tuple[int, int]:
    """Return what spans cost, each with the time up to which it is certain if it is open."""
    return (
        sum((span.rate or 0) * span.least(shown_at) for span, shown_at in found),
        sum((span.rate or 0) * span.most(as_of) for span, _ in found),
    )


def _key(wanted: CostsWanted) -> Callable[[SpanOf], str]:
    """Return the function that names the group of a span; empty if it has no such label."""
    tag = wanted.tag
    if tag is not None:

        def tagged(one: SpanOf) -> str:
            tags = orjson.loads(one.span.tags or "{}")
            return str(tags.get(tag, ""))

        return tagged
    return {
        GroupBy.INSTANCE: lambda one: one.instance_id,
        GroupBy.PRODUCT: lambda one: one.product_name,
        GroupBy.REGION: lambda one: one.region,
        GroupBy.BILLING_MODE: lambda one: one.billing_mode.value,
        GroupBy.KEY: lambda one: one.span.key_id or "",
    }[wanted.group_by]
