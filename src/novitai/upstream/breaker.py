# SPDX-License-Identifier: Apache-2.0
"""A circuit breaker for one class of operations: stop calling what keeps failing.

Closed → open after `threshold` faults in a row → half-open when the cool-down is over: one probe
decides. Only upstream's faults count (timeouts, broken connections, 5xx, unreadable answers);
a 4xx is neutral while closed and a success while half-open; a cancelled call says nothing.
The state follows from the clock alone: nothing has to happen for it to be right.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from novitai.clock import Clock
from novitai.upstream.errors import BreakerOpen

THRESHOLD: Final = 5
COOL_DOWN: Final = 10.0
MAX_COOL_DOWN: Final = 60.0
# A probe that was never heard of again no longer holds the door shut after this.
PROBE_EXPIRES: Final = 60.0


class BreakerState(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CallVerdict(StrEnum):
    """What a finished call says about upstream."""

    SUCCESS = "success"
    ANSWERED = "answered"
    """A 4xx: upstream works, and declined."""
    FAULT = "fault"
    NOTHING = "nothing"
    """Cancelled, or never sent."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to one call; to be settled with its verdict."""

    era: int
    is_probe: bool
    number: int


class Breaker:
    """Counts faults in a row and shuts the door for a while."""

    def __init__(
        self,
        name: str,
        *,
        clock: Clock,
        threshold: int = THRESHOLD,
        cool_down: float = COOL_DOWN,
        max_cool_down: float = MAX_COOL_DOWN,
        probe_expires: float = PROBE_EXPIRES,
    ) -> None:
        """Make a closed breaker.

        Args:
            name: The class of operations, for messages.
            clock: Time.
            threshold: Faults in a row that open it.
            cool_down: Seconds it stays open at first; doubles with each failed probe.
            max_cool_down: The longest it stays open.
            probe_expires: Seconds after which a probe without a verdict is given up.
        """
        self.name = name
        self._clock = clock
        self._threshold = threshold
        self._base = cool_down
        self._max = max_cool_down
        self._probe_expires = probe_expires
        # Verdicts of calls that were let in before the last change of state say nothing about it.
        self._era = 0
        self._tickets = 0
        self._faults = 0
        self._cool_down = cool_down
        self._open_until: float | None = None
        self._probe: int | None = None
        self._probe_until = 0.0
        self._next_bypass = 0.0

    @property
    def state(self) -> BreakerState:
        """Where it stands now."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return (
            BreakerState.OPEN
            if self._clock.monotonic() < self._open_until
            else BreakerState.HALF_OPEN
        )

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be let in; 0 if one would be let in now."""
        if self._open_until is None:
            return 0.0
        now = self._clock.monotonic()
        if now < self._open_until:
            return self._open_until - now
        return max(0.0, self._probe_until - now) if self._probe is not None else 0.0

    def check(self, *, bypass: bool = False) -> None:
        """Raise if a call would not be let in now; changes nothing.

        Raises:
            BreakerOpen: with the seconds to wait.
        """
        wait = self._wait(bypass=bypass)
        if wait > 0:
            raise BreakerOpen(f"Novita keeps failing ({self.name})", retry_after=wait)

    def enter(self, *, bypass: bool = False) -> Ticket:
        """Let one call in.

        Args:
            bypass: For calls that end spending: even while the door is shut one of them is
                let in per first cool-down, so that no row of failing others can keep them out.

        Raises:
            BreakerOpen: with the seconds to wait.
        """
        self.check(bypass=bypass)
        self._tickets += 1
        if self._open_until is None:
            return Ticket(self._era, is_probe=False, number=self._tickets)
        now = self._clock.monotonic()
        self._next_bypass = now + self._base
        self._probe = self._tickets
        self._probe_until = now + self._probe_expires
        return Ticket(self._era, is_probe=True, number=self._tickets)

    def settle(self, ticket: Ticket, verdict: CallVerdict) -> None:
        """Take note of how a call ended."""
        if ticket.era != self._era:
            return
        if ticket.is_probe:
            self._settle_probe(ticket, verdict)
        elif verdict is CallVerdict.SUCCESS:
            self._faults = 0
        elif verdict is CallVerdict.FAULT:
            self._faults += 1
            if self._faults >= self._threshold:
                self._open(self._base)

    def _wait(self, *, bypass: bool) -> float:
        wait = self.retry_after
        if wait > 0 and bypass:
            return min(wait, max(0.0, self._next_bypass - self._clock.monotonic()))
        return wait

    def _settle_probe(self, ticket: Ticket, verdict: CallVerdict) -> None:
        match verdict:
            case CallVerdict.SUCCESS | CallVerdict.ANSWERED:
                self._close()
            case CallVerdict.FAULT:
                self._open(min(self._max, self._cool_down * 2), reopened=True)
            case CallVerdict.NOTHING if self._probe == ticket.number:
                self._probe = None

    def _open(self, cool_down: float, *, reopened: bool = False) -> None:
        now = self._clock.monotonic()
        self._era += 1
        self._faults = 0
        self._cool_down = cool_down
        self._open_until = now + cool_down
        self._probe = None
        if not reopened:
            self._next_bypass = now + self._base

    def _close(self) -> None:
        self._era += 1
        self._faults = 0
        self._cool_down = self._base
        self._open_until = None
        self._probe = None
