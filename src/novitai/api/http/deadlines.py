# SPDX-License-Identifier: Apache-2.0
"""Time limits of requests: one timer for all of them, because one for each would cost more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class DeadlineExpired(TimeoutError):
    """The time of a request was up."""


class Deadlines:
    """Cancels what runs longer than its limit.

    All limits of one process are about equal, so those that began first end first.
    """

    def __init__(self) -> None:
        self._running: dict[RequestDeadline, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def limited(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """Await a coroutine for at most `seconds`.

        Most reads are answered without waiting for anything, and to limit them would take a tenth
        of their time. So the limit is set once the coroutine waits.

        Raises:
            DeadlineExpired: the time is up.
        """
        try:
            waits_for = work.send(None)
        except StopIteration as ended:
            result: T = ended.value
            return result
        with self.limit(seconds):
            return await _Rest(work, waits_for)

    def limit(self, seconds: float) -> RequestDeadline:
        """Limit the time of a block: `DeadlineExpired` is raised in it after `seconds`."""
        return RequestDeadline(self, seconds)

    def begin(self, deadline: RequestDeadline, seconds: float) -> None:
        """Watch a block of the running task."""
        loop = asyncio.get_running_loop()
        at = loop.time() + seconds
        self._running[deadline] = at
        if self._timer is None or self._timer.when() > at:
            self._wake(loop, at)

    def end(self, deadline: RequestDeadline) -> None:
        """Stop watching a block."""
        self._running.pop(deadline, None)

    def _wake(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(at, self._look)

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for deadline in [one for one, at in self._running.items() if at <= now]:
            del self._running[deadline]
            deadline.expire()
        if self._running:
            self._wake(loop, min(self._running.values()))


class _Rest(Generic[T]):
    """The rest of a coroutine that has begun to wait.

    Args:
        work: The coroutine.
        waits_for: The value that it has yielded to the event loop.
    """

    def __init__(self, work: Coroutine[Any, Any, T], waits_for: Any) -> None:
        self._work = work
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, T]:
        waits_for = self._waits_for
        while True:
            try:
                given = yield waits_for
            except BaseException as error:  # it is for the coroutine, a cancellation too
                go_on = partial(self._work.throw, error)
            else:
                go_on = partial(self._work.send, given)
            try:
                waits_for = go_on()
            except StopIteration as ended:
                result: T = ended.value
                return result


class RequestDeadline:
    """The time limit of one block; see `Deadlines.limit`.

    Attributes:
        expired: Whether the time was up.
    """

    __slots__ = ("_cancelling", "_owner", "_seconds", "_task", "expired")

    def __init__(self, owner: Deadlines, seconds: float) -> None:
        self._owner = owner
        self._seconds = seconds
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.expired = False

    def __enter__(self) -> RequestDeadline:
        self._task = task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit needs a task")
        self._cancelling = task.cancelling()
        self._owner.begin(self, self._seconds)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._owner.end(self)
        if not self.expired or self._task is None:
            return
        # A cancellation by somebody else goes on.
        ours = self._task.uncancel() <= self._cancelling
        if ours and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise DeadlineExpired from error

    def expire(self) -> None:
        """Cancel the block."""
        self.expired = True
        if self._task is not None:
            self._task.cancel()
