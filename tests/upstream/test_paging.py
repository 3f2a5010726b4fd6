# SPDX-License-Identifier: Apache-2.0
"""Reading all pages: correct for both page numberings, and it always ends."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.upstream.errors import Refused
from novitai.upstream.paging import MAX_PAGES, MAX_ROWS, Collected, Page, collect


@dataclass(slots=True)
class Upstream:
    """A paged list. `base` is its first page; with `alias`, 0 and 1 are the same page."""

    rows: int
    cap: int = 1000
    base: int = 1
    alias: bool = False
    total: int | None = -1
    refuses_zero: bool = False
    asked: list[int] = field(default_factory=list)

    async def __call__(self, number: int) -> Page[str]:
        self.asked.append(number)
        if number == 0 and self.refuses_zero:
            raise Refused("pageNum must be at least 1", http_status=400)
        index = max(number - 1, 0) if self.alias else number - self.base
        first = index * self.cap
        last = min(first + self.cap, self.rows)
        shown = [str(row) for row in range(first, last)] if index >= 0 else []
        total = self.rows if self.total == -1 else self.total
        return Page(dict.fromkeys(shown, "row"), len(shown), 0, total, asked_at=len(self.asked))


async def gather(upstream: Upstream, first_page: int = 1) -> Collected[str]:
    """Read all its pages."""
    return await collect(upstream, first_page=first_page)


@pytest.mark.parametrize("rows", [0, 1, 99, 100, 101, 250, 300])
@pytest.mark.parametrize("cap", [100, 1000])
@pytest.mark.parametrize(("base", "alias"), [(1, False), (0, False), (1, True)])
async def test_every_row_is_found_whatever_the_first_page_is_called(
    rows: int,
    cap: int,
    base: int,
    alias: bool,
) -> None:
    """Every row is found, also by a second listing that begins at the observed first page."""
    upstream = Upstream(rows, cap=cap, base=base, alias=alias)
    first = await gather(upstream)
    second = await gather(upstream, first.first_page)

    for found in (first, second):
        assert found.complete
        assert len(found.rows) == found.total == rows


async def test_an_upstream_that_begins_at_one_is_asked_for_nothing_in_vain() -> None:
    """If upstream begins at page 1, there are no extra calls."""
    upstream = Upstream(250, cap=100)
    await gather(upstream)
    assert upstream.asked == [1, 2, 3]


async def test_an_upstream_that_begins_at_zero_is_found_out_once() -> None:
    """If upstream begins at page 0, only the first listing makes an extra call."""
    upstream = Upstream(250, cap=1000, base=0)
    found = await gather(upstream)
    assert (upstream.asked, found.first_page) == ([1, 0], 0)

    upstream.asked.clear()
    await gather(upstream, found.first_page)
    assert upstream.asked == [0]


async def test_page_one_may_repeat_page_zero() -> None:
    """If 0 and 1 are the same page, a listing from 0 continues with page 2."""
    found = await gather(Upstream(250, cap=100, alias=True), first_page=0)
    assert found.complete


async def test_having_learnt_wrongly_is_unlearnt() -> None:
    """If a listing from 0 does not add up, the next one begins at 1."""
    found = await gather(Upstream(5, total=7), first_page=0)
    assert not found.complete
    assert found.first_page == 1


async def test_a_total_that_is_too_high_ends_and_is_incomplete() -> None:
    """If the total is too high, the listing ends and is incomplete."""
    upstream = Upstream(5, total=7)
    found = await gather(upstream)
    assert not found.complete
    assert upstream.asked == [1, 2, 0]


async def test_an_upstream_that_refuses_page_zero_is_only_incomplete() -> None:
    """If upstream refuses page 0, the other rows are kept."""
    found = await gather(Upstream(5, total=7, refuses_zero=True))
    assert len(found.rows) == 5
    assert not found.complete


async def test_a_total_that_is_too_low_is_incomplete() -> None:
    """If there are more rows than the total, the listing is incomplete."""
    assert not (await gather(Upstream(5, total=3))).complete


async def test_a_listing_without_a_total_ends_and_is_never_complete() -> None:
    """Without a total, a listing ends and is never complete."""
    found = await gather(Upstream(250, cap=100, total=None))
    assert len(found.rows) == found.total == 250
    assert not found.complete


async def test_a_total_that_changes_between_pages_is_incomplete() -> None:
    """If the total changes between pages, the listing is incomplete."""

    async def fetch(number: int) -> Page[str]:
        rows = {str(number * 10 + i): "row" for i in range(2)}
        return Page(rows, 2, 0, 4 if number == 2 else 3, 0)

    found = await collect(fetch)
    assert len(found.rows) == 4
    assert not found.complete


async def test_an_unreadable_row_is_skipped_and_makes_it_incomplete() -> None:
    """An unreadable row counts towards the total, so it causes no extra call."""
    asked: list[int] = []

    async def fetch(number: int) -> Page[str]:
        asked.append(number)
        return Page({"a": "row"}, 2, 1, 2, 0)

    found = await collect(fetch)
    assert asked == [1]
    assert not found.complete


async def test_the_time_is_that_of_the_first_page() -> None:
    """`began_at` is when the first page was requested."""
    assert (await gather(Upstream(250, cap=100))).began_at == 1


async def test_new_rows_for_ever_end_at_a_bound() -> None:
    """Endless new rows end at the limit of rows."""

    async def fetch(number: int) -> Page[str]:
        return Page({f"{number}-{i}": "" for i in range(1000)}, 1000, 0, 10**15, 0)

    found = await collect(fetch)
    assert len(found.rows) <= MAX_ROWS + 2000
    assert not found.complete


async def test_one_new_row_a_page_ends_at_a_bound() -> None:
    """One new row per page ends at the limit of pages."""

    async def fetch(number: int) -> Page[str]:
        return Page({str(number): ""}, 1, 0, None, 0)

    assert (await collect(fetch)).pages == MAX_PAGES


@given(st.data())
async def test_it_ends_whatever_upstream_answers(data: st.DataObject) -> None:
    """Reading ends with any pages, and is complete only if the IDs add up to a constant total."""
    script = data.draw(
        st.lists(
            st.tuples(
                st.lists(st.sampled_from("abcdefgh"), max_size=5),
                st.none() | st.integers(-1, 9),
            ),
            min_size=1,
            max_size=6,
        )
    )
    asked = 0

    async def fetch(_: int) -> Page[str]:
        nonlocal asked
        ids, total = script[asked % len(script)]
        asked += 1
        return Page(dict.fromkeys(ids, ""), len(ids), 0, total, 0)

    found = await collect(fetch, first_page=data.draw(st.sampled_from([0, 1])))
    assert asked < 30
    if found.complete:
        assert len(found.rows) == found.total
        assert len(found.totals) == 1
