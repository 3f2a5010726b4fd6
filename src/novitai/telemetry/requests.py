# SPDX-License-Identifier: Apache-2.0
"""Counts and durations of requests, in memory that does not grow with their number.

Keys are route templates (`GET /api/instances/{instanceId}`), never paths, so they are few.
Durations are seconds here; whoever shows them converts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from novitai.clock import Clock

WINDOW_SECONDS: Final = 60
BUCKETS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)
"""Upper bounds of the durations' histogram, in seconds."""

UNMATCHED: Final = "(unmatched)"
"""The route of requests that no route answers."""

_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
OTHER_METHOD: Final = "OTHER"


@dataclass(slots=True)
class Durations:
    """How many requests there were, and how long they took."""

    count: int = 0
    total: float = 0.0
    least: float = 0.0
    most: float = 0.0

    @property
    def average(self) -> float:
        """The mean duration; 0 where there was none."""
        return self.total / self.count if self.count else 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.least = min(self.least, seconds) if self.count else seconds
        self.most = max(self.most, seconds)
        self.count += 1
        self.total += seconds


@dataclass(slots=True)
class Route:
    """One method of one route: its durations, also as a histogram, and its answers by status."""

    durations: Durations = field(default_factory=Durations)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    statuses: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LastMinute:
    """The last 60 seconds. `error_rate` is the share of 5xx, between 0 and 1."""

    count: int
    average: float
    error_rate: float


@dataclass(slots=True)
class _Second:
    at: int
    count: int = 0
    errors: int = 0
    total: float = 0.0


class RequestMetrics:
    """What came in since the process began."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._routes: dict[tuple[str, str], Route] = {}
        self._seconds = [_Second(-1) for _ in range(WINDOW_SECONDS)]

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is its template, or `UNMATCHED`."""
        key = (method if method in _METHODS else OTHER_METHOD, route)
        counted = self._routes.get(key)
        if counted is None:
            counted = self._routes[key] = Route()
        counted.durations.add(seconds)
        counted.buckets[bisect_left(BUCKETS, seconds)] += 1
        counted.statuses[status] = counted.statuses.get(status, 0) + 1
        at = int(self._clock.monotonic())
        slot = self._seconds[at % WINDOW_SECONDS]
        if slot.at != at:
            slot.at, slot.count, slot.errors, slot.total = at, 0, 0, 0.0
        slot.count += 1
        slot.errors += status >= 500
        slot.total += seconds

    @property
    def routes(self) -> Mapping[tuple[str, str], Route]:
        """The counts by method and route template."""
        return self._routes

    def total(self) -> Durations:
        """All requests together."""
        return _sum([route.durations for route in self._routes.values()])

    def statuses(self) -> dict[int, int]:
        """All answers by status code, in rising order."""
        counts: dict[int, int] = {}
        for route in self._routes.values():
            for status, count in route.statuses.items():
                counts[status] = counts.get(status, 0) + count
        return dict(sorted(counts.items()))

    def by_method(self) -> dict[str, Durations]:
        """The durations by method."""
        methods: dict[str, list[Durations]] = {}
        for (method, _), route in self._routes.items():
            methods.setdefault(method, []).append(route.durations)
        return {method: _sum(durations) for method, durations in methods.items()}

    def last_minute(self) -> LastMinute:
        """What came in during the last 60 seconds."""
        since = int(self._clock.monotonic()) - WINDOW_SECONDS
        recent = [second for second in self._seconds if second.at > since and second.at >= 0]
        count = sum(second.count for second in recent)
        if not count:
            return LastMinute(0, 0.0, 0.0)
        return LastMinute(
            count,
            sum(second.total for second in recent) / count,
            sum(second.errors for second in recent) / count,
        )


def _sum(parts: list[Durations]) -> Durations:
    counted = [part for part in parts if part.count]
    if not counted:
        return Durations()
    return Durations(
        sum(part.count for part in counted),
        sum(part.total for part in counted),
        min(part.least for part in counted),
        max(part.most for part in counted),
    )
