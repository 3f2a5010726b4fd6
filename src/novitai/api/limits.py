# SPDX-License-Identifier: Apache-2.0
"""Token buckets in memory, one per key, in their GCRA form: exact, one number a bucket.

A full bucket is the same as no bucket, so what has refilled is forgotten, and memory is bounded by
those who called within the last minute or so.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from novitai.clock import Clock

_MAX_BUCKETS: Final = 100_000
_HAIR: Final = 1e-9


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


class Buckets:
    """Buckets of one quota, by key."""

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
        interval, capacity = self.quota.interval, self.quota.capacity
        full_at = max(now, self._full_at.get(key, now))
        # Tokens that are missing once this one is taken; a hair less forgives rounding.
        missing = (full_at - now) / interval + 1 - _HAIR
        if missing > capacity:
            wait = (missing - capacity) * interval
            return Taken(False, 0, _whole(full_at - now), max(1, math.ceil(wait)))
        full_at += interval
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._max:
            self._full_at.popitem(last=False)
        return Taken(True, math.floor(capacity - missing), _whole(full_at - now), 0)

    def _forget(self, now: float) -> None:
        # A couple at each turn keeps up with one that is added at each turn. One that is used last
        # needs not be full last, so a live one in front only delays those behind it.
        for _ in range(2):
            oldest = next(iter(self._full_at), None)
            if oldest is None or self._full_at[oldest] > now:
                return
            del self._full_at[oldest]


def _whole(seconds: float) -> int:
    return math.ceil(seconds - _HAIR)
