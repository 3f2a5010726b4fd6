# SPDX-License-Identifier: Apache-2.0
"""What the last calls say of upstream's health, without another call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from novitai.upstream.breaker import Breaker, BreakerState
from novitai.upstream.errors import KeyRefused, UpstreamError

FAULTS_THAT_COUNT: Final = 3


@dataclass(frozen=True, slots=True)
class UpstreamHealth:
    """A snapshot of what we know of upstream.

    Attributes:
        key_refused: The last call that told anything about our key was refused for it.
        open_breakers: Names of the classes of operations whose breaker is open now.
        faults_in_a_row: How many of the last calls failed for upstream's fault.
    """

    key_refused: bool
    open_breakers: tuple[str, ...]
    faults_in_a_row: int

    @property
    def down(self) -> bool:
        """Whether `/health` has to say that Novita's API is down."""
        return (
            self.key_refused
            or bool(self.open_breakers)
            or self.faults_in_a_row >= FAULTS_THAT_COUNT
        )


class HealthRecord:
    """Keeps the few facts a snapshot is made of."""

    def __init__(self) -> None:
        self._key_refused = False
        self._faults = 0

    def answered(self) -> None:
        """Take note of a success: upstream works and takes our key."""
        self._key_refused = False
        self._faults = 0

    def failed(self, error: UpstreamError) -> None:
        """Take note of a failure; one that says nothing of upstream changes nothing."""
        if error.is_fault:
            self._faults += 1
        elif error.http_status is not None:
            self._key_refused = self._key_refused or isinstance(error, KeyRefused)
            self._faults = 0

    def snapshot(self, breakers: Iterable[Breaker]) -> UpstreamHealth:
        """Say what is known, as of now."""
        return UpstreamHealth(
            key_refused=self._key_refused,
            open_breakers=tuple(
                breaker.name for breaker in breakers if breaker.state is BreakerState.OPEN
            ),
            faults_in_a_row=self._faults,
        )
