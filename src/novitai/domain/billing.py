# SPDX-License-Identifier: Apache-2.0
"""The rules by which Novita bills, and the arithmetic of amounts, in integers. Pure.

A rate is in 1/100000 USD per day, because the price of a disk per day is not a whole number per
hour. An exact amount is a rate times milliseconds; `UNIT` of them are 1/100000 USD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, StrEnum, auto
from typing import Final

from novitai.domain.product import PRICE_UNITS_PER_USD

HOURS_PER_DAY: Final = 24
DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
UNIT: Final = DAY_MS
"""An exact amount divided by this is in 1/100000 USD."""

FREE_DISK_GB: Final = 60
"""Gigabytes of the container disk that are not billed (upstream.md §8)."""
DISK_PRICE: Final = 500
"""The list price of the container disk in 1/100000 USD per GB-day (upstream.md §8)."""


class SpanKind(StrEnum):
    """What a span bills: the GPUs, or the container disk above its free size."""

    GPU = "gpu"
    DISK = "disk"


class Billing(StrEnum):
    """Whether the GPUs are billed in a status of Novita's."""

    BILLED = "billed"
    FREE = "free"
    UNCHANGED = "unchanged"
    """As in the status before."""


class Basis(StrEnum):
    """Where a rule of the table comes from."""

    DOCUMENTED = "documented"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class BillingRule:
    """Whether the GPUs are billed in one status, and how we know."""

    billing: Billing
    basis: Basis


_BILLED: Final = BillingRule(Billing.BILLED, Basis.ASSUMED)
_FREE: Final = BillingRule(Billing.FREE, Basis.ASSUMED)
_UNCHANGED: Final = BillingRule(Billing.UNCHANGED, Basis.ASSUMED)

GPU_RULES: Final[Mapping[str, BillingRule]] = {
    "pending": _FREE,
    "toCreate": _FREE,
    "creating": _FREE,
    "pulling": BillingRule(Billing.BILLED, Basis.DOCUMENTED),
    "toStart": _FREE,
    "starting": _FREE,
    "running": _BILLED,
    "toRestart": _BILLED,
    "restarting": _BILLED,
    "toStop": _BILLED,
    "stopping": _BILLED,
    "exited": BillingRule(Billing.FREE, Basis.DOCUMENTED),
    "migrating": _BILLED,
    "freezing": _BILLED,
    "toReset": _UNCHANGED,
    "resetting": _BILLED,
    "toRemove": _UNCHANGED,
    "removing": _UNCHANGED,
    "removed": _FREE,
}
"""Billing begins with `pulling` and ends with the stop (upstream.md §8, documented). The rules
of the other statuses are assumed. In a status that is not listed, billing is unchanged."""

_WAYS: Final = (("", "pending", "toCreate", "creating"), ("toStart", "starting"))
"""Free statuses that lead to billed ones without another call, in their order; empty: not listed
yet."""
STOPPED: Final = "exited"
IN_REMOVAL: Final = frozenset({"toRemove", "removing"})
REMOVED: Final = "removed"


def gpu_billing(word: str) -> Billing:
    """Return whether the GPUs are billed in a status of Novita's."""
    rule = GPU_RULES.get(word)
    return Billing.UNCHANGED if rule is None else rule.billing


def may_have_run(before: str, after: str) -> bool:
    """Return whether the GPUs may have been billed between two free statuses.

    True if it was about to run, and the second status is not a later one of the same start: an
    instance that is being started again had stopped before.
    """
    way = next((one for one in _WAYS if before in one), None)
    return way is not None and after not in way[way.index(before) :]


def gpu_rate(hourly_price: int | None) -> int | None:
    """Convert the price of all GPUs per hour to a rate; None if it is unknown."""
    return None if hourly_price is None else hourly_price * HOURS_PER_DAY


def disk_rate(rootfs_gb: int, *, stopped: bool, stopped_price: int | None) -> int:
    """Return the rate of a container disk.

    Args:
        rootfs_gb: Its size.
        stopped: Whether the instance is stopped.
        stopped_price: Novita's price per GB-day for stopped instances; None if it sent none.
    """
    price = stopped_price if stopped and stopped_price is not None else DISK_PRICE
    return max(0, rootfs_gb - FREE_DISK_GB) * price


class GpuState(Enum):
    """Whether the GPUs of an instance are billed, as far as it is known."""

    OFF = auto()
    MAYBE = auto()
    ON = auto()


