# SPDX-License-Identifier: Apache-2.0
"""Copies are bounded, loaded once, and never older than was asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from novitai.lifecycle.catalogue.cache import Cache
from novitai.testing import ManualClock
from novitai.upstream.errors import KeyRefused, ServerError


async def test_who_names_an_age_gets_no_older_copy() -> None:
    """A price limit is kept against today's price, or not at all."""
    clock = ManualClock()
    cache: Cache[str] = Cache(
        "products", clock, ttl=30, max_size=5, stale_for=86_400, tolerates=(ServerError,)
    )

    async def known() -> str:
        return "yesterday's price"

    async def away() -> str:
        raise ServerError("away", http_status=503)

    await cache.get("key", known)
    await clock.advance(20 * 3600)
    assert await cache.get("key", away) == "yesterday's price"
    with pytest.raises(ServerError):
        await cache.get("key", away, max_age=0)


async def test_callers_of_one_key_wait_for_the_same_load() -> None:
    """Ten that miss at once cause one call; the next caller gets the copy."""
    cache: Cache[int] = Cache("products", ManualClock(), ttl=30, max_size=5)
    begun, go = 0, asyncio.Event()

    async def load() -> int:
        nonlocal begun
        begun += 1
        await go.wait()
        return 7

    waiting = [asyncio.create_task(cache.get("key", load)) for _ in range(10)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    go.set()
    assert await asyncio.gather(*waiting[1:]) == [7] * 9
    assert await cache.get("key", load) == 7
    assert begun == 1
    assert (cache.stats().hits, cache.stats().misses) == (1, 10)


async def test_a_failure_is_not_kept() -> None:
    """The next caller loads again."""
    cache: Cache[int] = Cache("products", ManualClock(), ttl=30, max_size=5)

    async def away() -> int:
        raise ServerError("away", http_status=503)

    async def known() -> int:
        return 7

    with pytest.raises(ServerError):
        await cache.get("key", away)
    assert cache.stats().size == 0
    assert await cache.get("key", known) == 7


async def test_a_stale_copy_stands_in_for_a_limited_time() -> None:
    """It does for failures that are tolerated, until `stale_for` is over."""
    clock = ManualClock()
    cache: Cache[int] = Cache(
        "products", clock, ttl=30, max_size=5, stale_for=60, tolerates=(ServerError,)
    )

    async def away() -> int:
        raise ServerError("away", http_status=503)

    async def refused() -> int:
        raise KeyRefused("no")

    cache.put("key", 7)
    await clock.advance(89)
    assert await cache.get("key", away) == 7
    with pytest.raises(KeyRefused):
        await cache.get("key", refused)
    await clock.advance(1)
    with pytest.raises(ServerError):
        await cache.get("key", away)


def test_the_least_recently_used_entry_is_evicted() -> None:
    """The cache is bounded, and counts what it evicts."""
    cache: Cache[int] = Cache("products", ManualClock(), ttl=30, max_size=2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.peek("a") == 1
    cache.put("c", 3)
    assert sorted(entry.key for entry in list(cache.keys())) == ["a", "c"]
    assert cache.stats().evictions == 1


async def test_a_clean_up_removes_what_is_no_longer_fresh() -> None:
    """Fresh entries stay; the others are counted as expired."""
    clock = ManualClock()
    cache: Cache[int] = Cache("products", clock, ttl=30, max_size=5, stale_for=60)
    cache.put("old", 1)
    await clock.advance(30)
    cache.put("new", 2)
    assert cache.cleanup() == 1
    assert [(entry.key, entry.time_left) for entry in list(cache.keys())] == [("new", 30.0)]
    assert cache.stats().expired == 1


def keys_of(cache: Cache[Any]) -> list[str]:
    """Return the keys, least recently used first."""
    kept = cache.keys()
    return [one.key for one in kept]


async def test_what_is_never_asked_for_again_does_not_stay() -> None:
    """New copies take the place of those too old to be returned, long before the cache is full."""
    clock = ManualClock()
    cache: Cache[int] = Cache("details", clock, ttl=60, max_size=1_000, stale_for=30)
    for number in range(300):
        cache.put(str(number), number)
        await clock.advance(1)
    assert keys_of(cache) == [str(number) for number in range(210, 300)]
    stats = cache.stats()
    assert (stats.size, stats.evictions, stats.expired) == (90, 0, 210)


def test_the_weight_of_all_copies_is_bounded() -> None:
    """The least recently used go first, and one that is too heavy is not kept."""
    cache: Cache[bytes] = Cache(
        "lists", ManualClock(), ttl=30, max_size=10, max_weight=10, weigh=len
    )
    for key, size in (("a", 4), ("b", 4), ("a", 3), ("c", 3)):
        cache.put(key, bytes(size))
    assert keys_of(cache) == ["b", "a", "c"]
    assert cache.peek("b") is not None
    cache.put("d", bytes(5))
    assert keys_of(cache) == ["b", "d"]
    cache.put("b", bytes(11))
    assert keys_of(cache) == ["d"]
    assert cache.stats().evictions == 2
    cache.clear()
    cache.put("e", bytes(10))
    assert cache.peek("e") is not None
