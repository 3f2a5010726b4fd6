# SPDX-License-Identifier: Apache-2.0
"""Tables of bills against spans of the ledger, with known hours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.domain.billing import DAY_MS, HOUR_MS, UNIT, LedgerSpan, SpanKind
from novitai.domain.reconciliation import (
    BILL_UNIT,
    BillState,
    BillWindow,
    Comparison,
    HourBill,
    OwnerAccount,
    OwnerKind,
    PaidTime,
    compare,
    unexplained,
)

T = 20_000 * DAY_MS
"""Midnight of a day."""
RATE = 100_000 * 24
"""One USD an hour: 10000 units of a bill."""
MATCHED, OVER, UNDER = BillState.MATCHED, BillState.OVER, BillState.UNDER
USD = 100_000 * UNIT


def h(hours: float) -> int:
    """Return a time so many hours after `T`."""
    return T + round(hours * HOUR_MS)


def gpu(
    began: float, ended: float | None, *, slack: float = 0, rate: int | None = RATE
) -> tuple[LedgerSpan, int]:
    """A span from one hour to another; each end is known to `slack` hours; shown at 48."""
    since, until = h(began), None if ended is None else h(ended)
    span = LedgerSpan(
        SpanKind.GPU,
        rate,
        since - round(slack * HOUR_MS),
        since,
        until,
        None if until is None else until + round(slack * HOUR_MS),
    )
    return span, h(48)


def hourly(*amounts: int | None, since: float = 0) -> dict[int, HourBill]:
    """Bills of hours in a row, from one on, in units of a bill."""
    return {h(since + number): HourBill(amount) for number, amount in enumerate(amounts)}


def ours(*spans: tuple[LedgerSpan, int], **more: Any) -> OwnerAccount:
    """An owner that a record has bought."""
    return replace(OwnerAccount("up", OwnerKind.OURS, spans, (PaidTime(),)), **more)


def window(since: float = 0, until: float = 4, reached: float = 48) -> BillWindow:
    """A window of hours; by default all bills of it are a day old."""
    return BillWindow(h(since), h(until), h(reached))


FULL = hourly(10_000, 10_000, 10_000, 10_000)


@pytest.mark.parametrize(
    ("spans", "hours", "state", "difference"),
    [
        ([gpu(0, 4)], FULL, MATCHED, 0),
        # A begin in the middle of an hour is billed as a part of that hour.
        ([gpu(0.5, 4)], hourly(5_000, 10_000, 10_000, 10_000), MATCHED, 0),
        # The bill lies anywhere between the bounds.
        ([gpu(0.5, 4, slack=0.25)], hourly(7_500, 10_000, 10_000, 10_000), MATCHED, 0),
        ([gpu(0.5, 4, slack=0.25)], hourly(5_000, 10_000, 10_000, 10_000), MATCHED, 0),
        ([gpu(0.5, 4, slack=0.25)], hourly(9_500, 10_000, 10_000, 10_000), OVER, 0.20),
        ([gpu(0.5, 4, slack=0.25)], hourly(4_000, 10_000, 10_000, 10_000), UNDER, -0.10),
        # A price that changed within an hour: both spans are in one bill.
        (
            [gpu(0, 1.5), gpu(1.5, 4, rate=2 * RATE)],
            hourly(10_000, 15_000, 20_000, 20_000),
            MATCHED,
            0,
        ),
        ([gpu(0, 4)], hourly(10_000, 20_000, 20_000, 20_000), OVER, 3),
        # The ledger does not know that it stopped, or that it ran on.
        ([gpu(0, None)], hourly(10_000, 10_000), UNDER, -2),
        ([gpu(0, 2)], FULL, OVER, 2),
        # A span that may not have been billed at all counts for the upper bound.
        ([(replace(gpu(0, 4)[0], began_by=None), h(48))], {}, MATCHED, 0),
        ([(replace(gpu(0, 4)[0], began_by=None), h(48))], FULL, MATCHED, 0),
        # An instance that was not listed since may be billed on.
        ([(gpu(0, None)[0], h(1))], FULL, MATCHED, 0),
        # A price that is not known bounds nothing from above.
        ([gpu(0, 4, rate=None)], FULL, MATCHED, 0),
        # Rounding: each hour may differ by a unit.
        ([gpu(0, 4)], hourly(10_001, 10_001, 10_001, 10_001), MATCHED, 0),
        # A bill that cannot be read is left out, with its hour.
        ([gpu(0, 4)], hourly(10_000, None, 10_000, 10_000), MATCHED, 0),
    ],
)
def test_a_bill_agrees_if_it_lies_between_the_bounds(
    spans: list[tuple[LedgerSpan, int]],
    hours: Mapping[int, HourBill],
    state: BillState,
    difference: float,
) -> None:
    """The state and the difference in USD, which counts from the nearer bound."""
    found = compare(ours(*spans, hours=hours), window())
    assert found.state is state
    assert found.difference / USD == pytest.approx(difference, abs=0.001)


def test_an_hour_without_a_bill_is_not_billed_yet_for_a_day() -> None:
    """The missing bill of an hour is pending; a day after that hour, it is missing."""
    owner = ours(gpu(0, 4), hours=hourly(10_000, 10_000, 10_000))
    late = compare(owner, window(reached=3.999 + 24))
    assert (late.state, late.pending, late.least < 3 * USD) == (MATCHED, USD, True)
    missing = compare(owner, window(reached=4 + 24))
    assert (missing.state, missing.pending) == (UNDER, 0)
    none = compare(ours(gpu(0, 4)), window(reached=6))
    assert (none.state, none.billed, none.pending) == (BillState.NOT_BILLED_YET, 0, 4 * USD)


def test_what_was_not_read_yet_is_pending() -> None:
    """Hours after the last one that was read are not compared, even if they have bills."""
    found = compare(ours(gpu(0, 4), hours=FULL), window(reached=2))
    assert (found.state, found.billed, found.pending) == (MATCHED, 2 * USD, 2 * USD)


@pytest.mark.parametrize(
    ("adopted", "released", "billed", "before", "unmanaged"),
    [
        (2.0, None, 2.0, 2.0, 0.0),
        (1.25, None, 2.75, 1.25, 0.0),
        (None, 2.0, 2.0, 0.0, 2.0),
        (None, 2.75, 2.75, 0.0, 1.25),
        (1.25, 2.75, 1.5, 1.25, 1.25),
        (1.25, 1.75, 0.5, 1.5, 2.0),  # of that hour, all the rest counts as before
    ],
)
def test_what_no_record_pays_is_not_compared(
    adopted: float | None, released: float | None, billed: float, before: float, unmanaged: float
) -> None:
    """Bills from before an adoption and after a release are shown apart; hours may be mixed."""
    claim = PaidTime(
        None if adopted is None else h(adopted), None if released is None else h(released)
    )
    owner = ours(gpu(adopted or 0, released), hours=FULL, claims=[claim])
    found = compare(owner, window())
    assert (found.state, found.difference) == (MATCHED, 0)
    told = (found.billed, found.before_adoption, found.unmanaged)
    assert [one / USD for one in told] == pytest.approx([billed, before, unmanaged], abs=0.002)
    assert sum(told) == 4 * USD


def test_two_records_may_pay_an_owner_one_after_the_other() -> None:
    """No record pays the bills between a release and the adoption by another record."""
    claims = [PaidTime(None, h(1)), PaidTime(h(3), None)]
    found = compare(ours(gpu(0, 1), gpu(3, 4), hours=FULL, claims=claims), window())
    assert found.state is MATCHED
    assert found.billed == pytest.approx(2 * USD, rel=0.001)
    assert found.billed + found.before_adoption == 4 * USD


def test_whose_the_bills_are() -> None:
    """An unmanaged owner has no difference; an unknown one is told with all of its bills."""
    owner = OwnerAccount("up", OwnerKind.UNMANAGED, hours=FULL)
    assert compare(owner, window()) == Comparison(MATCHED, unmanaged=4 * USD)
    found = compare(replace(owner, kind=OwnerKind.UNKNOWN), window())
    assert (found.state, found.billed) == (BillState.UNKNOWN_OWNER, 4 * USD)


@pytest.mark.parametrize(
    ("billed", "spans", "until", "reached", "told"),
    [
        (20_000 + 5_100, [gpu(0, 2)], 24, 4, True),  # more than $0.50, on the same day
        (20_000 + 4_900, [gpu(0, 2)], 24, 4, False),
        (240_000 + 5_100, [gpu(0, 24)], 24, 48, True),
        (2_400_000 + 47_000, [gpu(0, 24, rate=10 * RATE)], 24, 48, False),  # below 2 %
        (2_400_000 + 49_000, [gpu(0, 24, rate=10 * RATE)], 24, 48, True),
        (20_000 - 5_100, [gpu(0, 2)], 24, 47, False),  # a bill may be late
        (20_000 - 5_100, [gpu(0, 2)], 24, 48, True),
        (20_000 - 4_900, [gpu(0, 2)], 24, 48, False),
    ],
)
def test_which_difference_is_told(
    billed: int, spans: list[tuple[LedgerSpan, int]], until: float, reached: float, told: bool
) -> None:
    """A difference above $0.50 and above 2 % of the day; too little only once it is not late."""
    owner = ours(*spans, hours={h(0): HourBill(billed - 10_000), h(1): HourBill(10_000)})
    day = window(0, until, reached)
    assert unexplained(compare(owner, day), day) is told


def test_the_clocks_may_differ() -> None:
    """Hours of Novita's clock are looked up in the ledger by ours."""
    ahead = 7 * DAY_MS + 17 * 60_000
    spans = [
        (replace(span, began_after=span.began_after - ahead, began_by=h(0.5) - ahead), at)
        for span, at in [gpu(0.5, None)]
    ]
    owner = ours(*spans, hours=hourly(5_000, 10_000, 10_000, 10_000))
    assert compare(owner, replace(window(), ahead=ahead)).state is MATCHED
    assert compare(owner, window()).state is not MATCHED


@given(
    edges=st.lists(st.integers(0, 6 * HOUR_MS), min_size=2, max_size=8, unique=True),
    slack=st.integers(0, 60_000),
    since=st.integers(0, 5),
    length=st.integers(1, 6),
    rate=st.integers(1, 1_000_000),
)
def test_true_bills_agree_in_every_window(
    edges: list[int], slack: int, since: int, length: int, rate: int
) -> None:
    """Hourly bills of what really ran, rounded as Novita does, agree in every window of hours."""
    cuts = sorted(edges)
    runs = [(T + a, T + b) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    spans = [(LedgerSpan(SpanKind.GPU, rate, a - slack, a, b, b + slack), h(48)) for a, b in runs]
    hours = {}
    for hour in range(T, T + 6 * HOUR_MS, HOUR_MS):
        until = [
            rate * sum(max(0, min(b, at) - a) for a, b in runs) for at in (hour, hour + HOUR_MS)
        ]
        if until[0] != until[1]:
            hours[hour] = HourBill(until[1] // BILL_UNIT - until[0] // BILL_UNIT)
    found = compare(ours(*spans, hours=hours), window(since, since + length))
    assert found.state is MATCHED, found
