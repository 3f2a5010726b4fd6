# SPDX-License-Identifier: Apache-2.0
"""Caches of copies, with counters. Every cache may be emptied at any moment without loss."""

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
    """What a cache did since the process started. `ttl` in seconds; `expired` counts removals."""

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
    """A key in a cache: seconds since it was stored, and until it is no longer fresh."""

    key: str
    age: float
    time_left: float


@dataclass(slots=True)
class _Entry(Generic[V]):
    value: V
    stored_at: float


class _Entries(LRUCache[str, _Entry[V]]):
    """The least recently used entries go first, and are counted."""

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size)
        self.evictions = 0

    def popitem(self) -> tuple[str, _Entry[V]]:
        self.evictions += 1
        return super().popitem()


class Cache(Generic[V]):
    """A bounded cache whose misses fly once: callers of one key wait for the same load.

    `stale_for`: for how many seconds after `ttl` an old value is still given when loading fails
    in a way that `tolerates` says is not the caller's fault.
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
            key: What to look for.
            load: Called at most once at a time for a key, however many wait for it.
            max_age: How old the value may be; the cache's `ttl` unless given.

        Raises:
            Exception: whatever `load` raises, where no stale value may stand in.
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
                raise  # who names an age means it
            if self._age(entry) >= self.ttl + self._stale_for:
                raise
            return entry.value

    def peek(self, key: str, holds: Callable[[V], bool] = lambda _value: True) -> V | None:
        """Return a fresh value without loading; counted as a hit or a miss.

        Args:
            key: What to look for.
            holds: Says of a fresh value whether it is still true; one that is not is a miss.
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
        """Remove a key; tell whether it was there."""
        return self._entries.pop(key, None) is not None

    def clear(self) -> int:
        """Remove every entry; return how many there were."""
        removed = len(self._entries)
        self._entries.clear()
        return removed

    def cleanup(self) -> int:
        """Remove the entries that are no longer fresh; return how many there were."""
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
            flight.exception()  # seen: whoever waited has it, and nobody else needs it


class Caches:
    """The caches there are, by name; looked into and emptied, whatever each holds."""

    def __init__(self, *caches: Cache[Any]) -> None:
        self._caches = {cache.name: cache for cache in caches}

    def __iter__(self) -> Iterator[Cache[Any]]:
        return iter(self._caches.values())

    def named(self, name: str) -> Cache[Any]:
        """Find a cache.

        Raises:
            NotFound: `CACHE_NOT_FOUND`, naming those there are.
        """
        if name not in self._caches:
            raise NotFound(
                f"There is no cache named '{name}'; there are {', '.join(sorted(self._caches))}",
                code="CACHE_NOT_FOUND",
            )
        return self._caches[name]
