# SPDX-License-Identifier: Apache-2.0
"""`PATCH /api/instances/{instanceId}`: change an instance."""

from __future__ import annotations

from typing import Final

import orjson
from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.answers import answer
from novitai.api.http.preconditions import matches, weak_tag
from novitai.api.routing.common_errors import BEYOND_KEY, NO_INSTANCE, OVER_BUDGET, RELEASED
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.instances import ChangeInstanceRequest
from novitai.domain.api_key import Scope
from novitai.domain.instance_details import InstanceDetails
from novitai.errors import FieldError, PreconditionFailed, ValidationFailed
from novitai.lifecycle.commands.change_instance import InstanceChanges

_TOO_MANY: Final = ValidationFailed(
    "Validation failed",
    details=[
        FieldError("tags", "There must be at most 16 tags; there would be 17", has_value=False)
    ],
)
_BAD_URL: Final = ValidationFailed(
    "Validation failed",
    code="INVALID_WEBHOOK_URL",
    details=[
        FieldError(
            "webhookUrl", "Webhook URL must be a valid HTTP or HTTPS URL", "ftp://example.com"
        )
    ],
)
_CHANGED: Final = PreconditionFailed(
    "Instance 'inst_1697843200_abc123' has changed since it was read: read it again"
)


class InstanceChangeRoutes:
    """Handlers of changes of instances."""

    def __init__(self, changes: InstanceChanges) -> None:
        self._changes = changes

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [
            Route(
                method="PATCH",
                path=paths.INSTANCE,
                id="updateInstance",
                handler=self.change,
                scope=Scope.WRITE,
                tag="Instances",
                summary="Change an instance",
                headers={
                    "If-Match": "The `ETag` of the instance as it was read; if it has changed "
                    "since, nothing is done"
                },
                answers={200: InstanceDetails},
                sends={"ETag": "Names the new state of the instance, for `If-Match`"},
                errors=[
                    _TOO_MANY,
                    _BAD_URL,
                    NO_INSTANCE,
                    RELEASED,
                    OVER_BUDGET,
                    BEYOND_KEY,
                    _CHANGED,
                ],
            )
        ]

    async def change(self, call: RouteCall, body: ChangeInstanceRequest) -> Response:
        """Change the fields that are sent; `null` removes a value.

        Changes of an instance that another request makes at the same time are kept: send the `ETag`
        as `If-Match` to make the change only if there was none. Only an `admin` key moves the
        instance beyond the limits of the key that created it.
        """
        given = call.request.headers.getlist("if-match")

        def holds(digest: str) -> bool:
            return matches(given, weak_tag(digest))

        change = self._changes.change(
            call.named("instanceId"),
            body.wanted(),
            actor=call.actor,
            condition=holds if given else None,
            may_exceed=call.caller.is_admin,
        )
        changed = await call.apply(change)
        return answer(orjson.dumps(changed.view), headers={"ETag": weak_tag(changed.digest)})
