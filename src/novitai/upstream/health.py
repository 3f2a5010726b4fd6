# SPDX-License-Identifier: Apache-2.0
"""Upstream's health, derived from the last calls without making another one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from novitai.upstream.breaker import Breaker, BreakerState
from novitai.upstream.errors import KeyRefused, UpstreamError

FAULTS_THAT_COUNT: Final = 3


@dataclass(frozen=True, slots=True)
class UpstreamHealth:
    """A snapshot of upstream's health.

    Attributes:
        key_refused: Whether upstream refused the API key, and no call has succeeded since.
        open_breakers: The names of the breakers that are open now.
        faults_in_a_row: Consecutive calls that failed by upstream's fault.
    """

    key_refused: bool
    open_breakers: tuple[str, ...]
    faults_in_a_row: int

    @property
    def down(self) -> bool:
        """Whether `/health` must report Novita's API as down."""
        return (
            self.key_refused
            or bool(self.open_breakers)
            or self.faults_in_a_row >= FAULTS_THAT_COUNT
        )


class HealthRecord:
    """Records the results of calls for the snapshot."""

    def __init__(self) -> None:
        self._key_refused = False
        self._faults = 0

    def answered(self) -> None:
        """Record a success: upstream works and accepts the API key."""
        self._key_refused = False
        self._faults = 0

    def failed(self, error: UpstreamError) -> None:
        """Record a failure; one that was never sent is ignored."""
        if error.is_fault:
            self._faults += 1
        elif error.http_status is not None:
            self._key_refused = self._key_refused or isinstance(error, KeyRefused)
            self._faults = 0

    def snapshot(self, breakers: Iterable[Breaker]) -> UpstreamHealth:
        """Return the current snapshot."""
        return UpstreamHealth(
            key_refused=self._key_refused,
            open_breakers=tuple(
                breaker.name for breaker in breakers if breaker.state is BreakerState.OPEN
            ),
            faults_in_a_row=self._faults,
        )
