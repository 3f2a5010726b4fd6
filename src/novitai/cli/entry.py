# SPDX-License-Identifier: Apache-2.0
"""The console script: a long-running command can be stopped before anything else is loaded.

Loading takes a second on a busy machine. This module imports nothing that takes time, so that a
signal in that second ends the process with a line and its exit code, not with the signal.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

STOPPED_EARLY: Final = "asked to stop before it had started"
INTERRUPTED: Final = 130
"""The exit code of a command that was stopped before it had done what it was started for."""
_CODES: Final = {"serve": 0, "api": 0, "worker": 0, "emulator": 0, "demo": INTERRUPTED}
"""The long-running commands, and how each ends when it is stopped while it starts."""
_OWN_HANGUP: Final = frozenset({"emulator"})
"""Commands that leave SIGHUP to the system."""


def main() -> None:
    """Run the command that the arguments name."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command in _CODES:
        _catch(command)
    from novitai.cli.main import main as run

    run()


def leave(code: int) -> NoReturn:
    """End a process that has begun nothing yet. A signal handler may call it.

    The line is written past the buffers of Python, which the interrupted code may be using, and
    dropped where standard error would make it wait.
    """
    with contextlib.suppress(OSError):
        writable = select.poll()
        writable.register(2, select.POLLOUT)
        if writable.poll(0):
            os.write(2, f"novitai: {STOPPED_EARLY}\n".encode())
    os._exit(code)


def _catch(command: str) -> None:
    code = _CODES[command]

    def handle(_number: int, _frame: FrameType | None) -> None:
        leave(code)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    # Under nohup(1) a hangup stays ignored.
    if command not in _OWN_HANGUP and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handle)
