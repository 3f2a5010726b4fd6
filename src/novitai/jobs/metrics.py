# SPDX-License-Identifier: Apache-2.0
"""Counts per job type of this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from novitai.clock import Clock

WINDOW_SECONDS: Final = 60


@dataclass(slots=True)
class JobStats:
    """The counts of one job type since this process started; durations in seconds."""

    processed: int = 0
    """Runs that succeeded."""
    failed: int = 0
    """Runs that raised."""
    cancelled: int = 0
    """Runs that a stop cancelled."""
    seconds_sum: float = 0.0
    """Total duration of runs that succeeded or raised."""
    seconds_min: float | None = None
    seconds_max: float | None = None
    processed_last_minute: int = 0
    queued: int = 0
    """Keys that wait in this process because `concurrency` keys are running."""
    running: int = 0

    @property
    def seconds_mean(self) -> float:
        """The mean duration of a run; 0 before the first."""
        runs = self.processed + self.failed
        return self.seconds_sum / runs if runs else 0.0


@dataclass(slots=True)
class _Tally:
    stats: JobStats = field(default_factory=JobStats)
    # (whole monotonic second, successful runs in it), oldest first, at most one minute
    recent: deque[tuple[int, int]] = field(default_factory=deque)


class JobMetrics:
    """The counts of every job type; memory grows only with the number of types."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tallies: dict[str, _Tally] = {}

    def register(self, name: str) -> None:
        """Include `name` in snapshots, with zeros until it runs."""
        self._tallies.setdefault(name, _Tally())

    def processed(self, name: str, seconds: float) -> None:
        """Count a run that succeeded."""
        tally = self._tallies[name]
        tally.stats.processed += 1
        self._took(tally.stats, seconds)
        second = int(self._clock.monotonic())
        count = tally.recent.pop()[1] if tally.recent and tally.recent[-1][0] == second else 0
        tally.recent.append((second, count + 1))
        self._forget(tally, second)

    def failed(self, name: str, seconds: float) -> None:
        """Count a run that raised."""
        stats = self._tallies[name].stats
        stats.failed += 1
        self._took(stats, seconds)

    def cancelled(self, name: str) -> None:
        """Count a run that a stop cancelled."""
        self._tallies[name].stats.cancelled += 1

    def level(self, name: str, *, queued: int, running: int) -> None:
        """Set how many keys are waiting and running."""
        stats = self._tallies[name].stats
        stats.queued, stats.running = queued, running

    def snapshot(self) -> Mapping[str, JobStats]:
        """Return the current counts by job type."""
        second = int(self._clock.monotonic())
        return {name: self._stats(tally, second) for name, tally in self._tallies.items()}

    def _stats(self, tally: _Tally, second: int) -> JobStats:
        self._forget(tally, second)
        return replace(tally.stats, processed_last_minute=sum(count for _, count in tally.recent))

    @staticmethod
    def _took(stats: JobStats, seconds: float) -> None:
        stats.seconds_sum += seconds
        if stats.seconds_min is None or seconds < stats.seconds_min:
            stats.seconds_min = seconds
        if stats.seconds_max is None or seconds > stats.seconds_max:
            stats.seconds_max = seconds

    @staticmethod
    def _forget(tally: _Tally, second: int) -> None:
        while tally.recent and tally.recent[0][0] <= second - WINDOW_SECONDS:
            tally.recent.popleft()
