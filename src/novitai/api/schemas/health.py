# SPDX-License-Identifier: Apache-2.0
"""Schemas of health checks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from novitai.api.schemas.wire import ResponseModel, Time, absent

Up = Literal["up", "down"]


class ServicesHealth(ResponseModel):
    """The state of the services that this process depends on."""

    novita_api: Up = Field(
        description="Whether Novita's API answers, judged by recent calls; "
        "`down` also while the account is held"
    )
    job_queue: Up = Field(description="Whether a worker was seen in the last 30 seconds")
    cache: Up = Field(description="Whether the caches pass their self-test")


class Performance(ResponseModel):
    """The work of the process in the last minute.

    Requests that wait for a status are counted but not timed.
    """

    requests_per_minute: float = Field(description="Requests in the last minute")
    average_response_time: float = Field(description="Their mean duration in milliseconds")
    error_rate: float = Field(description="The percentage of them that were answered with 5xx")
    job_processing_rate: float = Field(description="Job runs that succeeded in the last minute")


class HealthMemory(ResponseModel):
    """Memory use of the process, in megabytes."""

    used_mb: float = Field(alias="usedMB", description="Private memory of the process in MB")
    total_mb: float = Field(
        alias="totalMB", description="Memory of the container or the machine in MB"
    )
    external_mb: float = Field(
        alias="externalMB", description="Memory shared with other processes in MB"
    )
    rss: float = Field(description="Resident memory of the process in MB")


class CpuView(ResponseModel):
    """CPU use."""

    usage: float = Field(
        description="CPU use of the process: percent of one core in "
        "`/health`, a fraction of it in `/metrics`"
    )
    load_average: list[float] = Field(description="Load of the machine over 1, 5 and 15 minutes")


class HealthSystem(ResponseModel):
    """Memory and CPU use of the process."""

    memory: HealthMemory = Field(description="Memory use of the process")
    cpu: CpuView = Field(description="CPU use of the process")


class ClockView(ResponseModel):
    """The system clock was set back."""

    went_back_at: Time = Field(description="When the system clock was set back")
    seconds: float | None = absent("By how many seconds; absent if that is not known")


class HealthCheckResponse(ResponseModel):
    """The health of the process and its dependencies."""

    status: Literal["healthy", "unhealthy"] = Field(
        description="`healthy` if the database and all services are up"
    )
    timestamp: Time = Field(description="When the health was checked")
    services: ServicesHealth = Field(description="The services that this process depends on")
    uptime: float = Field(description="Seconds since the process started")
    performance: Performance = Field(description="What the process did in the last minute")
    system: HealthSystem = Field(description="Memory and CPU use of the process")
    clock: ClockView | None = absent("Present once the system clock was set back")


class ProbeResponse(ResponseModel):
    """The result of a probe."""

    status: Literal["ok", "unavailable"] = Field(description="The result of the probe")
    timestamp: Time = Field(description="When the probe was made")
    reason: str | None = absent("The error code of the failure of the database")
