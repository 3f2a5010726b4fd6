# SPDX-License-Identifier: Apache-2.0
"""Windows for write calls, for tests that are about something else."""

from __future__ import annotations

from novitai.upstream.window import SendWindow


def window_until(until: int = 2**62) -> SendWindow:
    """A window that is over after a time of day, in Unix milliseconds, and by no other clock."""
    return SendWindow(until, float("inf"))
