# SPDX-License-Identifier: Apache-2.0
"""Schemas of the metrics in JSON."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from novitai.api.schemas.health import CpuView
from novitai.api.schemas.wire import ResponseModel, Time


class RequestDurations(ResponseModel):
    """Number of requests, and their durations.

    Requests that wait for a status are counted but not timed.
    """

    count: int = Field(description="The number of requests")
    total_duration: float = Field(description="The sum of their durations in milliseconds")
    average_duration: float = Field(description="Their mean duration in milliseconds")
    min_duration: float = Field(description="The shortest duration in milliseconds")
    max_duration: float = Field(description="The longest duration in milliseconds")


class AllRequests(RequestDurations):
    """Totals over all requests, and the number of responses by status."""

    status_codes: dict[str, int] = Field(description="The number of responses by HTTP status")


class RequestNumbers(ResponseModel):
    """Requests since the process started."""

    total: AllRequests = Field(description="All requests")
    by_endpoint: dict[str, RequestDurations] = Field(
        description="By endpoint, such as `GET /api/instances/{instanceId}`"
    )
    by_method: dict[str, RequestDurations] = Field(description="By HTTP method")


class JobTypeNumbers(ResponseModel):
    """Job runs since the process started."""

    processed: int = Field(description="Runs that succeeded")
    failed: int = Field(description="Runs that failed")
    average_processing_time: float = Field(description="Their mean duration in milliseconds")
    queue_size: int = Field(description="Jobs that wait")


class JobNumbers(ResponseModel):
    """Job runs since the process started, in all and by type."""

    total: JobTypeNumbers = Field(description="All jobs")
    by_type: dict[str, JobTypeNumbers] = Field(description="By type, such as `create_instance`")
    fenced_writes: int = Field(
        description="Writes refused because another worker had claimed the work"
    )


class MetricsMemory(ResponseModel):
    """Memory of the process in bytes."""

    rss: int = Field(description="Resident memory")
    heap_total: int = Field(description="The mapped data segment")
    heap_used: int = Field(description="The used part of the data segment")
    external: int = Field(description="Memory shared with other processes")


class SystemNumbers(ResponseModel):
    """Memory and CPU use of the process."""

    memory: MetricsMemory = Field(description="Memory of the process in bytes")
    cpu: CpuView = Field(description="CPU use of the process")
    uptime: float = Field(description="Seconds since the process started")


class CacheNumbers(ResponseModel):
    """Totals over all caches."""

    hits: int = Field(description="Reads that found a fresh entry")
    misses: int = Field(description="Reads that found none")
    hit_ratio: float = Field(description="Hits divided by reads; 0 before the first read")
    total_size: int = Field(description="The number of entries in all caches")
    evictions: int = Field(description="Entries removed because a cache was full")


class Series(ResponseModel):
    """A value with its labels, as in the Prometheus text."""

    labels: dict[str, str] = Field(description="The labels of the sample")
    value: float = Field(description="The value of the sample")


class MetricsData(ResponseModel):
    """All metrics in JSON; docs/reference/metrics.md has the meaning of `series`."""

    requests: RequestNumbers = Field(description="Requests since the process started")
    jobs: JobNumbers = Field(description="Job runs since the process started")
    system: SystemNumbers = Field(description="Memory and CPU use of the process")
    cache: CacheNumbers = Field(description="Totals over all caches")
    series: dict[str, list[Series]] = Field(
        description="Every sample of the Prometheus text, by its name, such as `novitai_instances`"
    )


class MetricsResponse(ResponseModel):
    """The metrics of this process."""

    status: Literal["success"] = Field(description="Always `success`")
    timestamp: Time = Field(description="When the metrics were read")
    data: MetricsData = Field(description="The metrics")
