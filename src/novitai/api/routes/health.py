# SPDX-License-Identifier: Apache-2.0
"""`/health`: the health of this process and its dependencies. Novita is not called."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from starlette.responses import Response

from novitai.api.http.answers import answer
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.health import (
    ClockView,
    CpuView,
    HealthCheckResponse,
    HealthMemory,
    HealthSystem,
    Performance,
    ProbeResponse,
    ServicesHealth,
    Up,
)
from novitai.api.services import Services
from novitai.errors import ApiError

WORKER_UNSEEN_MS: Final = 30_000
_ANSWER_WITHIN: Final = 2.0
_MB: Final = 1024 * 1024
_DOWN: Final = "UNAVAILABLE"
"""The reason if the failure has no error code of its own, such as a timeout."""

_log = structlog.get_logger(__name__)


class HealthRoutes:
    """Handlers of the health routes."""

    def __init__(self, services: Services) -> None:
        self._sources = services.health
        self._jobs = services.jobs
        self._requests = services.requests
        self._process = services.process
        self._clock = services.clock

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [
            Route(
                method="GET",
                path="/health",
                id="getHealth",
                handler=self.health,
                scope=None,
                tag="Health",
                summary="Read the health of the process and its dependencies",
                answers={200: HealthCheckResponse, 503: HealthCheckResponse},
            ),
            Route(
                method="GET",
                path="/health/live",
                id="checkLiveness",
                handler=self.live,
                scope=None,
                tag="Health",
                summary="Check whether the process answers",
                answers={200: ProbeResponse},
            ),
            Route(
                method="GET",
                path="/health/ready",
                id="checkReadiness",
                handler=self.ready,
                scope=None,
                tag="Health",
                summary="Check whether the database answers and accepts writes",
                answers={200: ProbeResponse, 503: ProbeResponse},
            ),
        ]

    async def health(self, _call: RouteCall) -> Response:
        """Return 200 if everything is healthy, otherwise 503."""
        queue, database, account = await asyncio.gather(
            _trouble("jobQueue", self._queue_seen),
            _trouble("database", self._ping),
            _trouble("account", self._account_is_right),
        )
        services = ServicesHealth(
            novita_api=_up(account is None and not self._sources.upstream_down()),
            job_queue=_up(queue is None),
            cache=_up(await _trouble("cache", self._cache_works) is None),
        )
        healthy = database is None and all(up == "up" for _, up in services)
        went_back = self._sources.clock_went_back()
        body = HealthCheckResponse(
            status="healthy" if healthy else "unhealthy",
            timestamp=self._clock.now(),
            services=services,
            uptime=round(self._process.uptime, 3),
            performance=self._performance(),
            system=self._system(),
            clock=None
            if went_back is None
            else ClockView(went_back_at=went_back.at, seconds=went_back.seconds),
        )
        return answer(body, 200 if healthy else 503, {"Cache-Control": "no-store"})

    async def live(self, _call: RouteCall) -> Response:
        """Return 200: the process answers."""
        return self._probe(None)

    async def ready(self, _call: RouteCall) -> Response:
        """Return 200 if the database answers and accepts writes, otherwise 503."""
        return self._probe(await _trouble("database", self._ping))

    def _probe(self, trouble: str | None) -> Response:
        body = ProbeResponse(
            status="unavailable" if trouble else "ok", timestamp=self._clock.now(), reason=trouble
        )
        return answer(body, 503 if trouble else 200, {"Cache-Control": "no-store"})

    async def _queue_seen(self) -> bool:
        # A time in the future dates from before the clock was set back, and proves nothing.
        return abs(self._clock.now() - await self._sources.queue_seen()) <= WORKER_UNSEEN_MS

    async def _ping(self) -> bool:
        await self._sources.ping()
        return True

    async def _account_is_right(self) -> bool:
        return not await self._sources.account_held()

    async def _cache_works(self) -> bool:
        return self._sources.cache_works()

    def _performance(self) -> Performance:
        minute = self._requests.last_minute()
        return Performance(
            requests_per_minute=minute.count,
            average_response_time=round(minute.average * 1000, 3),
            error_rate=round(minute.error_rate * 100, 3),
            job_processing_rate=sum(
                stats.processed_last_minute for stats in self._jobs.stats().values()
            ),
        )

    def _system(self) -> HealthSystem:
        memory, cpu = self._process.memory(), self._process.cpu()
        return HealthSystem(
            memory=HealthMemory(
                usedMB=round(memory.private / _MB, 1),
                totalMB=round(memory.total / _MB, 1),
                externalMB=round(memory.shared / _MB, 1),
                rss=round(memory.rss / _MB, 1),
            ),
            cpu=CpuView(
                usage=round(cpu.usage * 100, 2),
                load_average=[round(load, 2) for load in cpu.load_average],
            ),
        )


def _up(works: bool) -> Up:
    return "up" if works else "down"


async def _trouble(name: str, check: Callable[[], Awaitable[bool]]) -> str | None:
    """Return the error code of a failed check; None if it passes."""
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            return None if await check() else _DOWN
    except Exception as error:  # any exception means that the check failed
        code, reason = (error.code, error.message) if isinstance(error, ApiError) else (_DOWN, None)
        _log.warning("health_check_failed", part=name, error=type(error).__name__, reason=reason)
        return code
