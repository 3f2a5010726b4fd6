# SPDX-License-Identifier: Apache-2.0
"""Compares the ledger with Novita's bills, owner by owner. Pure.

An owner is an upstream ID that bills are for. Bills are of full hours of Novita's clock and appear
late. The ledger has bounds, so a bill between the two agrees with it. Exact amounts are rates times
milliseconds (see `novitai.domain.billing`). Hours are their begins in Unix milliseconds by
Novita's clock; spans and claims are by ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from novitai.domain.billing import DAY_MS, HOUR_MS, UNIT, LedgerSpan
from novitai.domain.billing_edges import CLOCKS_AGREE, OFFSET_ERROR

BILL_UNIT: Final = 10 * UNIT
"""The exact amount of 1/10000 USD, in which bills count (upstream.md §14)."""
BEHIND_MS: Final = 2 * HOUR_MS
"""How far behind the clock bills are compared."""
LATE_MS: Final = DAY_MS
"""For so long after its end, an hour without a bill counts as not billed yet."""
EDGE_MS: Final = CLOCKS_AGREE + OFFSET_ERROR
"""How far the two clocks may be apart without being noticed: the error of each cut."""
UNEXPLAINED_AT_LEAST: Final = 50_000 * UNIT
"""A smaller difference in a day is no event: 0.50 USD."""
UNEXPLAINED_SHARE: Final = 50
"""Nor is one that is at most this part, 1/50, of what the ledger has for the day."""
_ROUNDINGS: Final = 2
"""The GPUs and the disk are rounded separately, to whole units of a bill."""


class OwnerKind(StrEnum):
    """The relation of an owner to our records."""

    OURS = "ours"
    """A record pays it, or paid it."""
    UNMANAGED = "unmanaged"
    """A listing has shown it, and no record ever paid it."""
    UNKNOWN = "unknown"
    """Neither: it may not even be an instance."""


class BillState(StrEnum):
    """How the bills of an owner compare with the ledger."""

    MATCHED = "matched"
    OVER = "over"
    """More was billed than the ledger's upper bound."""
    UNDER = "under"
    """Less was billed than its lower bound."""
    NOT_BILLED_YET = "notBilledYet"
    """Nothing was billed yet of what the ledger has."""
    UNKNOWN_OWNER = "unknownOwner"


@dataclass(frozen=True, slots=True)
class PaidTime:
    """From when until when a record pays an owner, in Unix milliseconds by our clock.

    Attributes:
        since: The adoption; None if the record has bought it.
        until: The release; None if it was not released.
    """

    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class HourBill:
    """The bill of an owner for an hour.

    Attributes:
        amount: In 1/10000 USD, before vouchers; None if a bill of this hour cannot be read.
        lines: How many lines it has: GPUs, disk.
    """

    amount: int | None
    lines: int = 1


