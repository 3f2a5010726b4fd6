# SPDX-License-Identifier: Apache-2.0
"""The window in which a write call may be sent: until the lease of its sender ends.

A worker whose lease has expired must not send a call, because another worker may have taken over.
So every write call has a window, and the transport checks it just before the first byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from novitai.clock import Clock
from novitai.upstream.errors import NotSent


@dataclass(slots=True)
class SendWindow:
    """The time until which write calls may begin; a renewal of the lease extends it.

    The end is kept on two clocks, and the window is over when either has passed it: the time of day
    may be set back, and on some systems the other clock stops while the machine is suspended.

    Attributes:
        until: The end, in Unix milliseconds.
        until_boottime: The end, in seconds of `Clock.boottime`.
        sent: Whether a write call was begun in this window.
        closed: Whether the window was closed before its end.
        within: Another window that must be open too.
    """

    until: int
    until_boottime: float
    sent: bool = False
    closed: bool = False
    within: SendWindow | None = None

    @classmethod
    def lasting(cls, clock: Clock, milliseconds: int) -> SendWindow:
        """Open a window that begins now."""
        return cls(clock.now() + milliseconds, clock.boottime() + milliseconds / 1000)

    def extend(self, clock: Clock, milliseconds: int) -> None:
        """Set the end to `milliseconds` from now, after a renewal of the lease."""
        self.until = clock.now() + milliseconds
        self.until_boottime = clock.boottime() + milliseconds / 1000

    def is_over(self, clock: Clock) -> bool:
        """Whether the window was closed, or the end has passed on either clock."""
        if self.closed or (self.within is not None and self.within.is_over(clock)):
            return True
        return clock.now() > self.until or clock.boottime() > self.until_boottime

    def begin(self, clock: Clock) -> NotSent | None:
        """Check the window just before sending; return the refusal, or None."""
        if self.is_over(clock):
            return NotSent("the lease of this call has expired", reason="CLAIM_ENDED")
        self.sent = True
        return None
