# SPDX-License-Identifier: Apache-2.0
"""The window in which a write call may be sent: until the claim of its sender ends.

A worker that stalls past its claim must send nothing: another worker has taken over. So every
write call carries a window, and the transport judges it as its last act before the first byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from novitai.clock import Clock
from novitai.upstream.errors import NotSent


@dataclass(slots=True)
class SendWindow:
    """Until when write calls may begin; renewing the claim moves the end.

    The end is kept on two clocks, and the window is over as soon as one of them is past it: the
    time of day may be set back, and steady time may stand still while a machine is suspended.

    Attributes:
        until: The end, in Unix milliseconds.
        until_boottime: The end, in seconds of `Clock.boottime`.
        sent: Whether a write call has begun to leave within this window.
        closed: Whether nothing may leave any more, however long it would have lasted.
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
        """Move the end: the claim was renewed just now for so long."""
        self.until = clock.now() + milliseconds
        self.until_boottime = clock.boottime() + milliseconds / 1000

    def is_over(self, clock: Clock) -> bool:
        """Whether it was closed, or the end has passed on either clock."""
        if self.closed or (self.within is not None and self.within.is_over(clock)):
            return True
        return clock.now() > self.until or clock.boottime() > self.until_boottime

    def begin(self, clock: Clock) -> NotSent | None:
        """Judge the window as the last act before sending; the answer is why not, or None."""
        if self.is_over(clock):
            return NotSent("the claim of this call has ended", reason="CLAIM_ENDED")
        self.sent = True
        return None
