# SPDX-License-Identifier: Apache-2.0
"""Caches."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from novitai.api.schemas.wire import VISIBLE, RequestModel, ResponseModel, Time, Wording, absent


class CacheStatsView(ResponseModel):
    """What one cache did since the process began."""

    hits: int
    misses: int
    hit_ratio: float
    size: int
    max_size: int
    ttl_seconds: float
    evictions: int
    expired: int


class CachesSummary(ResponseModel):
    """All caches together."""

    total_caches: int
    total_entries: int
    total_hits: int
    total_misses: int
    overall_hit_ratio: float


class CachesResponse(ResponseModel):
    """All caches by name."""

    timestamp: Time
    caches: dict[str, CacheStatsView]
    summary: CachesSummary


class CacheKeyView(ResponseModel):
    """A key, how long ago it was stored, and how long it is still fresh."""

    key: str
    age_seconds: float
    time_left_seconds: float


class CacheDetails(CacheStatsView):
    """One cache with its keys."""

    cache_name: str
    timestamp: Time
    keys: list[CacheKeyView]


class ClearCacheRequest(RequestModel):
    """Which cache to clear; all of them where none is named."""

    cache_name: Annotated[
        str, Field(min_length=1, max_length=64, pattern=VISIBLE), Wording("Cache name")
    ] = absent()


class CacheChangedResponse(ResponseModel):
    """What was done, and how many entries went."""

    message: str
    timestamp: Time
    entries_removed: int


class CacheDeletedResponse(ResponseModel):
    """What was done."""

    message: str
    timestamp: Time
