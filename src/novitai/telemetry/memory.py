# SPDX-License-Identifier: Apache-2.0
"""Give memory that is free within the process back to the operating system."""

from __future__ import annotations

import contextlib
import sys


def give_back() -> None:
    """Give back what the C library keeps for later; takes milliseconds.

    Call this after work that needs much memory for a moment. Other C libraries than glibc do it by
    themselves or cannot be asked.
    """
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
