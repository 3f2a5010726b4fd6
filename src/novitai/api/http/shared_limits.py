# SPDX-License-Identifier: Apache-2.0
"""Token buckets in Redis that all processes share, and the fallback while Redis is unavailable.

A bucket is one number: the time at which it will be full, by Redis's clock, so processes agree even
if their clocks differ. One script takes a token atomically.

While Redis does not answer, each process uses its own buckets: the limit then applies to each
process separately, and no request is refused because Redis is unavailable. Each such call is
counted, each outage is logged once, and one call per second tries Redis again.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from novitai.api.http.limits import Buckets, Quota, Taken, allowed, refused
from novitai.clock import Clock

RETRY_SECONDS: Final = 1.0
_ANSWER_WITHIN: Final = 0.3
_CONNECTIONS: Final = 32

# KEYS[1]: the bucket. ARGV: microseconds until one token is added, the size of the bucket.
# Returns whether a token was taken, microseconds until full, microseconds until a token is free.
_TAKE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval = tonumber(ARGV[1])
local full_at = math.max(now, tonumber(redis.call('GET', KEYS[1]) or now))
local wait = full_at - now + interval - interval * tonumber(ARGV[2])
if wait > 0.5 then
  return {0, math.ceil(full_at - now), math.ceil(wait)}
end
full_at = full_at + interval
redis.call('SET', KEYS[1], string.format('%.1f', full_at),
           'PX', math.ceil((full_at - now) / 1000) + 1)
return {1, math.floor(full_at - now), 0}
"""

_log = structlog.get_logger(__name__)


class SharedStore:
    """The connections to Redis, and whether Redis answers."""

    def __init__(
        self, url: str, prefix: str, clock: Clock, *, answer_within: float = _ANSWER_WITHIN
    ) -> None:
        """Create the connection pool; the first call connects.

        Args:
            url: `redis://`, `rediss://` or `unix://`.
            prefix: The prefix of bucket names, the same in all processes that share them.
            clock: The clock for retries.
            answer_within: Seconds after which Redis counts as unavailable.
        """
        # The default pool opens connections without limit; this one waits for a free one.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=answer_within,
            socket_timeout=answer_within,
            socket_connect_timeout=answer_within,
            # One retry without delay, because Redis may have closed an idle connection.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        self._redis = Redis.from_pool(pool)
        self._script = self._redis.register_script(_TAKE)
        self._prefix = prefix
        self._clock = clock
        self._answer_within = answer_within
        self._away = False
        self._try_at = 0.0
        self.fallbacks = 0
        """Calls limited by this process alone while Redis was unavailable."""

    def limiter(self, name: str, quota: Quota) -> SharedLimiter:
        """Return the limiter `name`, whose buckets are separate from those of other names."""
        return SharedLimiter(self, f"{self._prefix}:{name}", quota, self._clock)

    async def take(self, bucket: str, quota: Quota) -> Taken | None:
        """Take a token of a bucket; None while Redis is unavailable."""
        now = self._clock.monotonic()
        if self._away:
            if now < self._try_at:
                self.fallbacks += 1
                return None
            # This call tries Redis; the others use their own buckets.
            self._try_at = now + RETRY_SECONDS
        try:
            async with asyncio.timeout(2 * self._answer_within):
                found = await self._script(
                    keys=[bucket], args=[quota.interval * 1_000_000, quota.capacity]
                )
        except (RedisError, OSError) as error:
            self._lost(error)
            return None
        self._found()
        taken, until_full, wait = found
        if not taken:
            return refused(until_full / 1_000_000, wait / 1_000_000)
        return allowed(quota, until_full / 1_000_000)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _lost(self, error: Exception) -> None:
        self.fallbacks += 1
        self._try_at = self._clock.monotonic() + RETRY_SECONDS
        if not self._away:
            self._away = True
            _log.warning(
                "rate_limit_store_away",
                error=type(error).__name__,
                instead="each process limits by itself",
            )

    def _found(self) -> None:
        if self._away:
            self._away = False
            _log.info("rate_limit_store_back")


class SharedLimiter:
    """Shared buckets of one quota, with this process's own buckets as the fallback."""

    def __init__(self, store: SharedStore, prefix: str, quota: Quota, clock: Clock) -> None:
        self.quota = quota
        self._store = store
        self._prefix = prefix
        self._own = Buckets(quota, clock)

    async def take(self, key: str) -> Taken:
        """Take a token of `key`'s bucket, if there is one."""
        taken = await self._store.take(f"{self._prefix}:{key}", self.quota)
        return self._own.take(key) if taken is None else taken
