# SPDX-License-Identifier: Apache-2.0
"""Token buckets, one per key, in their GCRA form: exact, one number a bucket.

These buckets are in memory; those in `novitai.api.http.shared_limits` are shared by several
processes. A full bucket equals no bucket, so refilled buckets are dropped and memory is bounded by
the callers of the last minute.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Protocol

from novitai.clock import Clock

_MAX_BUCKETS: Final = 100_000
_HAIR: Final = 1e-9
_CROWD: Final = ""
"""The bucket of all who come when there is no room for another; no key is blank."""


@dataclass(frozen=True, slots=True)
class Quota:
    """A bucket's size, and how many tokens come back each minute."""

    capacity: int
    per_minute: int

    @property
    def interval(self) -> float:
        """Seconds until one token comes back."""
        return 60.0 / self.per_minute


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of asking for a token. Seconds are whole, and waiting that long is enough.

    Attributes:
        allowed: Whether there was one.
        remaining: How many are left.
        reset: Seconds until the bucket is full again.
        retry_after: Seconds until there is one; 0 if there was.
    """

    allowed: bool
    remaining: int
    reset: int
    retry_after: int


class RateLimiter(Protocol):
    """Whoever decides whether a key has a token left."""

    @property
    def quota(self) -> Quota:
        """The size of each bucket."""
        ...

    async def take(self, key: str) -> Taken:
        """Take a token of `key`'s bucket, if there is one."""
        ...


class LocalLimiter:
    """Buckets in the memory of this process."""

    def __init__(self, quota: Quota, clock: Clock) -> None:
        self.quota = quota
        self._buckets = Buckets(quota, clock)

    async def take(self, key: str) -> Taken:
        """Take a token of `key`'s bucket, if there is one."""
        return self._buckets.take(key)


class Buckets:
    """Buckets of one quota, by key.

    No bucket that has not refilled is ever forgotten: when `max_buckets` are remembered, the last
    of them is for all further keys together. So keys that a stranger makes up push out nobody who
    is limited.
    """

    def __init__(self, quota: Quota, clock: Clock, *, max_buckets: int = _MAX_BUCKETS) -> None:
        self.quota = quota
        self._clock = clock
        self._max = max_buckets
        # When each bucket will be full again, in steady seconds; those used last stand last.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """How many buckets are remembered."""
        return len(self._full_at)

    def take(self, key: str) -> Taken:
        """Take a token of `key`'s bucket, if there is one."""
        now = self._clock.monotonic()
        self._forget(now)
        if key not in self._full_at and len(self._full_at) >= self._max - 1:
            key = _CROWD
        interval, capacity = self.quota.interval, self.quota.capacity
        full_at = max(now, self._full_at.get(key, now))
        # Tokens that are missing once this one is taken; a hair less forgives rounding.
        missing = (full_at - now) / interval + 1 - _HAIR
        if missing > capacity:
            return refused(full_at - now, (missing - capacity) * interval)
        full_at += interval
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        return allowed(self.quota, full_at - now)

    def _forget(self, now: float) -> None:
        # A couple at each turn keeps up with one that is added at each turn. One that is used last
        # needs not be full last, so a live one in front only delays those behind it.
        for _ in range(2):
            oldest = next(iter(self._full_at), None)
            if oldest is None or self._full_at[oldest] > now:
                return
            del self._full_at[oldest]


def allowed(quota: Quota, until_full: float) -> Taken:
    """Tell of a token that was taken; `until_full` in seconds, as it is afterwards."""
    left = math.floor(quota.capacity - until_full / quota.interval + _HAIR)
    return Taken(True, left, _whole(until_full), 0)


def refused(until_full: float, wait: float) -> Taken:
    """Tell that there was no token; both in seconds."""
    return Taken(False, 0, _whole(until_full), max(1, math.ceil(wait)))


def _whole(seconds: float) -> int:
    return math.ceil(seconds - _HAIR)
