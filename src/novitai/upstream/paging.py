# SPDX-License-Identifier: Apache-2.0
"""Going through the pages of a list, right whatever upstream's first page is called.

Upstream's first page is 0 or 1, its largest page is not known, and neither is the order
(upstream.md §5.2). So: take what comes, tell rows apart by id, and see whether the distinct
ids add up to the total that every page gave. It ends whatever upstream answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from novitai.upstream.errors import Refused

Row = TypeVar("Row")

# Asked for at first, and after a refusal: what upstream allows is not known.
PAGE_SIZES: Final = (1000, 200, 100, 50, 10)
MAX_PAGES: Final = 2_000
MAX_ROWS: Final = 200_000


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """One page as it was read.

    Attributes:
        rows: Those that could be read, by id.
        count: How many there were, unreadable ones and doubles included.
        unreadable: How many could not be read.
        total: What upstream says there is in all; None if it says nothing.
        asked_at: When the request for it left, in Unix milliseconds.
    """

    rows: dict[str, Row]
    count: int
    unreadable: int
    total: int | None
    asked_at: int


@dataclass(slots=True)
class Collected(Generic[Row]):
    """What the pages gave together. `first_page`: what upstream seems to call its first page."""

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
        """Whether every page was read and every row could be told apart."""
        return self.complete or (self.ended_empty and self.unreadable == 0)

    @property
    def complete(self) -> bool:
        """Whether every page gave the same total and the distinct ids add up to it."""
        return self.unreadable == 0 and self.totals == {len(self.rows)}

    @property
    def total(self) -> int:
        """What upstream said last; the number of rows where it said nothing."""
        return len(self.rows) if self.last_total is None else self.last_total

    @property
    def adds_up(self) -> bool:
        """Whether as many rows came as upstream says there are."""
        return len(self.rows) + self.unreadable == self.last_total

    @property
    def is_short(self) -> bool:
        """Whether fewer rows came than upstream says there are."""
        return self.last_total is not None and len(self.rows) + self.unreadable < self.last_total

    def add(self, page: Page[Row]) -> int:
        """Take in a page, the first sight of each id; return how many ids were new."""
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
    """Go through all pages.

    Args:
        fetch: Fetches the page of a number.
        first_page: 1, or 0 if upstream was seen to begin there.

    Raises:
        UpstreamError: whatever `fetch` raises.
    """
    found: Collected[Row] = Collected(first_page)
    number = first_page
    while found.pages < MAX_PAGES and len(found.rows) < MAX_ROWS:
        page = await fetch(number)
        new = found.add(page)
        if page.count == 0:
            found.ended_empty = True
            break
        # A total that is wrong, either way, ends nothing: the pages go on until one is empty.
        if found.adds_up:
            break
        # Where 0 and 1 both name the first page, page 1 after page 0 brings nothing new.
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
        return  # no page has this number: upstream begins at 1, and the rows are missing
    new = found.add(page)
    if new and new == len(page.rows) and found.complete:
        found.first_page = 0
