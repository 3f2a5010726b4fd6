# SPDX-License-Identifier: Apache-2.0
"""Send windows for write calls, for tests of other behaviour."""

from __future__ import annotations

from novitai.upstream.window import SendWindow


def window_until(until: int = 2**62) -> SendWindow:
    """A window that ends at a time of day, in Unix milliseconds, and never by monotonic time."""
    return SendWindow(until, float("inf"))
