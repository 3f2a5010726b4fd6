# SPDX-License-Identifier: Apache-2.0
"""`/api/instances`: asking for an instance, reading one, listing them."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.accept import JSON
from novitai.api.http.answers import json_reply
from novitai.api.openapi.document import Parameter
from novitai.api.openapi.schemas import (
    CreateInstanceRequest,
    CreateInstanceResponse,
    InstanceDetails,
    ListInstancesResponse,
)
from novitai.api.routing.common_errors import BAD_QUERY, NO_INSTANCE
from novitai.api.routing.lists import LIMIT, PLACE_CURSOR, cursor, limit, listed
from novitai.api.routing.once import run_once
from novitai.api.routing.queries import flag, one_of, query_fields, visible
from novitai.api.routing.router import Call, Operation
from novitai.api.services import Services
from novitai.clock import iso
from novitai.domain.api_key import Scope
from novitai.domain.fields import text
from novitai.domain.instance import InstanceStatus
from novitai.domain.validation import parse_create
from novitai.domain.view import View
from novitai.errors import (
    CircuitBreakerOpen,
    Conflict,
    FieldError,
    UpstreamTimeout,
    UpstreamUnavailable,
    ValidationFailed,
)
from novitai.lifecycle.commands.create_instance import Created
from novitai.lifecycle.commands.idempotency import Reply
from novitai.lifecycle.queries.instances import InstanceQuery, Shown

INSTANCE_ID: Final = Parameter(
    "instanceId", "The instance's id", {"type": "string", "maxLength": 64}, "path"
)
_STATUSES: Final = tuple(status.value for status in InstanceStatus)

_WRONG: Final = tuple(
    ValidationFailed("Validation failed", code=code, details=[FieldError(field, message, value)])
    for code, field, message, value in (
        (
            "INVALID_INSTANCE_NAME",
            "name",
            "Name must contain only letters, digits, hyphens and underscores",
            "my instance",
        ),
        ("INVALID_GPU_NUM", "gpuNum", "GPU number must be at most 8", 9),
        (
            "INVALID_ROOTFS_SIZE",
            "rootfsSize",
            "Root filesystem size must be at least 20 GB",
            10,
        ),
        (
            "INVALID_WEBHOOK_URL",
            "webhookUrl",
            "Webhook URL must be a valid HTTP or HTTPS URL",
            "ftp://example.com",
        ),
    )
)


class InstanceRoutes:
    """Handlers of the instance routes."""

    def __init__(self, services: Services) -> None:
        self._create_instance = services.create_instance
        self._commands = services.commands
        self._instances = services.instances
        self._allow_private = services.allow_private_webhooks

    def operations(self) -> list[Operation]:
        """Declare the routes."""
        return [
            Operation(
                method="POST",
                path="/api/instances",
                handler=self.create,
                scope=Scope.WRITE,
                tag="Instances",
                summary="Ask for an instance",
                answers={201: CreateInstanceResponse},
                body=CreateInstanceRequest,
                errors=[
                    ValidationFailed(
                        "Validation failed",
                        details=[
                            FieldError("name", "Name must be at least 1 character long", ""),
                            FieldError("gpuNum", "GPU number must be at least 1", 0),
                        ],
                    ),
                    *_WRONG,
                    ValidationFailed(
                        "Product 'gpu-basik' does not exist; the nearest are gpu-basic",
                        code="INVALID_PRODUCT_NAME",
                    ),
                    ValidationFailed(
                        "Template 'tmpl-0' does not exist; the nearest are tmpl-12345 (PyTorch)",
                        code="INVALID_TEMPLATE_ID",
                    ),
                    Conflict("No 'gpu-basic' fits this request now", code="NO_CAPACITY"),
                    UpstreamUnavailable("Novita answered with an error"),
                    CircuitBreakerOpen("Novita keeps failing", retry_after=30),
                    UpstreamTimeout("Novita did not answer in time"),
                ],
            ),
            Operation(
                method="GET",
                path="/api/instances",
                handler=self.page,
                scope=Scope.READ,
                tag="Instances",
                summary="List instances",
                answers={200: ListInstancesResponse},
                parameters=[
                    LIMIT,
                    PLACE_CURSOR,
                    Parameter(
                        "status", "Only this status", {"type": "string", "enum": list(_STATUSES)}
                    ),
                    Parameter("region", "Only this region", visible(64)),
                    Parameter("name", "Only this name", visible(100)),
                    Parameter(
                        "includeTerminated",
                        "Whether to list terminated and released ones too. Where `status` is "
                        "given, it alone decides.",
                        {"type": "boolean", "default": False},
                    ),
                ],
                errors=[BAD_QUERY],
                hot=True,
            ),
            Operation(
                method="GET",
                path=paths.INSTANCE,
                handler=self.one,
                scope=Scope.READ,
                tag="Instances",
                summary="Read one instance",
                answers={200: InstanceDetails, 304: None},
                parameters=[
                    INSTANCE_ID,
                    Parameter(
                        "If-None-Match",
                        "The `ETag` of an earlier answer",
                        {"type": "string"},
                        "header",
                    ),
                ],
                errors=[NO_INSTANCE],
                hot=True,
            ),
        ]

    async def create(self, call: Call) -> Response:
        """Accept a request for an instance.

        By the time of the answer it is on record; the instance is bought afterwards, once.
        """
        body = await call.body()
        request = parse_create(body.fields, allow_private=self._allow_private)
        command = self._create_instance.create(request)
        return await run_once(self._commands, call, body, command, _accepted)

    async def page(self, call: Call) -> Response:
        """List instances, newest first; all of them, up to 1,000, where no limit is given."""
        fields = query_fields(call)
        status = fields.read("status", one_of("Status", _STATUSES), "")
        with_terminated = fields.read("includeTerminated", flag("includeTerminated"), False)
        query = InstanceQuery(
            status=InstanceStatus(status) if status else None,
            region=fields.read("region", text("Region", longest=64), None),
            name=fields.read("name", text("Name", longest=100), None),
            # A status that is asked for is listed, whichever it is.
            include_terminated=with_terminated or bool(status),
            limit=fields.read("limit", limit, None),
            cursor=fields.read("cursor", cursor, None),
        )
        fields.finish()
        page = await self._instances.page(query)
        return listed(call, "instances", page.views, page.next_cursor, total=page.total)

    async def one(self, call: Call) -> Response:
        """Read one instance from our own records; Novita is not called."""
        shown = await self._instances.details(call.request.path_params["instanceId"])
        tag = f'W/"{shown.digest}"'
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if _matches(call.request.headers.getlist("if-none-match"), tag):
            return Response(None, 304, headers)
        return Response(shown.body, 200, headers, JSON)


def whole_view(shown: Shown) -> View:
    """Show an instance with when it was last seen."""
    if shown.observed_at is None:
        return shown.view
    return {**shown.view, "observedAt": iso(shown.observed_at)}


def _accepted(created: Created) -> Reply:
    body = {
        "instanceId": created.instance_id,
        "status": InstanceStatus.CREATING.value,
        "message": "Instance creation initiated successfully",
        "estimatedReadyTime": iso(created.estimated_ready_at),
    }
    location = f"/api/instances/{created.instance_id}"
    return json_reply(body, 201, {"Location": location})


def _matches(given: list[str], tag: str) -> bool:
    """Compare weakly, as `If-None-Match` does (RFC 9110, section 13.1.2)."""
    opaque = tag.removeprefix("W/")
    tags = [part.strip() for value in given for part in value.split(",")]
    return "*" in tags or opaque in [part.removeprefix("W/") for part in tags]
