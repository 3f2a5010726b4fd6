# SPDX-License-Identifier: Apache-2.0
"""The bill lies between the bounds of the ledger, even if upstream changes between two looks."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from novitai.domain.billing import (
    DAY_MS,
    DISK_PRICE,
    FREE_DISK_GB,
    HOUR_MS,
    IN_REMOVAL,
    REMOVED,
    STOPPED,
    UNIT,
    Billing,
    SpanKind,
    gpu_billing,
    gpu_rate,
)
from novitai.domain.billing_book import Book, Labels, cost_of
from novitai.domain.billing_edges import BillingSight, Bounds, Look
from novitai.domain.spending import Spending

EXAMPLES = int(os.environ.get("TEST_LEDGER_EXAMPLES", "200"))
PRICE = 70_000
GB = 80
STOPPED_PRICE = 250
EPOCH = 1_760_000_000_000
BUY = ("pending", "toCreate", "creating", "pulling", "running")
WAYS = {
    "running": (
        ("toStop", "stopping", "exited"),
        ("stopping", "exited"),
        ("toRestart", "restarting", "running"),
        ("migrating", "running"),
        ("toReset", "resetting", "pulling", "running"),
        ("freezing", "exited"),
        ("toRemove", "removing", "removed"),
    ),
    "exited": (
        ("toStart", "starting", "running"),
        ("migrating", "exited"),
        ("toRemove", "removing", "removed"),
    ),
}


@dataclass
class Life:
    """What upstream does with an instance: its statuses, each with the time of its begin.

    `repriced` is when the price changes, and the new one. The disk of a stopped instance is purged
    after `keep` days; upstream tells the time of it, or these days, or both.
    """

    steps: list[tuple[int, str]]
    tells: bool
    offset: int = 0
    repriced: tuple[int, int] = (1 << 62, PRICE)
    keep: int = 7
    tells_purge: bool = False
    tells_days: bool = True

    def price(self, at: int) -> int:
        """Return the price at a time."""
        return self.repriced[1] if at >= self.repriced[0] else PRICE

    def word(self, at: int) -> str:
        """Return the status at a time."""
        return next(word for since, word in reversed(self.steps) if since <= at)

    def spans(self, until: int) -> list[tuple[int, int, str, bool]]:
        """Return begin, end, status and whether the GPUs are billed, up to a time."""
        runs, found = False, []
        for (since, word), (then, _) in pairwise([*self.steps, (1 << 62, "")]):
            billing = gpu_billing(word)
            runs = billing is Billing.BILLED or (billing is Billing.UNCHANGED and runs)
            if since < until:
                found.append((since, min(then, until), word, runs))
        return found

    def truth(self, until: int) -> int:
        """Return the exact bill up to a time."""
        total, lost = 0, False
        for since, then, word, runs in self.spans(until):
            lost = lost and not runs
            cut = min(max(since, self.repriced[0]), then)
            for price, length in ((PRICE, cut - since), (self.repriced[1], then - cut)):
                total += (gpu_rate(price) or 0) * length * runs
            price = STOPPED_PRICE if word == STOPPED else DISK_PRICE
            purge = since + self.keep * DAY_MS if word == STOPPED else 1 << 62
            kept = max(0, min(then, purge) - since)
            total += (GB - FREE_DISK_GB) * price * kept * (word != REMOVED and not lost)
            lost = lost or then >= purge
        return total

    def changes(self) -> list[int]:
        """Return the times at which something changes: a status, the price, or a disk."""
        begins = [at for at, _ in self.steps]
        purges = [at + self.keep * DAY_MS for at, word in self.steps if word == STOPPED]
        return [*begins, *purges, self.repriced[0]]

    def sight(self, at: int) -> BillingSight:
        """Return what a listing shows at a time."""
        began, stopped, ran = 0, 0, False
        for since, _, word, runs in self.spans(at + 1):
            if runs and not ran:
                began = since
            if word == STOPPED:
                stopped = since
            ran = runs
        return BillingSight(
            self.word(at),
            self.price(at),
            GB,
            STOPPED_PRICE,
            self.seconds(began) if self.tells else None,
            self.seconds(stopped) if self.tells else None,
            self.seconds(self.steps[0][0]) if self.tells else None,
            self._purge(at) if self.tells_purge else None,
            self.keep if self.tells_days else None,
        )

    def _purge(self, at: int) -> int | None:
        since, word = next(one for one in reversed(self.steps) if one[0] <= at)
        return self.seconds(since + self.keep * DAY_MS) if word == STOPPED else None

    def seconds(self, at: int) -> int:
        """Return a time as upstream tells it: whole seconds of its own clock; 0 if never."""
        return (at + self.offset) // 1000 * 1000 if at else 0


def lead(chosen: random.Random, *, tells: bool, rest: int) -> Life:
    """Lead a random life; `rest` is the shortest time at rest between two changes."""
    at = EPOCH + chosen.randrange(5_000)
    offset = chosen.choice([0, 40_000_000_400]) if tells else 0
    life = Life([(at, BUY[0])], tells, offset, keep=chosen.randrange(1, 4))
    life.tells_purge, life.tells_days = chosen.choice([(True, True), (True, False), (False, True)])

    def go(way: tuple[str, ...]) -> None:
        nonlocal at
        for word in way:
            life.steps.append((at, word))
            at += chosen.randrange(1, 20_000)

    at += chosen.randrange(1, 9_000)
    go((*BUY[1:4], "exited") if chosen.random() < 0.15 else BUY[1:])
    for _ in range(chosen.randrange(6)):
        at += rest + chosen.randrange(200_000)
        last = life.steps[-1][1]
        if last == REMOVED:
            break
        if last == STOPPED and chosen.random() < 0.6:
            # It stays until around the purge of its disk, or for much longer.
            at += life.keep * DAY_MS + chosen.choice([-rest, 0, DAY_MS])
        # Without upstream's times, a short migration of a stopped instance cannot be seen.
        go(chosen.choice([way for way in WAYS[last] if tells or way != ("migrating", "exited")]))
    return life


def another_price(chosen: random.Random, life: Life, *, around: int) -> tuple[int, int]:
    """Choose when the price changes, and to what.

    A run never begins around that time: what it costs until the first look is then not known.
    """
    at = chosen.randrange(life.steps[0][0], life.steps[-1][0] + 200_000)
    begins = [since for since in edges(life, 1 << 62) if abs(since - at) < around]
    starts = {since for since, _, _, runs in life.spans(1 << 62) if runs}
    if any(since in starts for since in begins):
        return 1 << 62, PRICE
    return at, chosen.choice([PRICE // 2, PRICE * 3])


def edges(life: Life, until: int) -> list[int]:
    """Return the times at which GPU billing begins and ends."""
    spans = [(0, 0, "", False), *life.spans(until)]
    return [two[0] for one, two in pairwise(spans) if one[3] is not two[3]]


def removal(life: Life, until: int) -> int:
    """Return for how many milliseconds the instance was being removed."""
    return sum(end - begin for begin, end, word, _ in life.spans(until) if word in IN_REMOVAL)


def width(book: Book, kind: SpanKind, as_of: int) -> int:
    """Return by how many milliseconds the bounds of a kind differ."""
    spans = [span for span in (*book.closed, *book.spans) if span.kind is kind]
    return sum(span.most(as_of) - span.least(as_of) for span in spans)


@given(seed=st.integers(0, 1 << 48), tells=st.booleans(), interval=st.sampled_from([5, 60]))
@example(seed=106508815, tells=False, interval=5)  # another price while it is removed
@example(seed=79622, tells=True, interval=60)  # a start and a stop in the same second
@settings(max_examples=EXAMPLES, deadline=None)
def test_the_bill_lies_between_the_bounds(seed: int, tells: bool, interval: int) -> None:
    """At each look the bill is within the bounds, and their distance is small."""
    chosen = random.Random(seed)
    # Upstream tells its last start and its last stop; without them, no look may miss a change.
    life = lead(chosen, tells=tells, rest=(600 if tells else 9_000) * interval)
    born = life.steps[0][0]
    began = born - chosen.randrange(1, 3_000)
    at = born + chosen.randrange(1, 3_000)
    book = Book.bought("inst", "up", GB, Bounds(began, at), Labels())
    life.repriced = another_price(chosen, life, around=8_000 * interval)
    listed_at: int | None = None
    end = life.steps[-1][0] + 200_000
    longest = 0
    shown, price, purged_at = set[int | None](), None, None
    while at < end and not book.state.ended:
        quiet = min((one for one in life.changes() if one > at), default=end) - 20_000 * interval
        if quiet > at:
            # Listings that show nothing new change nothing but the time of the last one.
            at = listed_at = quiet
        pause = interval * 1000 * (7 if not tells and chosen.random() < 0.1 else 1)
        at, longest = at + pause, max(longest, pause + 4_000)
        read_at = at + chosen.randrange(2_000)
        sight = life.sight(chosen.randint(at, read_at))
        shown |= {sight.started_at, sight.stopped_at}
        offset = life.offset + chosen.randint(-500, 500) if life.offset else 0
        state = book.state
        now = (sight.word, sight.started_at, sight.stopped_at, sight.hourly_price, sight.purged_at)
        if now != (state.word, state.started_at, state.stopped_at, price, purged_at):
            book = book.seen(sight, Look(at, read_at, offset), listed_at)
        listed_at, price, purged_at = at, sight.hourly_price, sight.purged_at
        cost = cost_of([book], None, listed_at=listed_at, event_at=0)
        assert at <= cost.as_of <= read_at
        assert cost.least <= life.truth(cost.as_of) <= cost.most
        # Each edge is known to a pause between two looks, or to the second that upstream tells;
        # of several between two looks, it tells the last start and the last stop.
        told = (2_000 if life.offset else 1_000) if tells else longest
        error = sum(
            told if life.seconds(edge) in shown else longest for edge in edges(life, read_at + 1)
        )
        # A pause between two looks may hold a run that failed; upstream tells no time of an end.
        more = longest * (book.state.ended if tells else 2)
        if not tells:
            # A removal does not show whether the instance ran until then.
            more += removal(life, read_at + 1)
        # Another price ends a span and begins one, both between two looks.
        more += 2 * longest * (life.repriced[0] <= read_at)
        assert width(book, SpanKind.GPU, at) <= error + more


BORN = EPOCH // 1000 * 1000
MINUTE = 60_000


def look(at: int) -> Look:
    """Return a short look, so many milliseconds after the purchase."""
    return Look(BORN + at, BORN + at + 100)


def sight(word: str, **more: Any) -> BillingSight:
    """Return what a look shows; a stopped disk costs as much as another one."""
    return BillingSight(word, PRICE, GB, **more)


def stopped(**more: Any) -> Book:
    """Return the book of an instance that was stopped after an hour and is shown on and on."""
    book = Book.bought("inst", "up", GB, Bounds(BORN, BORN + 1_000), Labels())
    book = book.seen(sight("running"), look(MINUTE), None)
    return book.seen(sight(STOPPED, **more), look(HOUR_MS + MINUTE), BORN + HOUR_MS)


def disk_days(book: Book, at: int) -> tuple[float, float]:
    """Return for how many days the disk is billed up to a time, at least and at most."""
    spans = [one for one in (*book.closed, *book.spans) if one.kind is SpanKind.DISK]
    return (
        round(sum(one.least(BORN + at) for one in spans) / DAY_MS, 1),
        round(sum(one.most(BORN + at) for one in spans) / DAY_MS, 1),
    )


def test_without_a_time_of_the_purge_the_disk_is_billed_on() -> None:
    """Nothing is known, so nothing is assumed."""
    assert disk_days(stopped(), 9 * DAY_MS) == (9, 9)


def test_the_purge_follows_from_the_stop() -> None:
    """Between two looks, if Novita tells neither time."""
    book = stopped(keep_days=7)
    assert book.disk is not None
    after, by = BORN + HOUR_MS, BORN + HOUR_MS + MINUTE + 100
    assert (book.disk.expires_after, book.disk.expires_by) == (after + 7 * DAY_MS, by + 7 * DAY_MS)
    # Novita's time of the stop is as good, if only a later look tells it.
    at = look(DAY_MS)
    book = stopped().seen(sight(STOPPED, stopped_at=after, keep_days=7), at, BORN + HOUR_MS)
    assert book.disk is not None
    assert book.disk.expires_by == after + 7 * DAY_MS + 1_000


def test_a_time_of_a_purge_from_before_the_stop_is_ignored() -> None:
    """It is that of an earlier stop."""
    assert disk_days(stopped(purged_at=BORN - DAY_MS), 9 * DAY_MS) == (9, 9)
    told = stopped(purged_at=BORN + HOUR_MS, stopped_at=BORN + HOUR_MS + 1_000, keep_days=3)
    assert disk_days(told, 9 * DAY_MS) == (3, 3)


def test_the_purge_may_be_moved() -> None:
    """Before it was due, in full; after it, the disk may have been purged or not."""
    told = stopped(purged_at=BORN + 3 * DAY_MS)
    assert not told.purge_moved(sight(STOPPED, purged_at=BORN + 3 * DAY_MS), look(DAY_MS))
    later = sight(STOPPED, purged_at=BORN + 6 * DAY_MS)
    assert told.purge_moved(later, look(DAY_MS))
    moved = told.seen(later, look(2 * DAY_MS), BORN + DAY_MS)
    assert disk_days(moved, 9 * DAY_MS) == (6, 6)
    moved = told.seen(later, look(4 * DAY_MS), BORN + DAY_MS)
    assert disk_days(moved, 9 * DAY_MS) == (3, 6)


def test_a_start_after_the_purge_makes_another_disk() -> None:
    """At the same rate too; it is certain from when the GPUs are billed."""
    book = stopped(purged_at=BORN + 3 * DAY_MS)
    book = book.seen(sight("toStart"), look(5 * DAY_MS), BORN + 5 * DAY_MS - MINUTE)
    assert disk_days(book, 6 * DAY_MS) == (3, 4)
    book = book.seen(sight("running"), look(6 * DAY_MS), BORN + 6 * DAY_MS - MINUTE)
    assert disk_days(book, 8 * DAY_MS) == (5, 6)
    assert len([one for one in (*book.closed, *book.spans) if one.kind is SpanKind.DISK]) == 2


def test_a_purge_between_two_looks_that_missed_the_stop() -> None:
    """Stop, purge and start lie between them; Novita's times tell it."""
    book = Book.bought("inst", "up", GB, Bounds(BORN, BORN + 1_000), Labels())
    book = book.seen(sight("running", started_at=BORN, stopped_at=0), look(MINUTE), None)
    times = {"started_at": BORN + 6 * DAY_MS, "stopped_at": BORN + DAY_MS}
    book = book.seen(sight("running", **times, keep_days=2), look(8 * DAY_MS), None)
    # It may have left `exited` before the purge.
    assert disk_days(book, 8 * DAY_MS) == (3, 8)


