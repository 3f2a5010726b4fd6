# SPDX-License-Identifier: Apache-2.0
"""The account, caches, health and metrics of a server."""

from __future__ import annotations

from typing import Final

from novitai_client.models.system import (
    Account,
    CacheDetails,
    CacheKeyDeleted,
    Caches,
    CachesChanged,
    Confirmed,
    Health,
    Metrics,
    Probe,
)
from novitai_client.surface import Method, Mode, Resource
from novitai_client.wire import body, path

_ALSO_UNHEALTHY: Final = frozenset({503})


class AccountState(Resource[Mode]):
    """The Novita account, as the server sees it."""

    @Method
    async def get(self) -> Account:
        """Read whether write calls are held, and why.

        Example:
            print(client.account.get().held)
        """
        return await self._api.fetch(Account, "GET", "/api/account")

    @Method
    async def confirm(
        self, missing_digest: str | None = None, *, idempotency_key: str | None = None
    ) -> Confirmed:
        """Confirm that the missing instances are gone, so that write calls are sent again.

        Example:
            hold = client.account.get().hold
            if hold is not None:
                client.account.confirm(hold.missing_digest)
        """
        return await self._api.fetch(
            Confirmed,
            "POST",
            "/api/account/confirm",
            content=body({"missing_digest": missing_digest}),
            key=idempotency_key,
        )


class CacheState(Resource[Mode]):
    """The caches of a server. They hold copies only."""

    @Method
    async def stats(self) -> Caches:
        """Read the statistics of all caches.

        Example:
            print(client.caches.stats().summary.overall_hit_ratio)
        """
        return await self._api.fetch(Caches, "GET", "/api/cache/stats")

    @Method
    async def get(self, cache_name: str) -> CacheDetails:
        """Read the statistics and the keys of one cache.

        Example:
            print(client.caches.get("products").keys)
        """
        return await self._api.fetch(CacheDetails, "GET", path("api", "cache", cache_name, "stats"))

    @Method
    async def clear(
        self, cache_name: str | None = None, *, idempotency_key: str | None = None
    ) -> CachesChanged:
        """Clear one cache, or all of them.

        Example:
            client.caches.clear("templates")
        """
        return await self._api.fetch(
            CachesChanged,
            "POST",
            "/api/cache/clear",
            content=body({"cache_name": cache_name}),
            key=idempotency_key,
        )

    @Method
    async def cleanup(self, *, idempotency_key: str | None = None) -> CachesChanged:
        """Remove the expired entries of all caches.

        Example:
            client.caches.cleanup()
        """
        return await self._api.fetch(
            CachesChanged, "POST", "/api/cache/cleanup", key=idempotency_key
        )

    @Method
    async def delete(
        self, cache_name: str, key: str, *, idempotency_key: str | None = None
    ) -> CacheKeyDeleted:
        """Delete one entry of a cache.

        Example:
            client.caches.delete("instance-details", "inst_1")
        """
        place = path("api", "cache", cache_name, key)
        return await self._api.fetch(CacheKeyDeleted, "DELETE", place, key=idempotency_key)


class Server(Resource[Mode]):
    """The health and the metrics of a server."""

    @Method
    async def health(self) -> Health:
        """Read the health of the server; it is a result even if it is unhealthy.

        Example:
            print(client.server.health().status)
        """
        return await self._api.fetch(Health, "GET", "/health", also=_ALSO_UNHEALTHY)

    @Method
    async def live(self) -> Probe:
        """Whether the process answers.

        Example:
            print(client.server.live().status)
        """
        return await self._api.fetch(Probe, "GET", "/health/live", also=_ALSO_UNHEALTHY)

    @Method
    async def ready(self) -> Probe:
        """Whether the database answers.

        Example:
            print(client.server.ready().status)
        """
        return await self._api.fetch(Probe, "GET", "/health/ready", also=_ALSO_UNHEALTHY)

    @Method
    async def metrics(self) -> Metrics:
        """Read the metrics.

        Example:
            print(client.server.metrics().data.requests.total.count)
        """
        return await self._api.fetch(Metrics, "GET", "/metrics")
