# SPDX-License-Identifier: Apache-2.0
"""What commands say: results on standard output, everything else on standard error, flushed."""

from __future__ import annotations

import sys
from typing import Final

TEMPORARY: Final = 75
"""EX_TEMPFAIL of sysexits(3), with which the store says that another process has the file."""


def say(line: str) -> None:
    """Write a line of the result."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def note(line: str) -> None:
    """Write a line for the reader that is no part of the result."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def complain(message: str) -> None:
    """Say why the command ends."""
    note(f"novitai: {message}")
