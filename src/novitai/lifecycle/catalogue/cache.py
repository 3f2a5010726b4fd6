# SPDX-License-Identifier: Apache-2.0
"""In-memory caches with counters. Every cache can be cleared at any time without loss."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cachetools import LRUCache

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


class _Entries(LRUCache[str, _Entry[V]]):
    """An LRU store that counts its evictions."""

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size)
        self.evictions = 0

    def popitem(self) -> tuple[str, _Entry[V]]:
        self.evictions += 1
        return super().popitem()


class Cache(Generic[V]):
    """A bounded cache with one load per key at a time: concurrent callers wait for the same load.

    If loading fails with one of the exceptions in `tolerates`, an expired value is returned for up
    to `stale_for` seconds after its `ttl`.
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
    ) -> None:
        self.name = name
        self.ttl = ttl
        self._clock = clock
        self._stale_for = stale_for
        self._tolerates = tolerates
        self._entries: _Entries[V] = _Entries(max_size)
        self._flights: dict[str, asyncio.Future[V]] = {}
        self._hits = self._misses = self._expired = 0

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
        entry = self._entries.get(key)
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

    def peek(self, key: str, holds: Callable[[V], bool] = lambda _value: True) -> V | None:
        """Return a fresh value without loading; count a hit or a miss.

        Args:
            key: The key.
            holds: Returns whether a fresh value is still valid; if not, it is a miss.
        """
        entry = self._entries.get(key)
        if entry is None or self._age(entry) >= self.ttl or not holds(entry.value):
            self._misses += 1
            return None
        self._hits += 1
        return entry.value

    def put(self, key: str, value: V) -> None:
        """Store a value."""
        self._entries[key] = _Entry(value, self._clock.monotonic())

    def discard(self, key: str) -> bool:
        """Remove a key; return whether it was present."""
        return self._entries.pop(key, None) is not None

    def clear(self) -> int:
        """Remove every entry; return how many there were."""
        removed = len(self._entries)
        self._entries.clear()
        return removed

    def cleanup(self) -> int:
        """Remove the expired entries; return how many there were."""
        old = [key for key, entry in self._entries.items() if self._age(entry) >= self.ttl]
        for key in old:
            del self._entries[key]
        self._expired += len(old)
        return len(old)

    def stats(self) -> CacheStats:
        """Return the counters."""
        return CacheStats(
            self.name,
            self._hits,
            self._misses,
            len(self._entries),
            int(self._entries.maxsize),
            self.ttl,
            self._entries.evictions,
            self._expired,
        )

    def keys(self) -> list[CacheKey]:
        """List the keys with their ages."""
        return [
            CacheKey(key, age, max(0.0, self.ttl - age))
            for key, entry in self._entries.items()
            for age in (self._age(entry),)
        ]

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
