# SPDX-License-Identifier: Apache-2.0
"""How a long-running process ends: asked once it cleans up, asked twice it is gone.

SIGINT, SIGTERM and SIGHUP ask. SIGHUP never counts as the second: a terminal that closes sends it
twice, and systemd can send it right after SIGTERM. Where it was ignored from the start, as under
nohup(1), it stays ignored.

Whatever hangs, the process has ended `END_WITHIN` seconds after it was asked: what it leaves undone
is in its rows, and the next start goes on from there. A process that is asked while it starts
breaks the start off, within `START_WITHIN` seconds. What it writes waits for no reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from types import FrameType, TracebackType
from typing import Final

from novitai.cli.entry import STOPPED_EARLY, leave
from novitai.cli.output import complain
from novitai.errors import StartupError
from novitai.telemetry import streams

END_WITHIN: Final = 7.5
"""Less than the 10 s after which container runtimes kill what they have asked to end."""
START_WITHIN: Final = 2.0
_LAST_WORDS: Final = 0.5
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INIT: Final = 1
"""The process id of the first process of a container, which inherits all orphans in it."""


class StoppedEarly(StartupError):
    """The process was asked to end while it was starting."""


class Ending:
    """Catches the signals that ask for the end; `asked` is set by the first of them.

    Args:
        within: Seconds after which the process has ended, whatever hangs.
        start_within: The same for a process that was asked while it was starting.
        stopped_early: The exit code of a process that was asked while it was starting.
        reap: Whether to have the kernel forget children that have ended; as process 1, if None.
            We start none: they are what others in the container left behind.
    """

    def __init__(
        self,
        within: float = END_WITHIN,
        *,
        start_within: float = START_WITHIN,
        stopped_early: int = 0,
        reap: bool | None = None,
    ) -> None:
        self.asked = asyncio.Event()
        self._reap = os.getpid() == _INIT if reap is None else reap
        self._within = within
        self._start_within = start_within
        self._early_code = stopped_early
        self._loop: asyncio.AbstractEventLoop | None = None
        self._start: asyncio.Timeout | None = None
        self._over = False
        self._was_asked = False
        self._early = False
        self._told = threading.Lock()
        self._begun = threading.Event()

    def __enter__(self) -> Ending:
        streams.detach()
        for number in _SIGNALS:
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        if self._reap:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        # Begun here, not when a signal comes: a handler must not start threads.
        threading.Thread(target=self._watch, name="ending", daemon=True).start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        # The handlers stay: what the interpreter does on its way out is part of the ending.
        self._loop, self._over = None, True

    def attach(self) -> None:
        """Have the running loop learn of signals from now on."""
        self._loop = asyncio.get_running_loop()

    @contextlib.asynccontextmanager
    async def starting(self) -> AsyncIterator[None]:
        """Break the block off when the process is asked to end; what it has begun, it cleans up.

        Raises:
            StoppedEarly: the block was broken off, or not begun.
        """
        early = StoppedEarly(STOPPED_EARLY, exit_code=self._early_code)
        if self._was_asked:
            raise early
        try:
            async with asyncio.timeout(None) as self._start:
                yield
        except TimeoutError:
            if self._start is None or not self._start.expired():
                raise
            raise early from None
        finally:
            self._start = None

    def leave_start(self, error: StoppedEarly) -> None:
        """End a process whose start was broken off, with one line.

        Raises:
            SystemExit: always.
        """
        self._tell_early()
        sys.exit(error.exit_code)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._was_asked:
            if number != signal.SIGHUP:
                os._exit(128 + number)
            return
        self._was_asked = True
        if self._loop is None and not self._over:
            leave(self._early_code)
        self._early = self._start is not None
        self._begun.set()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ask)

    def _ask(self) -> None:
        self.asked.set()
        if self._start is not None and not self._start.expired():
            self._start.reschedule(asyncio.get_running_loop().time())

    def _watch(self) -> None:
        self._begun.wait()
        time.sleep(self._start_within if self._early else self._within)
        if self._early:
            self._tell_early()
        else:
            complain("something hangs; leaving without it")
        streams.flush(_LAST_WORDS)
        os._exit(self._early_code if self._early else 0)

    def _tell_early(self) -> None:
        """Say it once: the start may hang on its way out."""
        if self._told.acquire(blocking=False):
            complain(STOPPED_EARLY)


def run_until_asked(ending: Ending, process: Coroutine[None, None, None]) -> None:
    """Run a process to its end on an event loop that learns of signals.

    Raises:
        SystemExit: the process was asked to end while it was starting.
    """
    import uvloop

    async def attached() -> None:
        ending.attach()
        await process

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(attached())
    except StoppedEarly as early:
        ending.leave_start(early)
