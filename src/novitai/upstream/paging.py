# SPDX-License-Identifier: Apache-2.0
"""Reads all pages of a list, whether upstream numbers them from 0 or from 1.

The number of upstream's first page, its maximum page size and its order are not documented
(upstream.md §5.2). So rows are identified by ID, and the list is complete if the distinct IDs
add up to the total of every page. Reading always ends, even if upstream's responses are wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from novitai.upstream.errors import Refused

Row = TypeVar("Row")

# Tried in this order, a smaller one after a refusal: the maximum is not documented.
PAGE_SIZES: Final = (1000, 200, 100, 50, 10)
MAX_PAGES: Final = 2_000
MAX_ROWS: Final = 200_000


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """One page.

    Attributes:
        rows: The readable rows, by ID.
        count: The number of rows, including unreadable and duplicate ones.
        unreadable: The number of unreadable rows.
        total: The total number of rows by upstream's count; None if it sent none.
        asked_at: When the page was requested, in Unix milliseconds.
    """

    rows: dict[str, Row]
    count: int
    unreadable: int
    total: int | None
    asked_at: int


@dataclass(slots=True)
class Collected(Generic[Row]):
    """The rows of all pages. `first_page` is the number of upstream's first page, as observed."""

    first_page: int
    rows: dict[str, Row] = field(default_factory=dict)
    totals: set[int | None] = field(default_factory=set)
    unreadable: int = 0
    pages: int = 0
    began_at: int = 0
    last_total: int | None = None
    ended_empty: bool = False

    @property
    def whole(self) -> bool:
        """Whether every page was read and every row has an ID."""
        return self.complete or (self.ended_empty and self.unreadable == 0)

    @property
    def complete(self) -> bool:
        """Whether every page had the same total and the distinct IDs add up to it."""
        return self.unreadable == 0 and self.totals == {len(self.rows)}

    @property
    def total(self) -> int:
        """The last total that upstream sent; the number of rows if it sent none."""
        return len(self.rows) if self.last_total is None else self.last_total

    @property
    def adds_up(self) -> bool:
        """Whether the number of rows equals the last total."""
        return len(self.rows) + self.unreadable == self.last_total

    @property
    def is_short(self) -> bool:
        """Whether there are fewer rows than the last total."""
        return self.last_total is not None and len(self.rows) + self.unreadable < self.last_total

    def add(self, page: Page[Row]) -> int:
        """Add a page, keeping the first row of each ID; return the number of new IDs."""
        before = len(self.rows)
        for key, row in page.rows.items():
            self.rows.setdefault(key, row)
        if not self.pages:
            self.began_at = page.asked_at
        self.pages += 1
        self.unreadable += page.unreadable
        self.totals.add(page.total)
        self.last_total = page.total
        return len(self.rows) - before


async def collect(
    fetch: Callable[[int], Awaitable[Page[Row]]], *, first_page: int = 1
) -> Collected[Row]:
    """Read all pages.

    Args:
        fetch: Fetches the page with a given number.
        first_page: 1, or 0 if earlier pages of upstream began at 0.

    Raises:
        UpstreamError: raised by `fetch`.
    """
    found: Collected[Row] = Collected(first_page)
    number = first_page
    while found.pages < MAX_PAGES and len(found.rows) < MAX_ROWS:
        page = await fetch(number)
        new = found.add(page)
        if page.count == 0:
            found.ended_empty = True
            break
        # If the total is wrong, reading continues until a page is empty or brings nothing new.
        if found.adds_up:
            break
        # If 0 and 1 both mean the first page, page 1 after page 0 brings nothing new.
        if new == 0 and not (first_page == 0 and number == 1):
            break
        number += 1
    if first_page == 1 and found.is_short:
        await _fetch_page_zero(fetch, found)
    elif first_page == 0 and not found.complete:
        found.first_page = 1
    return found


async def _fetch_page_zero(
    fetch: Callable[[int], Awaitable[Page[Row]]], found: Collected[Row]
) -> None:
    try:
        page = await fetch(0)
    except Refused:
        return  # page 0 does not exist: upstream begins at 1, and rows are missing
    new = found.add(page)
    if new and new == len(page.rows) and found.complete:
        found.first_page = 0
