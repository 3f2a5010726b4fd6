# SPDX-License-Identifier: Apache-2.0
"""`/api/instances/{instanceId}/utilization`: how busy an instance was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import Field
from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.answers import answer
from novitai.api.routing.common_errors import NO_INSTANCE
from novitai.api.routing.queries import From, To, Whole
from novitai.api.routing.router import Route, RouteCall
from novitai.api.routing.upstream_data import AWAY, from_novita
from novitai.api.schemas.utilization import UtilizationAt, UtilizationResponse
from novitai.api.schemas.wire import RequestModel, absent
from novitai.domain.api_key import Scope
from novitai.errors import FieldError, ValidationFailed
from novitai.lifecycle.queries.utilization import (
    LEAST_INTERVAL,
    LONGEST_INTERVAL,
    MOST_POINTS,
    UtilizationReader,
    UtilizationWindow,
)
from novitai.upstream.models import UtilizationPoint

_BAD_WINDOW: Final = ValidationFailed(
    "Validation failed", details=[FieldError("from", "From must be before to", has_value=False)]
)


class UtilizationQuery(RequestModel):
    """The part of the metrics to read."""

    begin: Annotated[From, Field(description="By default, an hour before `to`")] = absent()
    end: Annotated[To, Field(description="By default, now")] = absent()
    interval: Annotated[
        int,
        Field(
            description="Seconds from one value to the next; by default 15, or more if there "
            f"would be over {MOST_POINTS} values"
        ),
        Whole("Interval", least=LEAST_INTERVAL, most=LONGEST_INTERVAL),
    ] = absent()


class UtilizationRoutes:
    """Handlers of the utilization routes."""

    def __init__(self, utilization: UtilizationReader) -> None:
        self._utilization = utilization

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [
            Route(
                method="GET",
                path=f"{paths.INSTANCE}/utilization",
                id="getInstanceUtilization",
                handler=self.read,
                scope=Scope.READ,
                tag="Instances",
                summary="Read the utilization of an instance",
                answers={200: UtilizationResponse},
                errors=[_BAD_WINDOW, NO_INSTANCE, *AWAY],
            )
        ]

    async def read(self, call: RouteCall, query: UtilizationQuery) -> Response:
        """Read from Novita how busy an instance was; a response is repeated for 15 seconds.

        The newest values are about a minute old. Every series is empty if the instance was not
        bought or has ended.
        """
        window = UtilizationWindow(query.begin, query.end, query.interval)
        reading = self._utilization.read(call.named("instanceId"), window)
        found = await from_novita(call, reading)
        shown = UtilizationResponse(
            gpu=_series(found.gpu),
            gpu_memory=_series(found.gpu_memory),
            cpu=_series(found.cpu),
            memory=_series(found.memory),
            disk=_series(found.disk),
        )
        return answer(shown)


def _series(points: Iterable[UtilizationPoint]) -> list[UtilizationAt]:
    return [UtilizationAt(at=point.at, percent=point.percent) for point in points]
