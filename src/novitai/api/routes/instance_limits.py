# SPDX-License-Identifier: Apache-2.0
"""Put off the stop that a limit would bring."""

from __future__ import annotations

from typing import Final

import orjson
from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.answers import reply
from novitai.api.routing.common_errors import BEYOND_KEY, NO_INSTANCE
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.instances import KeepRequest
from novitai.domain.api_key import Scope
from novitai.domain.instance_details import InstanceDetails
from novitai.errors import Conflict, FieldError, ValidationFailed
from novitai.lifecycle.commands.instance_limits import InstanceLimits

_NOTHING: Final = Conflict(
    "The stop of instance 'inst_1697843200_abc123' cannot be put off: no limit in time stops it",
    code="NOTHING_TO_KEEP",
    details={"status": "running"},
)
_TOO_LONG: Final = ValidationFailed(
    "Validation failed",
    details=[
        FieldError("minutes", "Minutes must be at most 60: a run can be kept for 7 days in all", 90)
    ],
)


class InstanceLimitRoutes:
    """Handlers of what users ask about limits."""

    def __init__(self, limits: InstanceLimits) -> None:
        self._limits = limits

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [
            Route(
                method="POST",
                path=f"{paths.INSTANCE}/keep",
                id="keepInstance",
                handler=self.keep,
                scope=Scope.WRITE,
                tag="Instances",
                summary="Put off the stop of an instance",
                answers={200: InstanceDetails},
                errors=[NO_INSTANCE, _TOO_LONG, _NOTHING, BEYOND_KEY],
            )
        ]

    async def keep(self, call: RouteCall, body: KeepRequest) -> Response:
        """Put off the stop of `maxRunMinutes`, `stopAt` or auto-stop.

        All move by so many minutes; `maxRunMinutes` in this run only. The response has the
        new `stopsAt`. Only an `admin` key moves the instance beyond the limits of the key that
        created it.
        """
        command = self._limits.keep(
            call.named("instanceId"),
            body.minutes,
            actor=call.actor,
            may_exceed=call.caller.is_admin,
        )
        return await call.run_once(command, lambda view: reply(orjson.dumps(view)))
