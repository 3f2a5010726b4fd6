# SPDX-License-Identifier: Apache-2.0
"""In-memory caches with counters. Every cache can be cleared at any time without loss."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from novitai.clock import Clock
from novitai.errors import NotFound

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counters since the process started. `ttl` is in seconds; `expired` counts removals."""

    name: str
    hits: int
    misses: int
    size: int
    max_size: int
    ttl: float
    evictions: int
    expired: int


@dataclass(frozen=True, slots=True)
class CacheKey:
    """A key of a cache, with its age and the time until it expires, in seconds."""

    key: str
    age: float
    time_left: float


@dataclass(slots=True)
class _Entry(Generic[V]):
    value: V
    stored_at: float
    weight: int


class Cache(Generic[V]):
    """A bounded cache with one load per key at a time: concurrent callers wait for the same load.

    If loading fails with one of the exceptions in `tolerates`, an expired value is returned for up
    to `stale_for` seconds after its `ttl`. With `max_weight`, the sum of the values' weights is
    bounded too; a value that is heavier is not kept.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        ttl: float,
        max_size: int,
        stale_for: float = 0,
        tolerates: tuple[type[Exception], ...] = (),
        max_weight: int | None = None,
        weigh: Callable[[V], int] = lambda _value: 1,
    ) -> None:
        self.name = name
        self.ttl = ttl
        self._clock = clock
        self._stale_for = stale_for
        self._tolerates = tolerates
        self._max_size = max_size
        self._max_weight = max_weight
        self._weigh = weigh
        self._weight = 0
        # Least recently used first.
        self._entries: OrderedDict[str, _Entry[V]] = OrderedDict()
        self._flights: dict[str, asyncio.Future[V]] = {}
        self._hits = self._misses = self._expired = self._evictions = 0

    async def get(
        self, key: str, load: Callable[[], Awaitable[V]], *, max_age: float | None = None
    ) -> V:
        """Return the value of `key`, loading it if it is absent or older than `max_age` seconds.

        Args:
            key: The key.
            load: Loads the value. It is not called twice at the same time for one key.
            max_age: How old the value may be; the cache's `ttl` by default. If given, an expired
                value is never returned.

        Raises:
            Exception: the exception of `load`, if no expired value may be returned.
        """
        limit = self.ttl if max_age is None else min(max_age, self.ttl)
        entry = self._used(key)
        if entry is not None and self._age(entry) < limit:
            self._hits += 1
            return entry.value
        self._misses += 1
        try:
            return await self._load(key, load)
        except self._tolerates:
            if max_age is not None or entry is None:
                raise  # a caller that gives an age does not accept an older value
            if self._age(entry) >= self.ttl + self._stale_for:
                raise
            return entry.value

    def peek(self, key: str, holds: Callable[[V], bool] | None = None) -> V | None:
        """Return a fresh value without loading; count a hit or a miss.

        Args:
            key: The key.
            holds: Returns whether a fresh value is still valid; if not, it is a miss.
        """
        entry = self._used(key)
        if (
            entry is None
            or self._clock.monotonic() - entry.stored_at >= self.ttl
            or not (holds is None or holds(entry.value))
        ):
            self._misses += 1
            return None
        self._hits += 1
        return entry.value

    def last(self, key: str) -> V | None:
        """Return the stored value, however old, without counting a hit or a miss."""
        entry = self._used(key)
        return None if entry is None else entry.value

    def put(self, key: str, value: V) -> None:
        """Store a value."""
        self.discard(key)
        weight = self._weigh(value)
        if self._max_weight is not None and weight > self._max_weight:
            return
        self._entries[key] = _Entry(value, self._clock.monotonic(), weight)
        self._weight += weight
        while len(self._entries) > self._max_size or (
            self._max_weight is not None and self._weight > self._max_weight
        ):
            self._weight -= self._entries.popitem(last=False)[1].weight
            self._evictions += 1
        self._forget()

    def _forget(self) -> None:
        """Remove what is too old to be returned, from the least recently used on.

        Each call of `put` stores one value, so to remove two keeps up.
        """
        for _ in range(2):
            oldest = next(iter(self._entries), None)
            if oldest is None or self._age(self._entries[oldest]) < self.ttl + self._stale_for:
                return
            self.discard(oldest)
            self._expired += 1

    def discard(self, key: str) -> bool:
        """Remove a key; return whether it was present."""
        removed = self._entries.pop(key, None)
        if removed is None:
            return False
        self._weight -= removed.weight
        return True

    def clear(self) -> int:
        """Remove every entry; return how many there were."""
        removed = len(self._entries)
        self._entries.clear()
        self._weight = 0
        return removed

    def cleanup(self) -> int:
        """Remove the expired entries; return how many there were."""
        old = [key for key, entry in self._entries.items() if self._age(entry) >= self.ttl]
        for key in old:
            self.discard(key)
        self._expired += len(old)
        return len(old)

    def stats(self) -> CacheStats:
        """Return the counters."""
        return CacheStats(
            self.name,
            self._hits,
            self._misses,
            len(self._entries),
            self._max_size,
            self.ttl,
            self._evictions,
            self._expired,
        )

    def keys(self) -> list[CacheKey]:
        """List the keys with their ages."""
        return [
            CacheKey(key, age, max(0.0, self.ttl - age))
            for key, entry in self._entries.items()
            for age in (self._age(entry),)
        ]

    def _used(self, key: str) -> _Entry[V] | None:
        """Return the entry of a key, which becomes the most recently used."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def _age(self, entry: _Entry[V]) -> float:
        return self._clock.monotonic() - entry.stored_at

    async def _load(self, key: str, load: Callable[[], Awaitable[V]]) -> V:
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.ensure_future(self._fly(key, load))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._land(key, done))
        return await asyncio.shield(flight)

    async def _fly(self, key: str, load: Callable[[], Awaitable[V]]) -> V:
        value = await load()
        self.put(key, value)
        return value

    def _land(self, key: str, flight: asyncio.Future[V]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # marks it as retrieved; the callers that waited have it


class Caches:
    """All caches by name, for inspection and clearing."""

    def __init__(self, *caches: Cache[Any]) -> None:
        self._caches = {cache.name: cache for cache in caches}

    def __iter__(self) -> Iterator[Cache[Any]]:
        return iter(self._caches.values())

    def named(self, name: str) -> Cache[Any]:
        """Return a cache.

        Raises:
            NotFound: `CACHE_NOT_FOUND`; the message lists the existing caches.
        """
        if name not in self._caches:
            raise NotFound(
                f"There is no cache named '{name}'; there are {', '.join(sorted(self._caches))}",
                code="CACHE_NOT_FOUND",
            )
        return self._caches[name]