@dataclass(frozen=True, slots=True)
class OwnerAccount:
    """An owner with its spans of the ledger, each with the time it was last shown, and its bills.

    Attributes:
        hours: The bills by the begin of their hour.
    """

    upstream_id: str
    kind: OwnerKind
    spans: Sequence[tuple[LedgerSpan, int]] = ()
    claims: Sequence[PaidTime] = ()
    hours: Mapping[int, HourBill] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BillWindow:
    """The hours to compare: those that begin in `[since, until)`, both full hours.

    Attributes:
        reached: The end of the last hour whose bills were read.
        ahead: Milliseconds that Novita's clock is ahead of ours.
    """

    since: int
    until: int
    reached: int
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """The ledger and the bills of an owner in a window, in exact amounts.

    Attributes:
        state: How they compare.
        least: The amount that is certainly the record's, of the hours that were compared.
        most: The amount that may be the record's, of the same hours; None if a price is unknown.
        billed: The bills of these hours.
        difference: The amount billed above `most`, or, negative, below `least`; else 0.
        before_adoption: The bills from before a record adopted it.
        unmanaged: The other bills of hours in which no record paid it.
        pending: The amount that is certainly the record's, of the hours that are not billed yet.
    """

    state: BillState
    least: int = 0
    most: int | None = 0
    billed: int = 0
    difference: int = 0
    before_adoption: int = 0
    unmanaged: int = 0
    pending: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show of it."""
        return self == Comparison(self.state)


@dataclass(slots=True)
class _Sums:
    """Sums of a comparison while it is made."""

    least: int = 0
    most: int = 0
    unknown: bool = False
    billed: int = 0
    lines: int = 0
    before: int = 0
    unmanaged: int = 0
    pending: int = 0


def day_of(at: int) -> int:
    """Return the begin of the UTC day that contains a time, in Unix milliseconds."""
    return at // DAY_MS * DAY_MS


def hour_at_or_after(at: int) -> int:
    """Return the first full hour that is not before a time, in Unix milliseconds."""
    return -(-at // HOUR_MS) * HOUR_MS


def compare(owner: OwnerAccount, window: BillWindow) -> Comparison:
    """Compare the bills of an owner with the ledger.

    An hour without a bill is left out for `LATE_MS`, and so is one with a bill that cannot be read.
    Of an hour in which a record pays only for a part, the bill may have as much more as it likes.
    """
    sums = _Sums()
    end = max(window.since, min(window.until, window.reached))
    hours = {hour: bill for hour, bill in owner.hours.items() if window.since <= hour < end}
    if owner.kind is not OwnerKind.OURS:
        billed = sum((bill.amount or 0) for bill in hours.values()) * BILL_UNIT
        if owner.kind is OwnerKind.UNMANAGED:
            return Comparison(BillState.MATCHED, unmanaged=billed)
        return Comparison(BillState.UNKNOWN_OWNER, billed=billed, difference=billed)
    left_out: set[int] = set()
    for hour, bill in hours.items():
        if bill.amount is None or _add_bill(sums, owner, window, hour, bill.amount * BILL_UNIT):
            left_out.add(hour)
        sums.lines += bill.lines
    late = max(window.since, hour_at_or_after(window.reached - LATE_MS - HOUR_MS + 1))
    for hour in range(late, end, HOUR_MS):
        if hour not in hours:
            left_out.add(hour)
            sums.pending += _least(owner, window, hour, hour + HOUR_MS)
    for begin, until in _stretches(window.since, end, left_out):
        _add_ours(sums, owner, window, begin, until)
    sums.pending += _least(owner, window, end, window.until)
    return _judged(sums)


def unexplained(found: Comparison, window: BillWindow) -> bool:
    """Return whether the difference of a day is to be told.

    Too much can be told at once. Too little can be told when no bill of the day is late any more.
    """
    if found.state is BillState.OVER:
        bound = found.most or 0
    elif found.state is BillState.UNDER and window.until <= window.reached - LATE_MS:
        bound = found.least
    else:
        return False
    return abs(found.difference) > max(UNEXPLAINED_AT_LEAST, bound // UNEXPLAINED_SHARE)


def _add_bill(sums: _Sums, owner: OwnerAccount, window: BillWindow, hour: int, amount: int) -> bool:
    """Add the bill of an hour; return whether the ledger's part of that hour was added with it."""
    begin = hour - window.ahead
    paid = _paid(owner.claims, begin, begin + HOUR_MS)
    if paid == HOUR_MS:
        sums.billed += amount
        return False
    least, most, unknown = _bounds(owner, window, hour, hour + HOUR_MS)
    ours = amount if unknown else min(amount, most)
    sums.least, sums.most = sums.least + least, sums.most + most
    sums.unknown = sums.unknown or unknown
    sums.billed += ours
    first = min((one.since for one in owner.claims if one.since is not None), default=None)
    if first is not None and begin <= first:
        sums.before += amount - ours
    else:
        sums.unmanaged += amount - ours
    return True


def _add_ours(sums: _Sums, owner: OwnerAccount, window: BillWindow, since: int, until: int) -> None:
    least, most, unknown = _bounds(owner, window, since, until)
    sums.least, sums.most = sums.least + least, sums.most + most
    sums.unknown = sums.unknown or unknown


def _judged(sums: _Sums) -> Comparison:
    tolerance = (sums.lines + _ROUNDINGS) * BILL_UNIT
    state, difference = BillState.MATCHED, 0
    if sums.billed < sums.least - tolerance:
        state, difference = BillState.UNDER, sums.billed - sums.least
    elif not sums.unknown and sums.billed > sums.most + tolerance:
        state, difference = BillState.OVER, sums.billed - sums.most
    elif not sums.lines and sums.pending:
        state = BillState.NOT_BILLED_YET
    return Comparison(
        state,
        sums.least,
        None if sums.unknown else sums.most,
        sums.billed,
        difference,
        sums.before,
        sums.unmanaged,
        sums.pending,
    )


def _bounds(
    owner: OwnerAccount, window: BillWindow, since: int, until: int
) -> tuple[int, int, bool]:
    """Return the bounds of the ledger for a time, and whether a price is unknown.

    An instance that was not listed since may be billed on, so the upper bound of an open span is
    not cut at the last listing.
    """
    since, until = since - window.ahead, until - window.ahead
    least, most, unknown = 0, 0, False
    for span, shown_at in owner.spans:
        longest = span.most(until + EDGE_MS, since - EDGE_MS, until + EDGE_MS)
        unknown = unknown or (span.rate is None and longest > 0)
        least += (span.rate or 0) * span.least(shown_at, since + EDGE_MS, until - EDGE_MS)
        most += (span.rate or 0) * longest
    return least, most, unknown


def _least(owner: OwnerAccount, window: BillWindow, since: int, until: int) -> int:
    since, until = since - window.ahead, until - window.ahead
    return sum((span.rate or 0) * span.least(at, since, until) for span, at in owner.spans)


def _paid(claims: Sequence[PaidTime], begin: int, end: int) -> int:
    """Return for how many milliseconds of a time a record pays."""
    total = 0
    for claim in sorted(claims, key=lambda one: one.since or 0):
        since = begin if claim.since is None else max(begin, claim.since)
        until = end if claim.until is None else min(end, claim.until)
        if until > since:
            total, begin = total + until - since, until
    return total


def _stretches(since: int, until: int, without: set[int]) -> Iterator[tuple[int, int]]:
    """Yield the times that are left of `[since, until)` without some hours."""
    for hour in sorted(without):
        if since < hour:
            yield since, hour
        since = hour + HOUR_MS
    if since < until:
        yield since, until
