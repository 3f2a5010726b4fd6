# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of bills: from billed spans to exact sums and to the pieces of hourly bills.

All numbers are integers. An exact sum counts 1/100000 USD per day times milliseconds. A bill
counts 1/10000 USD, like the balance. The rest of an hour below that unit goes into the next hour,
so the bills of a line add up to its exact sum, rounded down once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

HOUR_MS = 3_600_000
DAY_MS = 86_400_000

EXACT_PER_UNIT = 10 * DAY_MS
"""An exact sum divided by this is in 1/10000 USD, the unit of bills and of the balance."""

Kind = Literal["gpu", "cloud_storage"]
"""The two things that are billed, by the names of their categories (upstream.md §14)."""

Cycle = Literal["Hour", "Day", "Week", "Month"]


@dataclass(frozen=True, slots=True)
class BilledSpan:
    """A time in which one rate held; times are virtual Unix milliseconds, `end` excluded.

    Attributes:
        quantity: GPUs, or GB.
        per_day: The rate of the whole quantity in 1/100000 USD per day.
    """

    kind: Kind
    begin: int
    end: int
    quantity: int
    per_day: int

    @property
    def unit_price(self) -> int:
        """The price in 1/100000 USD: of a GPU per hour, or of a GB per day."""
        whole = self.per_day // self.quantity
        return whole // 24 if self.kind == "gpu" else whole

    def exact(self, until: int) -> int:
        """Return the exact sum of the span up to `until`."""
        return self.per_day * max(0, min(self.end, until) - self.begin)


def extended(spans: tuple[BilledSpan, ...], new: BilledSpan) -> tuple[BilledSpan, ...]:
    """Append a span, or extend the last one if it has the same rate and no time lies between."""
    if new.end <= new.begin or new.per_day <= 0:
        return spans
    if spans:
        last = spans[-1]
        if (last.end, last.quantity, last.per_day) == (new.begin, new.quantity, new.per_day):
            whole = BilledSpan(last.kind, last.begin, new.end, last.quantity, last.per_day)
            return (*spans[:-1], whole)
    return (*spans, new)


def exact(spans: Sequence[BilledSpan], until: int) -> int:
    """Return the exact sum of all spans up to `until`."""
    return sum(span.exact(until) for span in spans)


def units(spans: Sequence[BilledSpan], until: int) -> int:
    """Return what the bills of these spans, one line, add up to at `until`, in 1/10000 USD."""
    return exact(spans, until) // EXACT_PER_UNIT


@dataclass(frozen=True, slots=True)
class HourlyPiece:
    """The part of a span that lies in one hour, which begins at `hour`, and its share of a bill."""

    span: BilledSpan
    hour: int
    milliseconds: int
    amount: int


def pieces(spans: Sequence[BilledSpan], begin: int, end: int) -> Iterator[HourlyPiece]:
    """Cut the spans of one line at the hours that begin in `[begin, end)`; oldest first."""
    first, last = hour_at_or_after(begin), hour_at_or_after(end)
    before = exact(spans, first)
    for span in spans:
        since = max(span.begin, first)
        until = min(span.end, last)
        while since < until:
            hour = since // HOUR_MS * HOUR_MS
            stop = min(until, hour + HOUR_MS)
            after = before + span.per_day * (stop - since)
            amount = after // EXACT_PER_UNIT - before // EXACT_PER_UNIT
            yield HourlyPiece(span, hour, stop - since, amount)
            before, since = after, stop


def hour_at_or_after(at: int) -> int:
    """Return the first full hour that is not before `at`."""
    return -(-at // HOUR_MS) * HOUR_MS


def period(cycle: Cycle, hour: int) -> tuple[int, int]:
    """Return begin and end of the UTC hour, day, week (from Monday) or month around an hour."""
    if cycle == "Hour":
        return hour, hour + HOUR_MS
    day = datetime.fromtimestamp(hour // 1000, UTC).replace(hour=0)
    match cycle:
        case "Day":
            end = day + timedelta(days=1)
        case "Week":
            day -= timedelta(days=day.weekday())
            end = day + timedelta(days=7)
        case "Month":
            day = day.replace(day=1)
            end = (day + timedelta(days=32)).replace(day=1)
    return int(day.timestamp()) * 1000, int(end.timestamp()) * 1000
