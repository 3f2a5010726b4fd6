# SPDX-License-Identifier: Apache-2.0
"""`/api/cache`: looking into the caches and emptying them. They hold copies only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.answers import json_answer, json_reply
from novitai.api.openapi.document import Parameter
from novitai.api.openapi.lifecycle_schemas import NoFields
from novitai.api.openapi.schemas import (
    CacheChangedResponse,
    CacheDeletedResponse,
    CacheDetails,
    CachesResponse,
    ClearCacheRequest,
)
from novitai.api.routes.metrics import ratio
from novitai.api.routing.once import run_once
from novitai.api.routing.router import Call, Operation
from novitai.api.services import Services
from novitai.clock import iso
from novitai.domain.api_key import Scope
from novitai.domain.fields import Fields, text
from novitai.domain.view import View
from novitai.errors import FieldError, NotFound, ValidationFailed
from novitai.lifecycle.catalogue.cache import CacheStats
from novitai.lifecycle.commands.idempotency import Command, Done

T = TypeVar("T")

_NAME: Final = Parameter("cacheName", "The cache's name", {"type": "string"}, "path")
_KEY: Final = Parameter("key", "A key in the cache", {"type": "string"}, "path")
_NO_CACHE: Final = NotFound("There is no cache named 'x'", code="CACHE_NOT_FOUND")
_NO_KEY: Final = NotFound("There is no key 'x' in cache 'templates'", code="CACHE_KEY_NOT_FOUND")
_BAD_NAME: Final = ValidationFailed(
    "Validation failed", details=[FieldError("cacheName", "Cache name must be a string", 7)]
)


class CacheRoutes:
    """Handlers of the cache routes."""

    def __init__(self, services: Services) -> None:
        self._caches = services.caches
        self._commands = services.commands
        self._clock = services.clock

    def operations(self) -> list[Operation]:
        """Declare the routes."""
        return [
            Operation(
                method="GET",
                path="/api/cache/stats",
                handler=self.overview,
                scope=Scope.READ,
                tag="Cache",
                summary="Statistics of all caches",
                answers={200: CachesResponse},
            ),
            Operation(
                method="GET",
                path="/api/cache/{cacheName:id}/stats",
                handler=self.one,
                scope=Scope.READ,
                tag="Cache",
                summary="Statistics and keys of one cache",
                answers={200: CacheDetails},
                parameters=[_NAME],
                errors=[_NO_CACHE],
            ),
            Operation(
                method="POST",
                path="/api/cache/clear",
                handler=self.clear,
                scope=Scope.ADMIN,
                tag="Cache",
                summary="Clear one cache or all",
                answers={200: CacheChangedResponse},
                body=ClearCacheRequest,
                errors=[_BAD_NAME, _NO_CACHE],
            ),
            Operation(
                method="POST",
                path="/api/cache/cleanup",
                handler=self.cleanup,
                scope=Scope.ADMIN,
                tag="Cache",
                summary="Remove what has expired",
                answers={200: CacheChangedResponse},
                body=NoFields,
            ),
            Operation(
                method="DELETE",
                path=paths.CACHE_KEY,
                handler=self.discard,
                scope=Scope.ADMIN,
                tag="Cache",
                summary="Delete one key",
                answers={200: CacheDeletedResponse},
                body=NoFields,
                parameters=[_NAME, _KEY],
                errors=[_NO_CACHE, _NO_KEY],
            ),
        ]

    async def overview(self, _call: Call) -> Response:
        """Tell how every cache does, and all of them together."""
        stats = [cache.stats() for cache in self._caches]
        hits, misses = sum(one.hits for one in stats), sum(one.misses for one in stats)
        return json_answer(
            {
                "timestamp": self._now(),
                "caches": {one.name: _shown(one) for one in stats},
                "summary": {
                    "totalCaches": len(stats),
                    "totalEntries": sum(one.size for one in stats),
                    "totalHits": hits,
                    "totalMisses": misses,
                    "overallHitRatio": ratio(hits, misses),
                },
            }
        )

    async def one(self, call: Call) -> Response:
        """Tell how one cache does, with its keys, their age and the time they have left."""
        cache = self._caches.named(call.request.path_params["cacheName"])
        held = cache.keys()
        keys = [
            {
                "key": key.key,
                "ageSeconds": round(key.age, 3),
                "timeLeftSeconds": round(key.time_left, 3),
            }
            for key in held
        ]
        stats = cache.stats()
        shown = {"cacheName": cache.name, "timestamp": self._now(), **_shown(stats), "keys": keys}
        return json_answer(shown)

    async def clear(self, call: Call) -> Response:
        """Empty one cache, or all where none is named. Nothing is lost but time."""
        body = await call.body(optional=True)
        fields = Fields(body.fields)
        name = fields.read("cacheName", text("Cache name", longest=64), "")
        fields.finish()

        def clear() -> View:
            if name:
                removed = self._caches.named(name).clear()
                return self._changed(f"Cache '{name}' cleared successfully", removed)
            removed = sum(cache.clear() for cache in self._caches)
            return self._changed("All caches cleared successfully", removed)

        return await run_once(self._commands, call, body, _at_once(clear), json_reply)

    async def cleanup(self, call: Call) -> Response:
        """Remove from all caches what is no longer fresh."""
        body = await call.no_fields()

        def cleanup() -> View:
            removed = sum(cache.cleanup() for cache in self._caches)
            return self._changed("Expired entries cleaned up", removed)

        return await run_once(self._commands, call, body, _at_once(cleanup), json_reply)

    async def discard(self, call: Call) -> Response:
        """Delete one key of one cache."""
        name, key = call.request.path_params["cacheName"], call.request.path_params["key"]
        body = await call.no_fields()

        def discard() -> View:
            if not self._caches.named(name).discard(key):
                raise NotFound(
                    f"There is no key '{key}' in cache '{name}'", code="CACHE_KEY_NOT_FOUND"
                )
            return self._told(message=f"Key '{key}' deleted from cache '{name}'")

        return await run_once(self._commands, call, body, _at_once(discard), json_reply)

    def _changed(self, message: str, removed: int) -> View:
        return self._told(message=message, entriesRemoved=removed)

    def _told(self, message: str, **more: int) -> View:
        return {"message": message, "timestamp": self._now(), **more}

    def _now(self) -> str:
        return iso(self._clock.now())


def _at_once(act: Callable[[], T]) -> Command[T]:
    """Make a command of what touches nothing but copies in memory."""

    async def prepare(_deadline: int | None) -> Done[T]:
        return Done(act())

    return Command(prepare)


def _shown(stats: CacheStats) -> Mapping[str, object]:
    return {
        "hits": stats.hits,
        "misses": stats.misses,
        "hitRatio": ratio(stats.hits, stats.misses),
        "size": stats.size,
        "maxSize": stats.max_size,
        "ttlSeconds": stats.ttl,
        "evictions": stats.evictions,
        "expired": stats.expired,
    }
