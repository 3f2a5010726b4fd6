# SPDX-License-Identifier: Apache-2.0
"""The rate limiter: never too many calls a minute, writes first, and no permit is lost."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.ids import Ids
from novitai.testing import ManualClock
from novitai.upstream.limiter import MAX_PAUSE, Priority, UpstreamLimiter

READ, WRITE, END = Priority.READING, Priority.WRITING, Priority.ENDING


class Crowd:
    """Waiting callers, and the order and times in which they got permits."""

    def __init__(self, limiter: UpstreamLimiter, clock: ManualClock) -> None:
        self.limiter = limiter
        self.clock = clock
        self.through: list[tuple[float, str]] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, priority: Priority, name: str = "", *, count: int = 1) -> None:
        for _ in range(count):
            self.tasks.append(asyncio.create_task(self._pass(priority, name or priority.name)))
        for _ in range(3):
            await asyncio.sleep(0)

    async def _pass(self, priority: Priority, name: str) -> None:
        await self.limiter.acquire(priority)
        self.through.append((self.clock.monotonic(), name))

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.through]

    async def leave(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
def limiter(clock: ManualClock, ids: Ids) -> UpstreamLimiter:
    """A limiter of ten calls a minute: two at once, then one every 60/9 seconds."""
    return UpstreamLimiter(10, clock=clock, ids=ids)


@pytest.fixture
def crowd(limiter: UpstreamLimiter, clock: ManualClock) -> Crowd:
    """Callers of the limiter."""
    return Crowd(limiter, clock)


async def test_a_burst_goes_at_once_and_the_rest_in_step(crowd: Crowd) -> None:
    """A fifth of the calls of a minute go at once, the rest at a steady rate."""
    await crowd.come(READ, count=5)
    assert len(crowd.through) == 2

    await crowd.clock.advance(60 / 9 * 2 + 0.01)
    assert len(crowd.through) == 4
    await crowd.leave()


@given(
    rate=st.integers(1, 40),
    pauses=st.lists(st.floats(0, 90, allow_nan=False), min_size=1, max_size=30),
)
def test_no_minute_holds_more_calls_than_allowed(rate: int, pauses: list[float]) -> None:
    """No period of 60 s has more calls than allowed, however callers arrive."""

    async def scenario() -> None:
        clock = ManualClock()
        crowd = Crowd(UpstreamLimiter(rate, clock=clock, ids=Ids()), clock)
        for pause in pauses:
            await crowd.come(READ, count=rate // 4 + 2)
            await clock.advance(pause)
        times = [at for at, _ in crowd.through]
        for first in times:
            assert sum(first <= at < first + 60 - 1e-6 for at in times) <= rate
        await crowd.leave()

    asyncio.run(scenario())


async def test_all_come_through_in_the_end(crowd: Crowd) -> None:
    """The rate is that of the setting: ten calls in the first minute, no fewer."""
    await crowd.come(READ, count=10)
    await crowd.clock.advance(60)
    assert len(crowd.through) == 10
    assert crowd.limiter.waiting == 0


async def test_what_ends_spending_goes_first_then_writes_then_reads(crowd: Crowd) -> None:
    """Calls that end spending go first, then other writes, reads, and figures to show."""
    await crowd.come(READ, "used", count=2)
    await crowd.come(Priority.SHOWING)
    await crowd.come(READ)
    await crowd.come(WRITE)
    await crowd.come(END)
    await crowd.clock.advance(60)
    assert crowd.names == ["used", "used", "ENDING", "WRITING", "READING", "SHOWING"]


async def test_reads_never_starve(crowd: Crowd) -> None:
    """While a read waits, at least one permit in five goes to a read."""
    await crowd.come(WRITE, count=40)
    await crowd.come(READ, count=5)
    await crowd.clock.advance(200)
    for first in range(2, len(crowd.names) - 5):
        assert "READING" in crowd.names[first : first + 5] or crowd.names.count("READING") == 5
    assert crowd.names.count("READING") == 5
    await crowd.leave()


async def test_the_first_in_a_class_is_the_first_through(crowd: Crowd) -> None:
    """Calls of the same priority go in order of arrival."""
    for name in ("a", "b", "c", "d"):
        await crowd.come(READ, name)
    await crowd.clock.advance(60)
    assert crowd.names == ["a", "b", "c", "d"]


async def test_a_waiter_that_gives_up_costs_nobody_a_permit(crowd: Crowd) -> None:
    """If a waiting caller is cancelled, the next one gets its turn."""
    await crowd.come(READ, "used", count=2)
    await crowd.come(READ, "gives up")
    await crowd.come(READ, "stays")
    crowd.tasks[2].cancel()
    await crowd.clock.advance(60 / 9 + 0.01)
    assert crowd.names == ["used", "used", "stays"]


async def test_a_permit_given_to_one_just_cancelled_comes_back(ids: Ids) -> None:
    """A permit granted to a caller that was just cancelled is not lost."""

    class Untimely(ManualClock):
        """A queue that cancels a caller in the same loop turn in which it is granted a permit."""

        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            if len(callers.through) == 2:
                asyncio.get_running_loop().call_soon(callers.tasks[2].cancel)

    clock = Untimely()
    callers = Crowd(UpstreamLimiter(10, clock=clock, ids=ids), clock)
    await callers.come(READ, "used", count=2)
    await callers.come(READ, "gives up")
    await callers.come(READ, "stays")
    await clock.advance(60 / 9 + 0.01)

    assert callers.names == ["used", "used", "stays"]


async def test_no_one_waiting_leaves_nothing_behind(crowd: Crowd) -> None:
    """Without waiting callers there are no entries and no task."""
    await crowd.come(READ, count=6)
    await crowd.leave()
    await asyncio.sleep(0)
    assert crowd.limiter.waiting == 0
    assert crowd.limiter._pump is None


async def test_a_pause_holds_everyone_for_as_long_as_upstream_says(crowd: Crowd) -> None:
    """A pause also holds deletes, at most 20% longer than asked, and ends with an empty bucket."""
    crowd.limiter.pause(30)
    await crowd.come(END, count=3)
    await crowd.clock.advance(29.9)
    assert crowd.through == []
    await crowd.clock.advance(6.2)
    assert len(crowd.through) == 1
    await crowd.leave()


async def test_a_pause_reaches_those_who_wait_already(crowd: Crowd) -> None:
    """A 429 also pauses the calls that are already waiting."""
    await crowd.come(READ, count=3)
    crowd.limiter.pause(40)
    await crowd.clock.advance(39.9)
    assert len(crowd.through) == 2
    await crowd.clock.advance(10)
    assert len(crowd.through) == 3


def test_a_pause_has_a_bound(limiter: UpstreamLimiter) -> None:
    """A pause lasts at most five minutes and 20% of jitter."""
    limiter.pause(1_000_000)
    assert MAX_PAUSE <= limiter.paused_for <= MAX_PAUSE * 1.2


async def test_without_a_word_from_upstream_pauses_double(
    limiter: UpstreamLimiter, clock: ManualClock
) -> None:
    """Without `Retry-After` pauses are 1, 2, 4 ... 60 s, each up to 20% longer."""
    for expected in (1, 2, 4, 8, 16, 32, 60, 60):
        limiter.pause(None)
        assert expected <= limiter.paused_for <= expected * 1.2 + 1e-9
        await clock.advance(limiter.paused_for)


async def test_refusals_of_calls_under_way_count_as_one(limiter: UpstreamLimiter) -> None:
    """Thirty 429s to calls sent before the first 429 cause one pause."""
    for _ in range(30):
        limiter.pause(None)
    assert limiter.paused_for <= 1.2


async def test_refusals_during_a_pause_do_not_lengthen_the_next_one(
    limiter: UpstreamLimiter, clock: ManualClock
) -> None:
    """A 429 during a pause does not lengthen the next pause, even with `Retry-After`."""
    for _ in range(30):
        limiter.pause(5)
    await clock.advance(6)
    limiter.pause(None)
    assert 2 <= limiter.paused_for <= 2.4


async def test_an_answer_makes_the_next_pause_short_again(
    limiter: UpstreamLimiter, clock: ManualClock
) -> None:
    """A success shortens the next pause, unless it arrives during a pause."""
    limiter.pause(None)
    limiter.answered()
    await clock.advance(2)
    limiter.pause(None)
    assert limiter.paused_for >= 2
    await clock.advance(3)
    limiter.answered()
    limiter.pause(None)
    assert limiter.paused_for <= 1.2


async def test_one_call_a_minute_is_possible(clock: ManualClock, ids: Ids) -> None:
    """A rate of one call a minute works."""
    crowd = Crowd(UpstreamLimiter(1, clock=clock, ids=ids), clock)
    await crowd.come(READ, count=2)
    await clock.advance(59.9)
    assert len(crowd.through) == 1
    await clock.advance(0.2)
    assert len(crowd.through) == 2


def test_none_a_minute_is_refused(clock: ManualClock, ids: Ids) -> None:
    """A rate of zero is refused."""
    with pytest.raises(ValueError, match="at least 1"):
        UpstreamLimiter(0, clock=clock, ids=ids)
