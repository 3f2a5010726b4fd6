# SPDX-License-Identifier: Apache-2.0
"""Health."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from novitai.api.schemas.wire import ResponseModel, Time, absent

Up = Literal["up", "down"]


class ServicesHealth(ResponseModel):
    """What this process depends on."""

    novita_api: Up
    job_queue: Up
    cache: Up


class Performance(ResponseModel):
    """The last minute; `averageResponseTime` in milliseconds, `errorRate` in percent (5xx).

    Requests that wait for a status are counted, and not timed.
    """

    requests_per_minute: float
    average_response_time: float
    error_rate: float
    job_processing_rate: float


class HealthMemory(ResponseModel):
    """Megabytes: private, limit of the container or machine, shared, resident."""

    used_mb: float = Field(alias="usedMB")
    total_mb: float = Field(alias="totalMB")
    external_mb: float = Field(alias="externalMB")
    rss: float


class CpuView(ResponseModel):
    """`usage` in percent in `/health`, as a fraction in `/metrics`."""

    usage: float
    load_average: list[float]


class HealthSystem(ResponseModel):
    """What the process uses."""

    memory: HealthMemory
    cpu: CpuView


class ClockView(ResponseModel):
    """The machine's clock went back; by how many seconds, where that was seen."""

    went_back_at: Time
    seconds: float | None = absent()


class HealthCheckResponse(ResponseModel):
    """The health of the process and of what it depends on; `uptime` in seconds."""

    status: Literal["healthy", "unhealthy"]
    timestamp: Time
    services: ServicesHealth
    uptime: float
    performance: Performance
    system: HealthSystem
    clock: ClockView | None = absent()


class ProbeResponse(ResponseModel):
    """The answer to a probe; `reason` is the error code of what is wrong with the database."""

    status: Literal["ok", "unavailable"]
    timestamp: Time
    reason: str | None = absent()
