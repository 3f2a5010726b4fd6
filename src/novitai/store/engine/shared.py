# SPDX-License-Identifier: Apache-2.0
"""One call for all who wait for its result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Runs one call at a time; everyone who asks gets the result of a call begun after they asked.

    A caller that is cancelled affects neither the call nor the others. The call itself must end: it
    has a time limit of its own.
    """

    def __init__(self, run: Callable[[], Awaitable[T]], name: str) -> None:
        """Share the calls of `run`; `name` is that of its task."""
        self._run = run
        self._name = name
        self._waiting: list[asyncio.Future[T]] = []
        self._served: list[asyncio.Future[T]] = []
        self._task: asyncio.Task[T] | None = None

    async def ask(self) -> T:
        """Return the result of a call that begins after this.

        Raises:
            Exception: the exception of the call.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if self._task is None:
            self._begin()
        return await future

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._go(), name=self._name)
        self._task.add_done_callback(self._end)

    async def _go(self) -> T:
        # Here and not in `_begin`, so that all who ask before the task's first step are served.
        self._served, self._waiting = self._waiting, []
        return await self._run()

    def _end(self, task: asyncio.Task[T]) -> None:
        """Give the result to those served, and begin again if others wait, in one step."""
        served, self._served = self._served, []
        self._task = None
        if self._waiting:
            self._begin()
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        for future in served:
            if future.done():
                continue
            if error is None:
                future.set_result(task.result())
            elif isinstance(error, asyncio.CancelledError):
                future.cancel()
            else:
                future.set_exception(error)
