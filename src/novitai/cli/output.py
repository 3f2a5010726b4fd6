# SPDX-License-Identifier: Apache-2.0
"""Output of commands: results on standard output, the rest on standard error, flushed at once."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Final, TextIO

from novitai.errors import StartupError

TEMPORARY: Final = 75
"""EX_TEMPFAIL of sysexits(3): the store's exit code if another process has the file open."""
_IO: Final = 74  # EX_IOERR

_closed: Final[set[str]] = set()
"""The standard streams that were closed when the process started."""


class OutputFailed(StartupError):
    """Writing to standard output or standard error failed: it is closed, or the disk is full."""


class ReaderGone(OutputFailed):
    """The program that reads the output, such as `head`, has ended."""


def prepare() -> None:
    """Make the standard streams usable in any locale, and safe if they were closed at the start.

    A file that is opened later must not get the descriptor of a standard stream, because terminal
    output would be written into it.
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
    """Write a line of the result to standard output.

    Raises:
        OutputFailed: the write failed.
    """
    _write("stdout", "standard output", line)


def note(line: str) -> None:
    """Write a line that is not part of the result to standard error.

    Raises:
        OutputFailed: the write failed.
    """
    _write("stderr", "standard error", line)


def complain(message: str) -> None:
    """Write an error message to standard error; ignore a failure to write it."""
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
        kind = ReaderGone if isinstance(error, BrokenPipeError) else OutputFailed
        raise kind(f"{title} cannot be written: {reason}", exit_code=_IO) from None


def _discard(stream: TextIO) -> None:
    """Redirect a broken stream to /dev/null, so that the flush at exit does not fail again."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
