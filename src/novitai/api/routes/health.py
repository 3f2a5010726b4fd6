# SPDX-License-Identifier: Apache-2.0
"""`/health`: whether this process and what it depends on are well. Nothing is called upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from starlette.responses import Response

from novitai.api.http.answers import json_answer
from novitai.api.openapi.schemas import HealthCheckResponse, ProbeResponse
from novitai.api.routing.router import Call, Operation
from novitai.api.services import Services
from novitai.clock import iso
from novitai.domain.view import present
from novitai.errors import ApiError

WORKER_UNSEEN_MS: Final = 30_000
_ANSWER_WITHIN: Final = 2.0
_MB: Final = 1024 * 1024
_DOWN: Final = "UNAVAILABLE"
"""The reason where no error of ours says more, such as an answer that did not come in time."""

_log = structlog.get_logger(__name__)


class HealthRoutes:
    """Handlers of the health routes."""

    def __init__(self, services: Services) -> None:
        self._sources = services.health
        self._jobs = services.jobs
        self._requests = services.requests
        self._process = services.process
        self._clock = services.clock

    def operations(self) -> list[Operation]:
        """Declare the routes."""
        return [
            Operation(
                method="GET",
                path="/health",
                handler=self.health,
                scope=None,
                tag="Health",
                summary="Health of the process and of what it depends on",
                answers={200: HealthCheckResponse, 503: HealthCheckResponse},
            ),
            Operation(
                method="GET",
                path="/health/live",
                handler=self.live,
                scope=None,
                tag="Health",
                summary="Whether the process answers",
                answers={200: ProbeResponse},
            ),
            Operation(
                method="GET",
                path="/health/ready",
                handler=self.ready,
                scope=None,
                tag="Health",
                summary="Whether the database answers and takes writes",
                answers={200: ProbeResponse, 503: ProbeResponse},
            ),
        ]

    async def health(self, _call: Call) -> Response:
        """Tell how everything is: 200 when all is well, 503 when anything is not."""
        queue, database, account = await asyncio.gather(
            _trouble("jobQueue", self._queue_seen),
            _trouble("database", self._ping),
            _trouble("account", self._account_is_right),
        )
        services = {
            "novitaApi": account is None and not self._sources.upstream_down(),
            "jobQueue": queue is None,
            "cache": await _trouble("cache", self._cache_works) is None,
        }
        healthy = database is None and all(services.values())
        body = {
            "status": "healthy" if healthy else "unhealthy",
            "timestamp": iso(self._clock.now()),
            "services": {name: "up" if up else "down" for name, up in services.items()},
            "uptime": round(self._process.uptime, 3),
            "performance": self._performance(),
            "system": self._system(),
        }
        if (went_back := self._sources.clock_went_back()) is not None:
            body["clock"] = present({"wentBackAt": iso(went_back.at), "seconds": went_back.seconds})
        return json_answer(body, 200 if healthy else 503, {"Cache-Control": "no-store"})

    async def live(self, _call: Call) -> Response:
        """Tell that the process answers."""
        return self._probe(None)

    async def ready(self, _call: Call) -> Response:
        """Tell whether the database answers and takes writes, so that requests can be served."""
        return self._probe(await _trouble("database", self._ping))

    def _probe(self, trouble: str | None) -> Response:
        body = {"status": "unavailable" if trouble else "ok", "timestamp": iso(self._clock.now())}
        if trouble:
            body["reason"] = trouble
        return json_answer(body, 503 if trouble else 200, {"Cache-Control": "no-store"})

    async def _queue_seen(self) -> bool:
        return self._clock.now() - await self._sources.queue_seen() <= WORKER_UNSEEN_MS

    async def _ping(self) -> bool:
        await self._sources.ping()
        return True

    async def _account_is_right(self) -> bool:
        return not await self._sources.account_held()

    async def _cache_works(self) -> bool:
        return self._sources.cache_works()

    def _performance(self) -> dict[str, object]:
        minute = self._requests.last_minute()
        return {
            "requestsPerMinute": minute.count,
            "averageResponseTime": round(minute.average * 1000, 3),
            "errorRate": round(minute.error_rate * 100, 3),
            "jobProcessingRate": sum(
                stats.processed_last_minute for stats in self._jobs.stats().values()
            ),
        }

    def _system(self) -> dict[str, object]:
        memory, cpu = self._process.memory(), self._process.cpu()
        return {
            "memory": {
                "usedMB": round(memory.private / _MB, 1),
                "totalMB": round(memory.total / _MB, 1),
                "externalMB": round(memory.shared / _MB, 1),
                "rss": round(memory.rss / _MB, 1),
            },
            "cpu": {
                "usage": round(cpu.usage * 100, 2),
                "loadAverage": [round(load, 2) for load in cpu.load_average],
            },
        }


async def _trouble(name: str, check: Callable[[], Awaitable[bool]]) -> str | None:
    """Return the code of what does not work; None where it works."""
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            return None if await check() else _DOWN
    except Exception as error:  # whatever it is, what was asked for does not work
        code, reason = (error.code, error.message) if isinstance(error, ApiError) else (_DOWN, None)
        _log.warning("health_check_failed", part=name, error=type(error).__name__, reason=reason)
        return code