@dataclass(frozen=True, slots=True)
class LedgerSpan:
    """A time in which one rate is billed, with bounds for its two ends, in Unix milliseconds.

    Attributes:
        rate: In 1/100000 USD per day; None if the price is unknown.
        began_after: The last time at which it was known not to be billed.
        began_by: The first time at which it was known to be billed; None if it never was.
        ended_after: The last time at which it was known to be billed; None while it is open.
        ended_by: The first time at which it was known not to be billed; None while it is open.
        expires_after: While it is open, it is billed up to here at the least: then Novita purges
            the disk of the stopped instance. None if no purge is expected.
        expires_by: While it is open, it is billed up to here at the most.
        id: Its number in the database; None until it is stored.
    """

    kind: SpanKind
    rate: int | None
    began_after: int
    began_by: int | None
    ended_after: int | None = None
    ended_by: int | None = None
    expires_after: int | None = None
    expires_by: int | None = None
    key_id: str | None = None
    tags: str | None = None
    id: int | None = None

    def least(self, shown_at: int, since: int | None = None, until: int | None = None) -> int:
        """Return the milliseconds that are certainly billed, within `[since, until)`.

        Args:
            shown_at: When the instance was last seen; an open span is certain up to then.
            since: The begin of the window; by default, there is none.
            until: The end of the window; by default, there is none.
        """
        if self.began_by is None:
            return 0
        end = self.ended_after
        if end is None:
            end = shown_at if self.expires_after is None else min(shown_at, self.expires_after)
        return _overlap(self.began_by, end, since, until)

    def most(self, as_of: int, since: int | None = None, until: int | None = None) -> int:
        """Return the milliseconds that may be billed up to `as_of`, within `[since, until)`."""
        return _overlap(self.began_after, self.last(as_of), since, until)

    def last(self, as_of: int) -> int:
        """Return the time up to which it may be billed; `as_of` if it goes on."""
        if self.ended_by is not None:
            return self.ended_by
        return as_of if self.expires_by is None else min(as_of, self.expires_by)


def folded(spans: Sequence[LedgerSpan], since: int, until: int) -> LedgerSpan | None:
    """Return one span with the amounts of closed ones of a rate, in the middle of `[since, until)`.

    It bears the labels and the number of the first of them. None if their bounds add up to more
    than that time, so that one span cannot hold them.
    """
    least, most = (sum(one.least(0) for one in spans), sum(one.most(0) for one in spans))
    free = until - since - most
    if free < 0:
        return None
    begin = since + free // 2
    # Begin and end share the difference between the two sums.
    sure = begin + (most - least) // 2
    began_by = None if all(one.began_by is None for one in spans) else sure
    return replace(
        spans[0],
        began_after=begin,
        began_by=began_by,
        ended_after=sure + least,
        ended_by=begin + most,
        expires_after=None,
        expires_by=None,
    )


def _overlap(begin: int, end: int, since: int | None, until: int | None) -> int:
    begin = begin if since is None else max(begin, since)
    end = end if until is None else min(end, until)
    return max(0, end - begin)


@dataclass(frozen=True, slots=True)
class Cost:
    """The costs of a record, as of one time.

    Attributes:
        hourly_price: Of the whole instance, in USD; None if unknown.
        least: The exact amount that is certainly billed.
        most: The exact amount that may be billed.
        as_of: Unix milliseconds: when the instance was last seen, or when the record was made if it
            has bought none.
        unknown: Whether the price of a span is unknown; then amounts are not shown.
        since: From when costs count, in Unix milliseconds; None: from the purchase.
    """

    hourly_price: float | None
    least: int
    most: int
    as_of: int
    unknown: bool = False
    since: int | None = None


def usd_down(exact: int) -> float:
    """Convert an exact amount to USD, rounded down to 1/100000."""
    return exact // UNIT / PRICE_UNITS_PER_USD


def usd_up(exact: int) -> float:
    """Convert an exact amount to USD, rounded up to 1/100000."""
    return -(-exact // UNIT) / PRICE_UNITS_PER_USD


def half_even(exact: int, unit: int = UNIT) -> int:
    """Divide by `unit` and round to the nearest whole number; a half goes to the even one."""
    whole, rest = divmod(exact, unit)
    twice = 2 * rest
    return whole + (twice > unit or (twice == unit and whole % 2 == 1))


def shares(exacts: Sequence[int], unit: int = UNIT) -> tuple[int, list[int]]:
    """Round a total half-even, and its parts so that they add up to it exactly.

    Each part is rounded down; what is then missing goes to the largest fractions, one unit each,
    and to the earlier part if two are equal.

    Returns:
        The total and the parts, in units.
    """
    total = half_even(sum(exacts), unit)
    parts = [exact // unit for exact in exacts]
    order = sorted(range(len(exacts)), key=lambda at: (-(exacts[at] % unit), at))
    for at in order[: total - sum(parts)]:
        parts[at] += 1
    return total, parts
