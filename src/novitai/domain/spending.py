# SPDX-License-Identifier: Apache-2.0
"""When a record's costs reach an amount, at the rates that are billed now. Pure, in integers.

It counts the upper bound of what Novita bills, and not from the time of the question: the answer
changes only with the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from novitai.clock import END_OF_TIME
from novitai.domain.billing import UNIT
from novitai.domain.billing_book import Book


@dataclass(frozen=True, slots=True)
class Spending:
    """The most that a record may have spent, as a line over time.

    Attributes:
        offset: The exact amount at Unix millisecond 0 on this line; usually far below 0.
        rate: The sum of the open rates: exact amount per millisecond.
        unknown: Whether the price of a span is unknown, so that the record spends more than this.
        ends: When a part of the rate ends, because a disk is purged, and that part; in order.
    """

    offset: int
    rate: int
    unknown: bool = False
    ends: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, books: Sequence[Book]) -> Spending:
        """Sum the books of a record."""
        offset = rate = 0
        unknown = False
        ends: list[tuple[int, int]] = []
        for book in books:
            offset += book.state.most
            unknown = unknown or book.state.unknown
            for span in book.spans:
                unknown = unknown or span.rate is None
                rate += span.rate or 0
                offset -= (span.rate or 0) * span.began_after
                if span.expires_by is not None and span.rate:
                    ends.append((max(span.began_after, span.expires_by), span.rate))
        return cls(offset, rate, unknown, tuple(sorted(ends)))

    def at(self, now: int) -> int:
        """Return the exact amount at a time in Unix milliseconds."""
        over = sum(rate * (now - at) for at, rate in self.ends if at < now)
        return self.offset + self.rate * now - over

    def reaches(self, units: int) -> int | None:
        """Return when an amount in 1/100000 USD is reached; None if the rates do not lead there."""
        left, rate = units * UNIT - self.offset, self.rate
        for end, ending in self.ends:
            if left <= rate * end:
                break
            left, rate = left - ending * end, rate - ending
        if rate == 0:
            return 0 if left <= 0 else None
        at = left // rate
        return at if at < END_OF_TIME else None
