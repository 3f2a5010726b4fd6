# SPDX-License-Identifier: Apache-2.0
"""Schemas of health checks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from novitai.api.schemas.wire import ResponseModel, Time, absent

Up = Literal["up", "down"]


class ServicesHealth(ResponseModel):
    """The state of the services that this process depends on."""

    novita_api: Up
    job_queue: Up
    cache: Up


class Performance(ResponseModel):
    """The last minute. `averageResponseTime` is in milliseconds, `errorRate` (5xx) in percent.

    Requests that wait for a status are counted but not timed.
    """

    requests_per_minute: float
    average_response_time: float
    error_rate: float
    job_processing_rate: float


class HealthMemory(ResponseModel):
    """In megabytes: private, limit of the container or machine, shared, resident."""

    used_mb: float = Field(alias="usedMB")
    total_mb: float = Field(alias="totalMB")
    external_mb: float = Field(alias="externalMB")
    rss: float


class CpuView(ResponseModel):
    """CPU use; `usage` is in percent in `/health` and a fraction in `/metrics`."""

    usage: float
    load_average: list[float]


class HealthSystem(ResponseModel):
    """Memory and CPU use of the process."""

    memory: HealthMemory
    cpu: CpuView


class ClockView(ResponseModel):
    """The system clock was set back; `seconds` says how far, if known."""

    went_back_at: Time
    seconds: float | None = absent()


class HealthCheckResponse(ResponseModel):
    """The health of the process and its dependencies; `uptime` is in seconds."""

    status: Literal["healthy", "unhealthy"]
    timestamp: Time
    services: ServicesHealth
    uptime: float
    performance: Performance
    system: HealthSystem
    clock: ClockView | None = absent()


class ProbeResponse(ResponseModel):
    """The result of a probe; `reason` is the error code of the database failure."""

    status: Literal["ok", "unavailable"]
    timestamp: Time
    reason: str | None = absent()
