# SPDX-License-Identifier: Apache-2.0
"""Shutdown of a long-running process: the first signal starts a clean shutdown, a second kills it.

SIGINT, SIGTERM and SIGHUP request the shutdown. SIGHUP never counts as the second signal: a closing
terminal sends it twice, and systemd can send it right after SIGTERM. If SIGHUP was ignored when the
process started, as under nohup(1), it stays ignored.

The process exits at most `END_WITHIN` seconds after the first signal, even if something hangs:
unfinished work is recorded in the database, and the next start resumes it. A signal during startup
aborts the startup, within `START_WITHIN` seconds. Output never blocks on a slow reader.
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
"""Seconds. Container runtimes send SIGKILL 10 s after SIGTERM."""
START_WITHIN: Final = 2.0
_LAST_WORDS: Final = 1.0
"""Seconds for the last line to be written. A machine under load needs more than half of one."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INIT: Final = 1
"""The process ID of the first process of a container, which inherits all orphaned processes."""


class StoppedEarly(StartupError):
    """The process received a shutdown signal while it was starting."""


class Ending:
    """Handles the shutdown signals; the first one sets `asked`.

    Args:
        within: Seconds after the first signal when the process exits at the latest.
        start_within: The same for a signal during startup.
        stopped_early: The exit code after a signal during startup.
        reap: Whether the kernel reaps exited children; if None, only if this is process 1. novitai
            starts no children: these are orphans of other processes in the container.
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
        self._in_start = False
        self._told = threading.Lock()
        self._begun = threading.Event()

    def __enter__(self) -> Ending:
        streams.detach()
        for number in _SIGNALS:
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        if self._reap:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        # Started here because a signal handler must not start threads.
        threading.Thread(target=self._watch, name="ending", daemon=True).start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        # The handlers stay installed: they also cover the exit of the interpreter.
        self._loop, self._over = None, True

    def attach(self) -> None:
        """Deliver signals to the running event loop from now on."""
        self._loop = asyncio.get_running_loop()

    @contextlib.asynccontextmanager
    async def starting(self) -> AsyncIterator[None]:
        """Cancel the block on a shutdown signal; the block cleans up what it has begun.

        Raises:
            StoppedEarly: the block was cancelled, or the signal arrived before it began.
        """
        early = StoppedEarly(STOPPED_EARLY, exit_code=self._early_code)
        # Set before the check: a signal in between counts as one during startup.
        self._in_start = True
        try:
            if self._was_asked:
                raise early
            async with asyncio.timeout(None) as self._start:
                yield
        except TimeoutError:
            if self._start is None or not self._start.expired():
                raise
            raise early from None
        finally:
            self._in_start, self._start = False, None

    def leave_start(self, error: StoppedEarly) -> None:
        """Exit after an aborted startup, with one line on standard error.

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
        self._early = self._in_start
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
        if self._early and self._told.acquire(blocking=False):
            streams.flush(_LAST_WORDS)
            leave(self._early_code)  # writes the line itself: no queue may lose it
        if not self._early:
            complain("the clean shutdown did not finish in time; exiting without it")
        streams.flush(_LAST_WORDS)
        os._exit(self._early_code if self._early else 0)

    def _tell_early(self) -> None:
        """Print the message only once: the watchdog thread may have printed it."""
        if self._told.acquire(blocking=False):
            complain(STOPPED_EARLY)


def run_until_asked(ending: Ending, process: Coroutine[None, None, None]) -> None:
    """Run a process to its end on an event loop that receives the shutdown signals.

    Raises:
        SystemExit: a shutdown signal arrived during startup.
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
