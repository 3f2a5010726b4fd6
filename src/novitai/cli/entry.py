# SPDX-License-Identifier: Apache-2.0
"""The console script. A long-running command handles signals before the other modules are loaded.

Loading them takes a second on a busy machine. This module imports nothing slow, so that a signal
during that second ends the process with a message and the documented exit code.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from types import FrameType, ModuleType
from typing import Final, NoReturn, cast

STOPPED_EARLY: Final = "asked to stop before it had started"
INTERRUPTED: Final = 130
"""The exit code of a command that was stopped before it finished its work."""
_CODES: Final = {"serve": 0, "api": 0, "worker": 0, "emulator": 0, "demo": INTERRUPTED}
"""The long-running commands, with their exit codes if they are stopped during startup."""
_SERVERS: Final = frozenset({"serve", "api", "worker"})
_OWN_HANGUP: Final = frozenset({"emulator"})
"""Commands that keep the default action of SIGHUP."""


def main() -> None:
    """Run the command named by the arguments."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command in _CODES:
        _catch(command)
    if command in _SERVERS:
        _load_structlog()
    from novitai.cli.main import main as run

    run()


def _load_structlog() -> None:
    """Load structlog without rich, which it would load if it found it.

    A server does not use it, and it takes 5 MB and a twentieth of a second.
    """
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    modules["rich"] = None
    try:
        import structlog  # noqa: F401 - loaded for later
    finally:
        del modules["rich"]


def leave(code: int) -> NoReturn:
    """Exit a process that has not begun any work. Safe to call in a signal handler.

    The message bypasses Python's buffers, which the interrupted code may be using. It is dropped if
    writing to standard error would block.
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
    # Under nohup(1) SIGHUP stays ignored.
    if command not in _OWN_HANGUP and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handle)
