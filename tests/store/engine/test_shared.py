# SPDX-License-Identifier: Apache-2.0
"""One call for all who wait: each gets the result of one that began after it asked."""

from __future__ import annotations

import asyncio

import pytest

from novitai.store.engine.shared import Shared


class Source:
    """Counts its calls; each waits until it is let go."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None
        self.go = asyncio.Semaphore(0)
        self.shared = Shared(self.call, "test")

    async def call(self) -> int:
        """Return the number of the call."""
        self.calls += 1
        number = self.calls
        await self.go.acquire()
        if self.error is not None:
            raise self.error
        return number


async def begun(source: Source, count: int) -> None:
    """Wait until calls have begun."""
    while source.calls < count:  # noqa: ASYNC110 - each turn counts here
        await asyncio.sleep(0)


async def test_all_who_ask_before_it_begins_share_one_call() -> None:
    """Callers of one turn of the event loop get the same result."""
    source = Source()
    source.go.release()
    assert await asyncio.gather(*(source.shared.ask() for _ in range(9))) == [1] * 9


async def test_who_asks_during_a_call_gets_the_next_one() -> None:
    """A call that began before the question does not answer it."""
    source = Source()
    first = asyncio.create_task(source.shared.ask())
    await begun(source, 1)
    second = asyncio.create_task(source.shared.ask())
    await asyncio.sleep(0)
    source.go.release()
    assert await first == 1
    assert not second.done()
    await begun(source, 2)
    source.go.release()
    assert await second == 2


async def test_who_asks_just_as_a_call_ends_does_not_hang() -> None:
    """Asking in any turn of the event loop around the end of a call is answered."""
    for turns in range(8):
        source = Source()
        first = asyncio.create_task(source.shared.ask())
        await begun(source, 1)
        source.go.release()
        for _ in range(turns):
            await asyncio.sleep(0)
        late = asyncio.create_task(source.shared.ask())
        source.go.release()
        async with asyncio.timeout(30):
            assert (await first, await late) == (1, 2)


async def test_a_cancelled_caller_disturbs_nobody() -> None:
    """The call goes on for the others, and later calls begin."""
    source = Source()
    tasks = [asyncio.create_task(source.shared.ask()) for _ in range(3)]
    await begun(source, 1)
    tasks[0].cancel()
    source.go.release()
    assert await asyncio.gather(*tasks[1:]) == [1, 1]
    source.go.release()
    assert await source.shared.ask() == 2


async def test_an_error_reaches_all_and_the_next_call_begins() -> None:
    """Callers that wait get the error of their call, and nothing is kept of it."""
    source = Source()
    source.error = ValueError("broke")
    source.go.release()
    found = await asyncio.gather(*(source.shared.ask() for _ in range(2)), return_exceptions=True)
    assert [str(error) for error in found] == ["broke", "broke"]
    source.error = None
    source.go.release()
    assert await source.shared.ask() == 2


async def test_a_call_that_is_cancelled_cancels_who_waits_for_it() -> None:
    """When the process ends, no caller waits for ever, whether the call had begun or not."""
    for turns in (0, 2):
        source = Source()
        waiting = asyncio.create_task(source.shared.ask())
        await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        task = source.shared._task
        assert task is not None
        task.cancel()
        if turns == 0:  # those who had not been served are by the next call
            await begun(source, 1)
            source.go.release()
            assert await waiting == 1
        else:
            with pytest.raises(asyncio.CancelledError):
                await waiting
