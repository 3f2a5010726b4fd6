# SPDX-License-Identifier: Apache-2.0
"""What commands say: results on standard output, everything else on standard error, flushed."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Final, TextIO

from novitai.errors import StartupError

TEMPORARY: Final = 75
"""EX_TEMPFAIL of sysexits(3), with which the store says that another process has the file."""
_IO: Final = 74  # EX_IOERR

_closed: Final[set[str]] = set()
"""The standard streams that the process was started without."""


class OutputFailed(StartupError):
    """Standard output or standard error takes nothing: it is closed, or its disk is full."""


def prepare() -> None:
    """Make the standard streams usable in any locale, and safe if they were closed at the start.

    A file that is opened later must not get the number of a standard stream: what is meant for the
    terminal would be written into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            _closed.add(name)
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - open to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(line: str) -> None:
    """Write a line of the result.

    Raises:
        OutputFailed: it could not be written.
    """
    _write("stdout", "standard output", line)


def note(line: str) -> None:
    """Write a line for the reader that is no part of the result.

    Raises:
        OutputFailed: it could not be written.
    """
    _write("stderr", "standard error", line)


def complain(message: str) -> None:
    """Say why the command ends, if there is somewhere to say it."""
    with contextlib.suppress(OutputFailed):
        note(f"novitai: {message}")


def _write(name: str, title: str, line: str) -> None:
    if name in _closed:
        raise OutputFailed(f"{title} is closed", exit_code=_IO)
    stream: TextIO = getattr(sys, name)
    try:
        stream.write(f"{line}\n")
        stream.flush()
    except (OSError, ValueError) as error:
        _discard(stream)
        reason = error.strerror if isinstance(error, OSError) else "it is closed"
        raise OutputFailed(f"{title} cannot be written: {reason}", exit_code=_IO) from None


def _discard(stream: TextIO) -> None:
    """Throw away what a broken stream still holds: flushed at the exit, it would fail again."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
