# SPDX-License-Identifier: Apache-2.0
"""Token buckets, one per key, implemented as GCRA: exact, and one number per bucket.

These buckets are in memory; `novitai.api.http.shared_limits` shares buckets between processes. A
full bucket need not be stored, so refilled buckets are removed and memory is bounded by the callers
of the last minute.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple, Protocol

from novitai.clock import Clock

_MAX_BUCKETS: Final = 100_000
_HAIR: Final = 1e-9
_CROWD: Final = ""
"""The key of the bucket that callers share once the limit is reached; no other key is blank."""


@dataclass(frozen=True)
class Quota:
    """The size of a bucket, and the tokens added per minute."""

    capacity: int
    per_minute: int

    @cached_property
    def interval(self) -> float:
        """Seconds until one token is added."""
        return 60.0 / self.per_minute


class Taken(NamedTuple):
    """The result of taking a token. Seconds are rounded up, so waiting that long is enough.

    Attributes:
        allowed: Whether a token was taken.
        remaining: The number of tokens left.
        reset: Seconds until the bucket is full.
        retry_after: Seconds until a token is available; 0 if one was taken.
    """

    allowed: bool
    remaining: int
    reset: int
    retry_after: int


class RateLimiter(Protocol):
    """Takes tokens from the buckets of keys."""

    @property
    def quota(self) -> Quota:
        """The quota of each bucket."""
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

    A bucket is removed only after it has refilled. When `max_buckets` exist, all further keys share
    the last one, so invented keys cannot evict the bucket of a limited caller.
    """

    def __init__(self, quota: Quota, clock: Clock, *, max_buckets: int = _MAX_BUCKETS) -> None:
        self.quota = quota
        self._clock = clock
        self._max = max_buckets
        # When each bucket will be full, in monotonic seconds; least recently used first.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of stored buckets."""
        return len(self._full_at)

    def take(self, key: str) -> Taken:
        """Take a token of `key`'s bucket, if there is one."""
        now = self._clock.monotonic()
        self._forget(now)
        if key not in self._full_at and len(self._full_at) >= self._max - 1:
            key = _CROWD
        interval, capacity = self.quota.interval, self.quota.capacity
        full_at = max(now, self._full_at.get(key, now))
        # Tokens missing after this one is taken; `_HAIR` less, to tolerate rounding errors.
        missing = (full_at - now) / interval + 1 - _HAIR
        if missing > capacity:
            return refused(full_at - now, (missing - capacity) * interval)
        full_at += interval
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        return allowed(self.quota, full_at - now)

    def _forget(self, now: float) -> None:
        # Each call adds at most one bucket, so removing two keeps up. The order is by last use, not
        # by refill time: a bucket in front that is not full only delays the removal of others.
        for _ in range(2):
            oldest = next(iter(self._full_at), None)
            if oldest is None or self._full_at[oldest] > now:
                return
            del self._full_at[oldest]


def allowed(quota: Quota, until_full: float) -> Taken:
    """Build the result of a taken token; `until_full` is in seconds, after the token was taken."""
    left = math.floor(quota.capacity - until_full / quota.interval + _HAIR)
    return Taken(True, left, _whole(until_full), 0)


def refused(until_full: float, wait: float) -> Taken:
    """Build the result of a missing token; both arguments are in seconds."""
    return Taken(False, 0, _whole(until_full), max(1, math.ceil(wait)))


def _whole(seconds: float) -> int:
    return math.ceil(seconds - _HAIR)
