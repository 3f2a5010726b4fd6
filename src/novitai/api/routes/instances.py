# SPDX-License-Identifier: Apache-2.0
"""`/api/instances`: create, read and list instances."""

from __future__ import annotations

from typing import Annotated, Final

import orjson
from pydantic import Field
from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.answers import answer, reply
from novitai.api.routing.common_errors import BAD_QUERY, NO_INSTANCE
from novitai.api.routing.lists import next_page
from novitai.api.routing.queries import Flag, OneOf, PageQuery
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.instances import (
    CreateInstanceRequest,
    CreateInstanceResponse,
    InstanceDetails,
    ListInstancesResponse,
)
from novitai.api.schemas.wire import VISIBLE, Wording, absent
from novitai.api.services import Services
from novitai.clock import iso
from novitai.domain.api_key import Scope
from novitai.domain.instance import InstanceStatus
from novitai.domain.view import View, present
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


class ListInstancesQuery(PageQuery):
    """Which instances to list."""

    status: Annotated[InstanceStatus, Field(description="Only this status"), OneOf("Status")] = (
        absent()
    )
    include_terminated: Annotated[
        bool,
        Field(
            description="Whether to list terminated and released instances too. Ignored if "
            "`status` is given."
        ),
        Flag("includeTerminated"),
    ] = False
    region: Annotated[
        str,
        Field(min_length=1, max_length=64, pattern=VISIBLE, description="Only this region"),
        Wording("Region"),
    ] = absent()
    name: Annotated[
        str,
        Field(min_length=1, max_length=100, pattern=VISIBLE, description="Only this name"),
        Wording("Name"),
    ] = absent()


class InstanceRoutes:
    """Handlers of the instance routes."""

    def __init__(self, services: Services) -> None:
        self._create_instance = services.create_instance
        self._instances = services.instances

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [
            Route(
                method="POST",
                path="/api/instances",
                handler=self.create,
                scope=Scope.WRITE,
                tag="Instances",
                summary="Create an instance",
                answers={201: CreateInstanceResponse},
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
                    Conflict("No offer of 'gpu-basic' fits this request now", code="NO_CAPACITY"),
                    UpstreamUnavailable("Novita answered with an error"),
                    CircuitBreakerOpen("Novita keeps failing", retry_after=30),
                    UpstreamTimeout("Novita did not answer in time"),
                ],
            ),
            Route(
                method="GET",
                path="/api/instances",
                handler=self.page,
                scope=Scope.READ,
                tag="Instances",
                summary="List instances",
                answers={200: ListInstancesResponse},
                errors=[BAD_QUERY],
            ),
            Route(
                method="GET",
                path=paths.INSTANCE,
                handler=self.one,
                scope=Scope.READ,
                tag="Instances",
                summary="Read one instance",
                headers={"If-None-Match": "The `ETag` of an earlier response"},
                answers={200: InstanceDetails, 304: None},
                errors=[NO_INSTANCE],
            ),
        ]

    async def create(self, call: RouteCall, body: CreateInstanceRequest) -> Response:
        """Accept a request for an instance.

        The request is stored before the response is sent. The instance is bought later, once.
        """
        return await call.run_once(self._create_instance.create(body.wanted()), _accepted)

    async def page(self, call: RouteCall, query: ListInstancesQuery) -> Response:
        """List instances, newest first; at most 1,000 if `limit` is absent."""
        wanted = InstanceQuery(
            status=query.status,
            region=query.region,
            name=query.name,
            # An explicit status is listed even if it is `terminated` or `released`.
            include_terminated=query.include_terminated or "status" in query.model_fields_set,
            limit=query.limit,
            cursor=query.cursor,
        )
        page = await self._instances.page(wanted)
        body = {"instances": page.views, "total": page.total, "nextCursor": page.next_cursor}
        return answer(orjson.dumps(present(body)), headers=next_page(call, page.next_cursor))

    async def one(self, call: RouteCall) -> Response:
        """Read one instance from the database; Novita is not called."""
        shown = await self._instances.details(call.named("instanceId"))
        tag = f'W/"{shown.digest}"'
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if _matches(call.request.headers.getlist("if-none-match"), tag):
            return Response(None, 304, headers)
        return answer(shown.body, headers=headers)


def whole_view(shown: Shown) -> View:
    """Return the view of an instance with `observedAt`, if it was ever observed."""
    if shown.observed_at is None:
        return shown.view
    return {**shown.view, "observedAt": iso(shown.observed_at)}


def _accepted(created: Created) -> Reply:
    accepted = CreateInstanceResponse(
        instance_id=created.instance_id,
        status="creating",
        message="Instance creation initiated successfully",
        estimated_ready_time=created.estimated_ready_at,
    )
    return reply(accepted, 201, {"Location": f"/api/instances/{created.instance_id}"})


def _matches(given: list[str], tag: str) -> bool:
    """Compare weakly, as `If-None-Match` does (RFC 9110, section 13.1.2)."""
    opaque = tag.removeprefix("W/")
    tags = [part.strip() for value in given for part in value.split(",")]
    return "*" in tags or opaque in [part.removeprefix("W/") for part in tags]
