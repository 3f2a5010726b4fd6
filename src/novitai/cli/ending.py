# SPDX-License-Identifier: Apache-2.0
"""How a long-running process ends: asked once it cleans up, asked twice it is gone.

SIGINT, SIGTERM and SIGHUP ask. SIGHUP never counts as the second: a terminal that closes sends it
twice, and systemd can send it right after SIGTERM. Where it was ignored from the start, as under
nohup(1), it stays ignored.

Whatever hangs, the process has ended `END_WITHIN` seconds after it was asked: what it leaves undone
is in its rows, and the next start goes on from there. What it writes waits for no reader.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Coroutine
from types import FrameType, TracebackType
from typing import Final

from novitai.cli.output import complain
from novitai.telemetry import streams

END_WITHIN: Final = 13.0
_LAST_WORDS: Final = 0.5
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INIT: Final = 1
"""The process id of the first process of a container, which inherits all orphans in it."""


class Ending:
    """Catches the signals that ask for the end; `asked` is set by the first of them.

    Args:
        within: Seconds after which the process has ended, whatever hangs.
        reap: Whether to have the kernel forget children that have ended; as process 1, if None.
            We start none: they are what others in the container left behind.
    """

    def __init__(self, within: float = END_WITHIN, *, reap: bool | None = None) -> None:
        self.asked = asyncio.Event()
        self._reap = os.getpid() == _INIT if reap is None else reap
        self._within = within
        self._loop: asyncio.AbstractEventLoop | None = None
        self._was_asked = False
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
        self._loop = None

    def attach(self) -> None:
        """Have the running loop learn of signals from now on, and of one that came before."""
        self._loop = asyncio.get_running_loop()
        if self._was_asked:
            self.asked.set()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._was_asked:
            if number != signal.SIGHUP:
                os._exit(128 + number)
            return
        self._was_asked = True
        self._begun.set()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.asked.set)

    def _watch(self) -> None:
        self._begun.wait()
        time.sleep(self._within)
        complain("something hangs; leaving without it")
        streams.flush(_LAST_WORDS)
        os._exit(0)


def run_until_asked(ending: Ending, process: Coroutine[None, None, None]) -> None:
    """Run a process to its end on an event loop that learns of signals."""
    import uvloop

    async def attached() -> None:
        ending.attach()
        await process

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(attached())
