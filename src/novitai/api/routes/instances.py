# SPDX-License-Identifier: Apache-2.0
"""`/api/instances`: create, read and list instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field, StringConstraints
from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.answers import ReadyResponse, answer, reply
from novitai.api.http.context import header_values
from novitai.api.http.preconditions import matches, weak_tag
from novitai.api.routing.common_errors import BAD_QUERY, NO_INSTANCE, OVER_BUDGET, OVER_KEY
from novitai.api.routing.lists import next_page
from novitai.api.routing.queries import Flag, OneOf, PageQuery, Repeatable
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.instances import (
    TAG_FILTER,
    CreateInstanceRequest,
    CreateInstanceResponse,
    ListInstancesResponse,
)
from novitai.api.schemas.wire import VISIBLE, Wording, absent
from novitai.api.services import Services
from novitai.domain.api_key import Scope
from novitai.domain.instance import InstanceStatus
from novitai.domain.instance_details import InstanceDetails
from novitai.domain.tags import MAX_TAGS
from novitai.domain.view import cost_view, iso_or_none, present
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

_REVALIDATE: Final = (b"cache-control", b"private, no-cache")
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

UNPLACEABLE: Final = (
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
    UpstreamUnavailable("Novita answered with an error"),
    CircuitBreakerOpen("Novita keeps failing", retry_after=30),
    UpstreamTimeout("Novita did not answer in time"),
)
"""The errors of a request that is checked against the catalogue."""
_QUOTE_UNUSABLE: Final = (
    ValidationFailed(
        "The request differs from the quoted one",
        code="QUOTE_MISMATCH",
        details=[FieldError("gpuNum", "Must be as quoted: 2", has_value=False)],
    ),
    Conflict("The quote has expired or does not exist; ask for another one", code="QUOTE_EXPIRED"),
    Conflict(
        "No offer of 'gpu-basic' is available at its quoted price; ask for another quote",
        code="PRICE_ABOVE_QUOTE",
    ),
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
    tag: Annotated[
        list[Annotated[str, StringConstraints(pattern=TAG_FILTER)]],
        Field(
            max_length=MAX_TAGS,
            description="Only instances with this tag, as `name:value`. May be repeated: all must "
            "match",
        ),
        Repeatable(
            "Tag",
            wrong=f"Tag must be a tag's name and value, such as team:vision, at most {MAX_TAGS} "
            "times",
        ),
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
                id="createInstance",
                handler=self.create,
                scope=Scope.WRITE,
                tag="Instances",
                summary="Create an instance",
                answers={201: CreateInstanceResponse},
                sends={"Location": "The path of the instance"},
                errors=[
                    *UNPLACEABLE,
                    Conflict("No offer of 'gpu-basic' fits this request now", code="NO_CAPACITY"),
                    *_QUOTE_UNUSABLE,
                    OVER_BUDGET,
                    OVER_KEY,
                ],
            ),
            Route(
                method="GET",
                path="/api/instances",
                id="listInstances",
                handler=self.page,
                scope=Scope.READ,
                tag="Instances",
                summary="List instances",
                answers={200: ListInstancesResponse},
                sends={"Event-Cursor": "The events that this list shows, for `streamEvents`"},
                errors=[BAD_QUERY],
            ),
            Route(
                method="GET",
                path=paths.INSTANCE,
                id="getInstance",
                handler=self.one,
                scope=Scope.READ,
                tag="Instances",
                summary="Read one instance",
                headers={"If-None-Match": "The `ETag` of an earlier response"},
                answers={200: InstanceDetails, 304: None},
                sends={
                    "ETag": "Names this state of the instance, for `If-None-Match` and `If-Match`"
                },
                errors=[NO_INSTANCE],
            ),
        ]

    async def create(self, call: RouteCall, body: CreateInstanceRequest) -> Response:
        """Accept a request for an instance.

        The request is stored before the response is sent. The instance is bought later, once.
        """
        command = self._create_instance.create(body.wanted(), actor=call.actor)
        return await call.run_once(command, _accepted)

    async def page(self, call: RouteCall, query: ListInstancesQuery) -> Response:
        """List instances, newest first; at most 1,000 if `limit` is absent.

        `Event-Cursor` names the events that this list shows: `GET /api/events/stream` with it as
        `since` sends exactly the others.
        """
        wanted = InstanceQuery(
            status=query.status,
            region=query.region,
            name=query.name,
            tags=_tags(query.tag or ()),
            # An explicit status is listed even if it is `terminated` or `released`.
            include_terminated=query.include_terminated or "status" in query.model_fields_set,
            limit=query.limit,
            cursor=query.cursor,
        )
        page = await self._instances.page(wanted)
        headers = {"Event-Cursor": page.event_cursor, **next_page(call, page.next_cursor)}
        return answer(page.body, headers=headers)

    async def one(self, call: RouteCall) -> Response:
        """Read one instance from the database; Novita is not called."""
        shown = await self._instances.details(call.named("instanceId"))
        tag = weak_tag(shown.digest)
        known = tag.encode()
        headers = ((b"etag", known), _REVALIDATE)
        given = header_values(call.request.scope, b"if-none-match")
        if given and (
            # As most clients send it; the rest need not be read.
            given == [known] or matches([one.decode("latin-1") for one in given], tag)
        ):
            return ReadyResponse(b"", 304, headers)
        return ReadyResponse(shown.body, 200, headers)


def whole_view(shown: Shown) -> InstanceDetails:
    """Return the view of an instance with `observedAt` and `cost`, which the ETag leaves out."""
    whole: InstanceDetails = {
        **shown.view,
        "observedAt": iso_or_none(shown.observed_at),
        "cost": None if shown.cost is None else cost_view(shown.cost),
    }
    return present(whole)


def _accepted(created: Created) -> Reply:
    accepted = CreateInstanceResponse(
        instance_id=created.instance_id,
        status="creating",
        message="Instance creation initiated successfully",
        estimated_ready_time=created.estimated_ready_at,
    )
    return reply(accepted, 201, {"Location": f"/api/instances/{created.instance_id}"})


def _tags(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return names and values, without duplicates; a name has no colon, but a value may."""
    pairs = (one.partition(":") for one in dict.fromkeys(given))
    return tuple((name, value) for name, _, value in pairs)
