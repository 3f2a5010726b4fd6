# SPDX-License-Identifier: Apache-2.0
"""Schemas of the caches."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from novitai.api.schemas.wire import VISIBLE, RequestModel, ResponseModel, Time, Wording, absent


class CacheStatsView(ResponseModel):
    """Statistics of one cache since the process started."""

    hits: int
    misses: int
    hit_ratio: float
    size: int
    max_size: int
    ttl_seconds: float
    evictions: int
    expired: int


class CachesSummary(ResponseModel):
    """Totals over all caches."""

    total_caches: int
    total_entries: int
    total_hits: int
    total_misses: int
    overall_hit_ratio: float


class CachesResponse(ResponseModel):
    """Statistics of all caches, by name."""

    timestamp: Time
    caches: dict[str, CacheStatsView]
    summary: CachesSummary


class CacheKeyView(ResponseModel):
    """A key, the age of its entry and the time until the entry expires."""

    key: str
    age_seconds: float
    time_left_seconds: float


class CacheDetails(CacheStatsView):
    """Statistics and keys of one cache."""

    cache_name: str
    timestamp: Time
    keys: list[CacheKeyView]


class ClearCacheRequest(RequestModel):
    """The cache to clear; all caches if none is named."""

    cache_name: Annotated[
        str, Field(min_length=1, max_length=64, pattern=VISIBLE), Wording("Cache name")
    ] = absent()


class CacheChangedResponse(ResponseModel):
    """The result, and the number of entries removed."""

    message: str
    timestamp: Time
    entries_removed: int


class CacheDeletedResponse(ResponseModel):
    """The result."""

    message: str
    timestamp: Time