def test_a_purged_disk_does_not_come_back_while_the_instance_is_removed() -> None:
    """Neither by the full price of a disk nor by other tags."""
    book = stopped(purged_at=BORN + 3 * DAY_MS, stopped_price=STOPPED_PRICE)
    book = book.labelled(Labels("key"), BORN + 4 * DAY_MS, BORN + 4 * DAY_MS - 1)
    for word, day in (("toRemove", 5), ("removing", 6), (REMOVED, 7)):
        listed_at = BORN + day * DAY_MS - MINUTE
        book = book.seen(sight(word), look(day * DAY_MS), listed_at)
    assert disk_days(book, 9 * DAY_MS) == (3, 3)
    gone = stopped(purged_at=BORN + 3 * DAY_MS).ended(BORN + 5 * DAY_MS, BORN + 4 * DAY_MS, GB)
    assert disk_days(gone, 9 * DAY_MS) == (3, 3)
    # It may have been in removal before it would have been purged.
    gone = stopped(purged_at=BORN + 3 * DAY_MS).ended(BORN + 5 * DAY_MS, BORN + 2 * DAY_MS, GB)
    assert disk_days(gone, 9 * DAY_MS) == (2, 6)


@pytest.mark.parametrize(("stopped_at", "certain"), [(None, 1), (0, 3)])
def test_a_removal_is_no_proof_that_it_ran(stopped_at: int | None, certain: int) -> None:
    """It may have been stopped before, unless Novita tells that it was not."""
    book = Book.bought("inst", "up", GB, Bounds(BORN, BORN), Labels())
    book = book.seen(sight("running", stopped_at=stopped_at), look(0), None)
    book = book.seen(sight("running", stopped_at=stopped_at), look(HOUR_MS), None)
    book = book.seen(sight("removing", stopped_at=stopped_at), look(3 * HOUR_MS), None)
    spans = [span for span in (*book.closed, *book.spans) if span.kind is SpanKind.GPU]
    now = BORN + 3 * HOUR_MS
    assert round(sum(span.least(now) for span in spans) / HOUR_MS) == certain
    assert round(sum(span.most(now) for span in spans) / HOUR_MS) == 3


