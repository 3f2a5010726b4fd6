# SPDX-License-Identifier: Apache-2.0
"""Rates, sums that add up, and calendar periods."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.domain.billing import (
    DAY_MS,
    GPU_RULES,
    HOUR_MS,
    UNIT,
    Basis,
    Billing,
    LedgerSpan,
    SpanKind,
    disk_rate,
    folded,
    gpu_billing,
    gpu_rate,
    half_even,
    shares,
    usd_down,
    usd_up,
)
from novitai.domain.billing_periods import Bucket, begin_of, end_of, periods, zone
from novitai.domain.status import Observation, read_word

MONTH = 30 * DAY_MS
ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "America/Havana", "Asia/Kathmandu")


def at(text: str) -> int:
    """Return Unix milliseconds of an ISO-8601 time."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def test_every_status_of_novita_is_in_the_table() -> None:
    """The table has each status that novitai reads; only the two ends are documented."""
    known = {word for word in GPU_RULES if word != "freezing"}
    assert all(read_word(word) is not Observation.UNKNOWN for word in known)
    documented = {word for word, rule in GPU_RULES.items() if rule.basis is Basis.DOCUMENTED}
    assert documented == {"pulling", "exited"}
    assert gpu_billing("a word of tomorrow") is Billing.UNCHANGED


@pytest.mark.parametrize(
    ("gb", "stopped", "price", "rate"),
    [
        (60, False, None, 0),
        (61, False, None, 500),
        (160, False, 250, 50_000),
        (160, True, 250, 25_000),
        (160, True, None, 50_000),
        (10, True, 250, 0),
    ],
)
def test_disk_rates(gb: int, stopped: bool, price: int | None, rate: int) -> None:
    """60 GB are free; a stopped disk has its own price if Novita sends one."""
    assert disk_rate(gb, stopped=stopped, stopped_price=price) == rate


def test_an_hour_costs_the_hourly_price() -> None:
    """A GPU rate times an hour is the price per hour, to the last unit."""
    assert (gpu_rate(35_000) or 0) * HOUR_MS == 35_000 * UNIT
    assert gpu_rate(None) is None
    assert (usd_down(35_000 * UNIT), usd_up(35_000 * UNIT)) == (0.35, 0.35)
    assert (usd_down(UNIT - 1), usd_up(1)) == (0.0, 0.00001)


@pytest.mark.parametrize(("exact", "rounded"), [(5, 0), (15, 2), (25, 2), (26, 3), (24, 2)])
def test_a_half_goes_to_the_even_number(exact: int, rounded: int) -> None:
    """Rounding is half to even."""
    assert half_even(exact, 10) == rounded


@given(st.lists(st.integers(0, 10**18), max_size=40))
def test_rows_add_up_to_the_total(exacts: list[int]) -> None:
    """Rounded parts add up to the rounded total, and each is within one unit of its own value."""
    total, parts = shares(exacts)
    assert sum(parts) == total == half_even(sum(exacts))
    assert all(
        0 <= part * UNIT - exact + UNIT <= 2 * UNIT
        for part, exact in zip(parts, exacts, strict=True)
    )


@given(
    since=st.integers(at("2020-01-01T00:00:00+00:00"), at("2030-01-01T00:00:00+00:00")),
    days=st.integers(1, 60),
    bucket=st.sampled_from(list(Bucket)),
    name=st.sampled_from(ZONES),
)
def test_periods_cover_the_interval(since: int, days: int, bucket: Bucket, name: str) -> None:
    """Periods follow each other without gap, and each is a whole one between the first and last."""
    tz, until = ZoneInfo(name), since + days * DAY_MS
    found = list(periods(bucket, since, until, tz))
    assert found[0][0] == since
    assert found[-1][1] == until
    assert all(one[1] == two[0] for one, two in pairwise(found))
    assert all(begin_of(bucket, one[0], tz) == one[0] for one in found[1:])
    assert all(end_of(bucket, one[0], tz) == one[1] for one in found[:-1])


@pytest.mark.parametrize(
    ("name", "inside", "hours"),
    [
        ("Europe/Berlin", "2026-03-29T12:00:00+02:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00:00+01:00", 25),
        ("America/Havana", "2026-03-08T12:00:00-04:00", 23),  # the clock skips midnight
        ("UTC", "2026-03-29T12:00:00+00:00", 24),
    ],
)
def test_days_with_a_change_of_the_clock(name: str, inside: str, hours: int) -> None:
    """A day of a zone has 23 or 25 hours when its clock changes."""
    tz = ZoneInfo(name)
    begin, end = begin_of(Bucket.DAY, at(inside), tz), end_of(Bucket.DAY, at(inside), tz)
    assert (end - begin) / HOUR_MS == hours
    assert begin <= at(inside) < end


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    """A week begins on Monday, a month on its first day, both at midnight of the zone."""
    tz, inside = ZoneInfo("Europe/Berlin"), at("2026-03-01T12:00:00+01:00")
    assert begin_of(Bucket.WEEK, inside, tz) == at("2026-02-23T00:00:00+01:00")
    assert begin_of(Bucket.MONTH, inside, tz) == at("2026-03-01T00:00:00+01:00")
    assert end_of(Bucket.MONTH, inside, tz) == at("2026-04-01T00:00:00+02:00")
    assert datetime.fromtimestamp(begin_of(Bucket.MONTH, inside, tz) / 1000, UTC).hour == 23


@pytest.mark.parametrize("name", ["", "Mars/Phobos", "../etc/passwd", "Europe", "\x00", "a" * 300])
def test_an_unknown_zone(name: str) -> None:
    """A name that is no time zone, or no name at all, gives None."""
    assert zone(name) is None


def closed(bounds: list[int], *, sure: bool = True) -> LedgerSpan:
    """Return a span with four ordered times; not `sure`: it is not known whether it began."""
    begin, begun, ending, end = sorted(bounds)
    return LedgerSpan(SpanKind.GPU, 1, begin, begun if sure else None, ending, end)


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, MONTH // 30), min_size=4, max_size=4), st.booleans()),
        min_size=1,
        max_size=20,
    )
)
def test_a_folded_span_has_the_sums_of_its_parts(parts: list[tuple[list[int], bool]]) -> None:
    """At least and at most as many milliseconds, all of them within the month."""
    spans = [closed(bounds, sure=sure) for bounds, sure in parts]
    one = folded(spans, 0, MONTH)
    assert one is not None
    assert one.least(0, 0, MONTH) == one.least(0) == sum(span.least(0) for span in spans)
    assert one.most(0, 0, MONTH) == one.most(0) == sum(span.most(0) for span in spans)


def test_spans_that_fill_more_than_the_month_stay_apart() -> None:
    """Their bounds overlap, and together they are longer than the time that one may fill."""
    whole = closed([0, 1, MONTH - 1, MONTH])
    assert folded([whole], 0, MONTH) == whole
    assert folded([whole, closed([0, 0, 1, 1])], 0, MONTH) is None
