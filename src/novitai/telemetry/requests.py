# SPDX-License-Identifier: Apache-2.0
"""Counts and durations of requests, in memory that does not grow with the number of requests.

Keys are route templates (`GET /api/instances/{instanceId}`), never paths, so they are few.
Durations are in seconds here; the API converts them. A request that is held open on purpose, such
as a long poll, is counted but not timed.
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
"""Upper bounds of the histogram of durations, in seconds."""

UNMATCHED: Final = "(unmatched)"
"""The route template under which requests that match no route are counted."""

_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
OTHER_METHOD: Final = "OTHER"


@dataclass(slots=True)
class Durations:
    """The number of requests, and the durations in seconds of those that are timed."""

    count: int = 0
    timed: int = 0
    total: float = 0.0
    least: float = 0.0
    most: float = 0.0

    @property
    def average(self) -> float:
        """The mean duration; 0 if no request was timed."""
        return self.total / self.timed if self.timed else 0.0

    def add(self, seconds: float | None) -> None:
        """Count one request; `seconds` is None if it is not timed."""
        self.count += 1
        if seconds is None:
            return
        self.least = min(self.least, seconds) if self.timed else seconds
        self.most = max(self.most, seconds)
        self.timed += 1
        self.total += seconds


@dataclass(slots=True)
class RouteNumbers:
    """One method of one route: durations, their histogram, and responses by status."""

    durations: Durations = field(default_factory=Durations)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    statuses: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LastMinute:
    """The last 60 seconds. `error_rate` is the share of 5xx, between 0 and 1.

    `average` is the mean duration of the requests that are timed.
    """

    count: int
    average: float
    error_rate: float


@dataclass(slots=True)
class _Second:
    at: int
    count: int = 0
    timed: int = 0
    errors: int = 0
    total: float = 0.0


class RequestMetrics:
    """Counts and durations of the requests answered since the process started."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._routes: dict[tuple[str, str], RouteNumbers] = {}
        self._seconds = [_Second(-1) for _ in range(WINDOW_SECONDS)]

    def observe(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Count one answered request.

        Args:
            method: The HTTP method; unknown methods are counted together.
            route: The route's template, or `UNMATCHED`.
            status: The HTTP status of the response.
            seconds: How long it took; None if it was held open on purpose.
        """
        key = (method if method in _METHODS else OTHER_METHOD, route)
        counted = self._routes.get(key)
        if counted is None:
            counted = self._routes[key] = RouteNumbers()
        counted.durations.add(seconds)
        if seconds is not None:
            counted.buckets[bisect_left(BUCKETS, seconds)] += 1
        counted.statuses[status] = counted.statuses.get(status, 0) + 1
        at = int(self._clock.monotonic())
        slot = self._seconds[at % WINDOW_SECONDS]
        if slot.at != at:
            self._seconds[at % WINDOW_SECONDS] = slot = _Second(at)
        slot.count += 1
        slot.errors += status >= 500
        if seconds is not None:
            slot.timed += 1
            slot.total += seconds

    @property
    def routes(self) -> Mapping[tuple[str, str], RouteNumbers]:
        """The counts by method and route template."""
        return self._routes

    def total(self) -> Durations:
        """All requests together."""
        return _sum([route.durations for route in self._routes.values()])

    def statuses(self) -> dict[int, int]:
        """The number of responses by status code, in ascending order."""
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
        """The requests answered during the last 60 seconds."""
        since = int(self._clock.monotonic()) - WINDOW_SECONDS
        recent = [second for second in self._seconds if second.at > since and second.at >= 0]
        count = sum(second.count for second in recent)
        if not count:
            return LastMinute(0, 0.0, 0.0)
        timed = sum(second.timed for second in recent)
        return LastMinute(
            count,
            sum(second.total for second in recent) / timed if timed else 0.0,
            sum(second.errors for second in recent) / count,
        )


def _sum(parts: list[Durations]) -> Durations:
    timed = [part for part in parts if part.timed]
    return Durations(
        count=sum(part.count for part in parts),
        timed=sum(part.timed for part in timed),
        total=sum(part.total for part in timed),
        least=min((part.least for part in timed), default=0.0),
        most=max((part.most for part in timed), default=0.0),
    )