def test_a_purge_ends_a_part_of_the_spending() -> None:
    """An amount above what the disk costs until then is never reached."""
    spending = Spending.of([stopped(purged_at=BORN + 3 * DAY_MS)])
    # Above the hour of the GPUs, a day of the disk costs 0.10 USD.
    run = spending.at(BORN + 2 * DAY_MS) // UNIT - 20_000
    assert spending.at(BORN + 9 * DAY_MS) // UNIT - run in {30_000, 30_001}
    at = spending.reaches(run + 25_000)
    assert at is not None
    assert abs(at - BORN - 5 * DAY_MS // 2) < MINUTE
    assert spending.reaches(run + 31_000) is None


@pytest.mark.parametrize(
    ("before", "after", "may"),
    [
        # A later status of the same way: it did not run between.
        *(("pending", word, False) for word in ("toCreate", "creating")),
        ("creating", "creating", False),
        ("toStart", "starting", False),
        ("exited", "toStart", False),
        # It was bought or started, ran, stopped or failed, and is started again.
        *(("creating", word, True) for word in ("toStart", "starting", "exited")),
        *(("", word, True) for word in ("toStart", "starting", "exited")),
        *(("starting", word, True) for word in ("toStart", "exited")),
    ],
)
def test_a_run_that_no_look_showed_may_be_billed(before: str, after: str, may: bool) -> None:
    """No listing was read for an hour: at least nothing is billed, and at most the hour."""
    book = Book.bought("inst", "up", GB, Bounds(BORN, BORN), Labels())
    if before:
        book = book.seen(sight(before), look(0), None)
    book = book.seen(sight(after), look(HOUR_MS), None)
    spans = [span for span in (*book.closed, *book.spans) if span.kind is SpanKind.GPU]
    now = BORN + HOUR_MS
    assert sum(span.least(now) for span in spans) == 0
    assert round(sum(span.most(now) for span in spans) / HOUR_MS) == may
    # Novita's own time of the last start says that it did not.
    told = Book.bought("inst", "up", GB, Bounds(BORN, BORN), Labels())
    told = told.seen(sight(before or "pending", started_at=0), look(0), None)
    told = told.seen(sight(after, started_at=0), look(HOUR_MS), None)
    assert all(span.kind is SpanKind.DISK for span in (*told.closed, *told.spans))
