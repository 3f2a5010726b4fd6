# SPDX-License-Identifier: Apache-2.0
"""A circuit breaker for one class of operations.

It opens after `threshold` consecutive faults and becomes half-open after the cool-down; then one
probe call decides. Only upstream's faults count (timeouts, broken connections, 5xx, unreadable
responses). A 4xx is ignored while closed and a success while half-open; a cancelled call is
ignored. The state is computed from the clock, so no timer is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from novitai.clock import Clock
from novitai.upstream.errors import BreakerOpen

THRESHOLD: Final = 5
COOL_DOWN: Final = 10.0
MAX_COOL_DOWN: Final = 30.0
"""Short enough that a due limit is enforced within a minute of Novita's return: the account is
listed first, then the stop is sent."""
# After this many seconds, a probe without a verdict no longer blocks the next one.
PROBE_EXPIRES: Final = 60.0


class BreakerState(StrEnum):
    """The state of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CallVerdict(StrEnum):
    """The result of a call, as the breaker counts it."""

    SUCCESS = "success"
    ANSWERED = "answered"
    """A 4xx: upstream works, but refused the call."""
    FAULT = "fault"
    NOTHING = "nothing"
    """The call was cancelled or never sent."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The permission for one call; the caller must settle it with a verdict."""

    era: int
    is_probe: bool
    number: int


class Breaker:
    """Counts consecutive faults and refuses calls for a while."""

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
            clock: The clock.
            threshold: Consecutive faults that open it.
            cool_down: Seconds it stays open at first; doubled by each failed probe.
            max_cool_down: Maximum seconds it stays open.
            probe_expires: Seconds after which a probe without a verdict is given up.
        """
        self.name = name
        self._clock = clock
        self._threshold = threshold
        self._base = cool_down
        self._max = max_cool_down
        self._probe_expires = probe_expires
        # Verdicts of calls that were admitted before the last change of state are ignored.
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
        """The current state."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return (
            BreakerState.OPEN
            if self._clock.monotonic() < self._open_until
            else BreakerState.HALF_OPEN
        )

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be admitted; 0 if a call would be admitted now."""
        if self._open_until is None:
            return 0.0
        now = self._clock.monotonic()
        if now < self._open_until:
            return self._open_until - now
        return max(0.0, self._probe_until - now) if self._probe is not None else 0.0

    def check(self, *, bypass: bool = False) -> None:
        """Raise if a call would not be admitted now; the state does not change.

        Raises:
            BreakerOpen: with the seconds to wait.
        """
        wait = self._wait(bypass=bypass)
        if wait > 0:
            raise BreakerOpen(f"Novita keeps failing ({self.name})", retry_after=wait)

    def enter(self, *, bypass: bool = False) -> Ticket:
        """Admit one call.

        Args:
            bypass: For calls that end spending. One of them is admitted per initial cool-down
                even while the breaker is open, so that failures of other calls do not block it.

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
        """Record the verdict of a call."""
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
