# SPDX-License-Identifier: Apache-2.0
"""Schemas of the caches."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from novitai.api.schemas.wire import VISIBLE, RequestModel, ResponseModel, Time, Wording, absent


class CacheStatsView(ResponseModel):
    """Statistics of one cache since the process started."""

    hits: int = Field(description="Reads that found a fresh entry")
    misses: int = Field(description="Reads that found none")
    hit_ratio: float = Field(description="Hits divided by reads; 0 before the first read")
    size: int = Field(description="The number of entries")
    max_size: int = Field(description="The number of entries at which the oldest are evicted")
    ttl_seconds: float = Field(description="How long an entry is fresh")
    evictions: int = Field(description="Entries removed because the cache was full")
    expired: int = Field(description="Entries removed because they were too old")


class CachesSummary(ResponseModel):
    """Totals over all caches."""

    total_caches: int = Field(description="The number of caches")
    total_entries: int = Field(description="The sum of their entries")
    total_hits: int = Field(description="The sum of their hits")
    total_misses: int = Field(description="The sum of their misses")
    overall_hit_ratio: float = Field(
        description="Hits of all caches divided by their reads; 0 before the first read"
    )


class CachesResponse(ResponseModel):
    """Statistics of all caches, by name."""

    timestamp: Time = Field(description="When the statistics were taken")
    caches: dict[str, CacheStatsView] = Field(
        description="The statistics of each cache, by its name"
    )
    summary: CachesSummary = Field(description="The totals over all caches")


class CacheKeyView(ResponseModel):
    """A key, the age of its entry and the time until the entry expires."""

    key: str = Field(description="The key of the entry")
    age_seconds: float = Field(description="Seconds since the entry was stored")
    time_left_seconds: float = Field(description="Seconds until the entry expires")


class CacheDetails(CacheStatsView):
    """Statistics and keys of one cache."""

    cache_name: str = Field(description="The name of the cache")
    timestamp: Time = Field(description="When the statistics were taken")
    keys: list[CacheKeyView] = Field(description="The entries of the cache, without their values")


class ClearCacheRequest(RequestModel):
    """The cache to clear; all caches if none is named."""

    cache_name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            pattern=VISIBLE,
            description="The cache to clear; if it is absent, all caches are cleared",
        ),
        Wording("Cache name"),
    ] = absent()


class CacheChangedResponse(ResponseModel):
    """The result of clearing caches."""

    message: str = Field(description="The result in one sentence")
    timestamp: Time = Field(description="When the caches were changed")
    entries_removed: int = Field(description="The number of entries removed")


class CacheDeletedResponse(ResponseModel):
    """The result of deleting a key."""

    message: str = Field(description="The result in one sentence")
    timestamp: Time = Field(description="When the entry was removed")
