# SPDX-License-Identifier: Apache-2.0
"""`/api/cache`: inspect and clear the caches, which hold only copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.answers import answer, reply
from novitai.api.routes.metrics import ratio
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.caches import (
    CacheChangedResponse,
    CacheDeletedResponse,
    CacheDetails,
    CacheKeyView,
    CachesResponse,
    CachesSummary,
    CacheStatsView,
    ClearCacheRequest,
)
from novitai.api.schemas.wire import NoFields
from novitai.api.services import Services
from novitai.domain.api_key import Scope
from novitai.errors import FieldError, NotFound, ValidationFailed
from novitai.lifecycle.catalogue.cache import CacheStats
from novitai.lifecycle.commands.idempotency import Command, Completed

T = TypeVar("T")

_NO_CACHE: Final = NotFound("There is no cache named 'x'", code="CACHE_NOT_FOUND")
_NO_KEY: Final = NotFound("There is no key 'x' in cache 'templates'", code="CACHE_KEY_NOT_FOUND")
_BAD_NAME: Final = ValidationFailed(
    "Validation failed", details=[FieldError("cacheName", "Cache name must be a string", 7)]
)


class CacheRoutes:
    """Handlers of the cache routes."""

    def __init__(self, services: Services) -> None:
        self._caches = services.caches
        self._clock = services.clock

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [
            Route(
                method="GET",
                path="/api/cache/stats",
                id="getCacheStats",
                handler=self.overview,
                scope=Scope.READ,
                tag="Cache",
                summary="Read the statistics of all caches",
                answers={200: CachesResponse},
            ),
            Route(
                method="GET",
                path="/api/cache/{cacheName:id}/stats",
                id="getCacheStatsByName",
                handler=self.one,
                scope=Scope.READ,
                tag="Cache",
                summary="Read the statistics and keys of one cache",
                answers={200: CacheDetails},
                errors=[_NO_CACHE],
            ),
            Route(
                method="POST",
                path="/api/cache/clear",
                id="clearCaches",
                handler=self.clear,
                scope=Scope.ADMIN,
                tag="Cache",
                summary="Clear one cache or all caches",
                answers={200: CacheChangedResponse},
                errors=[_BAD_NAME, _NO_CACHE],
            ),
            Route(
                method="POST",
                path="/api/cache/cleanup",
                id="removeExpiredCacheEntries",
                handler=self.cleanup,
                scope=Scope.ADMIN,
                tag="Cache",
                summary="Remove expired entries",
                answers={200: CacheChangedResponse},
            ),
            Route(
                method="DELETE",
                path=paths.CACHE_KEY,
                id="deleteCacheKey",
                handler=self.discard,
                scope=Scope.ADMIN,
                tag="Cache",
                summary="Delete one key",
                answers={200: CacheDeletedResponse},
                errors=[_NO_CACHE, _NO_KEY],
            ),
        ]

    async def overview(self, _call: RouteCall) -> Response:
        """Read the statistics of each cache, and their totals."""
        stats = [cache.stats() for cache in self._caches]
        hits, misses = sum(one.hits for one in stats), sum(one.misses for one in stats)
        return answer(
            CachesResponse(
                timestamp=self._clock.now(),
                caches={one.name: _shown(one) for one in stats},
                summary=CachesSummary(
                    total_caches=len(stats),
                    total_entries=sum(one.size for one in stats),
                    total_hits=hits,
                    total_misses=misses,
                    overall_hit_ratio=ratio(hits, misses),
                ),
            )
        )

    async def one(self, call: RouteCall) -> Response:
        """Read the statistics of one cache, and its keys with age and remaining lifetime."""
        cache = self._caches.named(call.named("cacheName"))
        held = cache.keys()
        keys = [
            CacheKeyView(
                key=one.key,
                age_seconds=round(one.age, 3),
                time_left_seconds=round(one.time_left, 3),
            )
            for one in held
        ]
        return answer(
            CacheDetails(
                **dict(_shown(cache.stats())),
                cache_name=cache.name,
                timestamp=self._clock.now(),
                keys=keys,
            )
        )

    async def clear(self, call: RouteCall, body: ClearCacheRequest) -> Response:
        """Clear one cache, or all if none is named. No data is lost; the caches refill."""
        name = body.cache_name

        def clear() -> CacheChangedResponse:
            if name:
                removed = self._caches.named(name).clear()
                return self._changed(f"Cache '{name}' cleared successfully", removed)
            removed = sum(cache.clear() for cache in self._caches)
            return self._changed("All caches cleared successfully", removed)

        return await call.run_once(_at_once(clear), reply)

    async def cleanup(self, call: RouteCall, body: NoFields) -> Response:
        """Remove expired entries from all caches."""

        def cleanup() -> CacheChangedResponse:
            removed = sum(cache.cleanup() for cache in self._caches)
            return self._changed("Expired entries cleaned up", removed)

        return await call.run_once(_at_once(cleanup), reply)

    async def discard(self, call: RouteCall, body: NoFields) -> Response:
        """Delete one key of one cache."""
        name, key = call.named("cacheName"), call.named("key")

        def discard() -> CacheDeletedResponse:
            if not self._caches.named(name).discard(key):
                raise NotFound(
                    f"There is no key '{key}' in cache '{name}'", code="CACHE_KEY_NOT_FOUND"
                )
            return CacheDeletedResponse(
                message=f"Key '{key}' deleted from cache '{name}'", timestamp=self._clock.now()
            )

        return await call.run_once(_at_once(discard), reply)

    def _changed(self, message: str, removed: int) -> CacheChangedResponse:
        return CacheChangedResponse(
            message=message, timestamp=self._clock.now(), entries_removed=removed
        )


def _at_once(act: Callable[[], T]) -> Command[T]:
    """Build a command from an action that changes only caches in memory."""

    async def prepare(_deadline: int | None) -> Completed[T]:
        return Completed(act())

    return Command(prepare)


def _shown(stats: CacheStats) -> CacheStatsView:
    return CacheStatsView(
        hits=stats.hits,
        misses=stats.misses,
        hit_ratio=ratio(stats.hits, stats.misses),
        size=stats.size,
        max_size=stats.max_size,
        ttl_seconds=stats.ttl,
        evictions=stats.evictions,
        expired=stats.expired,
    )
