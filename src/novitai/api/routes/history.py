# SPDX-License-Identifier: Apache-2.0
"""Events, operations and waiting for a status.

If a waiting client disconnects, its wait is cancelled at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar

import orjson
from pydantic import Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.answers import answer, reply
from novitai.api.http.disconnects import disconnected
from novitai.api.routes.instances import whole_view
from novitai.api.routing.common_errors import BAD_QUERY, NO_INSTANCE
from novitai.api.routing.lists import listed
from novitai.api.routing.queries import (
    EVENT_CURSOR,
    NOT_A_CURSOR,
    EventsQuery,
    Flag,
    InstanceFilter,
    OneOf,
    PageQuery,
    Whole,
)
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.history import (
    ActorView,
    EventView,
    ListEventsResponse,
    ListOperationsResponse,
    OperationErrorView,
    OperationView,
)
from novitai.api.schemas.wire import NoFields, RequestModel, absent
from novitai.domain.api_key import Scope
from novitai.domain.instance import InstanceStatus
from novitai.domain.instance_details import InstanceDetails
from novitai.domain.operation import Operation
from novitai.errors import Conflict, FieldError, NotFound, Overloaded, ValidationFailed
from novitai.lifecycle.commands.idempotency import Reply
from novitai.lifecycle.commands.instance_actions import InstanceActions
from novitai.lifecycle.queries.history import EventPage, History

T = TypeVar("T")

MAX_WAITING: Final = 1000
"""Maximum number of requests that wait for a status at a time, in one process."""
MAX_SECONDS: Final = 300
DEFAULT_SECONDS: Final = 60

_NO_OPERATION: Final = NotFound("Operation 'op_1' not found", code="OPERATION_NOT_FOUND")
_BAD_CURSOR: Final = ValidationFailed(
    "Validation failed",
    details=[FieldError("cursor", "cursor must be the id of an event", "evt_1")],
)
_BAD_SINCE: Final = ValidationFailed(
    "Validation failed",
    details=[FieldError("since", "since must be the id of an event", "evt_1")],
)
_BAD_TIMEOUT: Final = ValidationFailed(
    "Validation failed",
    details=[FieldError("timeout", "Timeout must be between 1 and 300", "301")],
)
_OUT_OF_REACH: Final = Conflict(
    "Instance 'inst_1697843200_abc123' is failed (READINESS_TIMEOUT: The instance was not ready "
    "within 10 minutes): it will not be running without a new request",
    details={
        "code": "READINESS_TIMEOUT",
        "error": {
            "code": "READINESS_TIMEOUT",
            "message": "The instance was not ready within 10 minutes",
            "at": "2023-10-20T10:30:00.000Z",
        },
        "instance": {"id": "inst_1697843200_abc123", "status": "failed"},
    },
)
_TOO_MANY: Final = Overloaded("Too many requests are waiting for a status", retry_after=5)


class WaitQuery(RequestModel):
    """What to wait for, and for how long."""

    status: Annotated[
        InstanceStatus, Field(description="The status to wait for"), OneOf("Status")
    ] = InstanceStatus.RUNNING
    timeout: Annotated[
        int, Field(description="Maximum wait in seconds"), Whole("Timeout", most=MAX_SECONDS)
    ] = DEFAULT_SECONDS


class EventOrder(StrEnum):
    """The order of a list of events."""

    OLDEST_FIRST = "asc"
    NEWEST_FIRST = "desc"


class SinceQuery(EventsQuery):
    """Which events to list."""

    since: Annotated[
        str,
        Field(
            pattern=EVENT_CURSOR,
            description="Only events after this event ID; page on with `cursor`",
        ),
        NOT_A_CURSOR,
    ] = absent()
    order: Annotated[
        EventOrder,
        Field(description="Oldest first (`asc`) or newest first (`desc`)"),
        OneOf("order"),
    ] = EventOrder.OLDEST_FIRST


class OperationsQuery(PageQuery):
    """Which operations to list."""

    instance_id: InstanceFilter = absent()
    done: Annotated[
        bool,
        Field(description="Only ended operations (`true`) or only running ones (`false`)"),
        Flag("done"),
    ] = absent()


class HistoryRoutes:
    """Handlers of events, operations and waits."""

    def __init__(self, history: History, operating: InstanceActions) -> None:
        self._history = history
        self._operating = operating
        self._waiting = 0

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [
            Route(
                method="GET",
                path=f"{paths.INSTANCE}/wait",
                id="waitForInstance",
                handler=self.wait,
                scope=Scope.READ,
                tag="Instances",
                summary="Wait for a status",
                answers={200: InstanceDetails, 202: InstanceDetails},
                errors=[NO_INSTANCE, _BAD_TIMEOUT, _OUT_OF_REACH, _TOO_MANY],
                patient=True,
            ),
            Route(
                method="GET",
                path=f"{paths.INSTANCE}/events",
                id="listInstanceEvents",
                handler=self.of_instance,
                scope=Scope.READ,
                tag="History",
                summary="List an instance's events",
                answers={200: ListEventsResponse},
                errors=[NO_INSTANCE, _BAD_CURSOR],
            ),
            Route(
                method="GET",
                path="/api/events",
                id="listEvents",
                handler=self.since,
                scope=Scope.READ,
                tag="History",
                summary="List the events of all instances",
                answers={200: ListEventsResponse},
                errors=[_BAD_SINCE],
            ),
            Route(
                method="GET",
                path="/api/operations",
                id="listOperations",
                handler=self.operations,
                scope=Scope.READ,
                tag="History",
                summary="List operations",
                answers={200: ListOperationsResponse},
                errors=[BAD_QUERY],
            ),
            Route(
                method="GET",
                path=paths.OPERATION,
                id="getOperation",
                handler=self.operation,
                scope=Scope.READ,
                tag="History",
                summary="Read an operation",
                answers={200: OperationView},
                errors=[_NO_OPERATION],
            ),
            Route(
                method="POST",
                path=f"{paths.OPERATION}/cancel",
                id="cancelOperation",
                handler=self.cancel,
                scope=Scope.WRITE,
                tag="History",
                summary="Cancel an operation",
                answers={200: OperationView},
                errors=[
                    _NO_OPERATION,
                    Conflict(
                        "Operation 'op_1' can no longer be cancelled",
                        details={"phase": "launch", "done": False},
                    ),
                ],
            ),
        ]

    async def wait(self, call: RouteCall, query: WaitQuery) -> Response:
        """Hold the request until the instance has a status.

        The response is 200 with the instance once it has the status, and 202 with the instance if
        the time is up or the server shuts down. It is 409 if the instance is `terminated`,
        `released` or `failed` and cannot reach the status without a new request; `error.details`
        then has the `instance`, its `error` and that error's `code`.
        """
        instance_id = call.named("instanceId")
        with self._seat():
            waited = await _while_there(
                call.request,
                self._history.wait(instance_id, query.status, query.timeout),
                call.context.closing.asked,
            )
        if waited is None:
            waited = await self._history.wait(instance_id, query.status, 0)
        shown = whole_view(waited.shown)
        if waited.out_of_reach:
            raise _out_of_reach(shown, query.status.value)
        return answer(orjson.dumps(shown), 200 if waited.reached else 202)

    async def of_instance(self, call: RouteCall, query: EventsQuery) -> Response:
        """List the events of an instance, even a terminated one, oldest first."""
        page = await self._history.of_instance(
            call.named("instanceId"), cursor=query.cursor, limit=query.most
        )
        return _events(call, page)

    async def since(self, call: RouteCall, query: SinceQuery) -> Response:
        """List the events of all instances, oldest first, or newest first with `order=desc`.

        Poll, oldest first, with the ID of the last event as `since`: no event is missed or
        repeated. Newest first, `since` ends the list, and events that come meanwhile are not on its
        later pages.
        """
        after, most = query.cursor, query.most
        if query.order is EventOrder.NEWEST_FIRST:
            page = await self._history.latest(query.since, cursor=after, limit=most)
            return _events(call, page)
        if not after:
            return _events(call, await self._history.since(query.since, limit=most))
        # A cursor is an event ID too, later than `since`.
        return _events(call, await self._history.since(after, limit=most, field="cursor"))

    async def operations(self, call: RouteCall, query: OperationsQuery) -> Response:
        """List operations of all instances or of one, newest first."""
        page = await self._history.operations(
            instance_id=query.instance_id, done=query.done, cursor=query.cursor, limit=query.most
        )
        shown = [_operation(one) for one in page.operations]
        return listed(call, ListOperationsResponse(operations=shown, next_cursor=page.next_cursor))

    async def operation(self, call: RouteCall) -> Response:
        """Read an operation; `outcome` says how it ended."""
        return answer(_operation(await self._history.operation(call.named("operationId"))))

    async def cancel(self, call: RouteCall, body: NoFields) -> Response:
        """Cancel an operation that has done nothing irreversible yet.

        A create can be cancelled until its create call may have been sent; after that, delete the
        instance. A deletion cannot be cancelled.
        """
        command = self._operating.cancel(call.named("operationId"), actor=call.actor)
        return await call.run_once(command, _cancelled)

    @contextmanager
    def _seat(self) -> Iterator[None]:
        """Count a waiting request.

        Raises:
            Overloaded: `MAX_WAITING` requests are waiting already.
        """
        if self._waiting >= MAX_WAITING:
            raise Overloaded(_TOO_MANY.message, retry_after=_TOO_MANY.retry_after)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1


async def _while_there(
    request: Request, work: Coroutine[Any, Any, T], until: asyncio.Event
) -> T | None:
    """Run work until it ends, the client disconnects or `until` is set; None for `until`.

    Raises:
        ClientDisconnect: the client disconnected; the work was cancelled.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(disconnected(request.receive))
    ending = asyncio.ensure_future(until.wait())
    try:
        await asyncio.wait({working, leaving, ending}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if leaving.done():
            raise ClientDisconnect
        return None
    finally:
        for task in (working, leaving, ending):
            task.cancel()
        await asyncio.gather(working, leaving, ending, return_exceptions=True)


def _out_of_reach(shown: InstanceDetails, wanted: str) -> Conflict:
    """Build the error for a status that cannot be reached, with the instance's own error."""
    details: dict[str, object] = {}
    why = ""
    error = shown.get("error")
    if isinstance(error, dict):
        details = {"code": error["code"], "error": error}
        why = f" ({error['code']}: {error['message']})"
    return Conflict(
        f"Instance '{shown['id']}' is {shown['status']}{why}: "
        f"it will not be {wanted} without a new request",
        details={**details, "instance": shown},
    )


def _events(call: RouteCall, page: EventPage) -> Response:
    shown = [EventView.of(one) for one in page.events]
    return listed(call, ListEventsResponse(events=shown, next_cursor=page.next_cursor))


def _cancelled(operation: Operation) -> Reply:
    return reply(_operation(operation))


def _operation(operation: Operation) -> OperationView:
    return OperationView(
        id=operation.id,
        kind=operation.kind,
        instance_id=operation.instance_id,
        phase=operation.phase,
        done=operation.done,
        outcome=operation.outcome,
        attempts=operation.attempts,
        error=_error(operation),
        actor=ActorView.of(operation.actor),
        created_at=operation.created_at,
        updated_at=operation.updated_at,
    )


def _error(operation: Operation) -> OperationErrorView | None:
    if operation.error_code is None:
        return None
    return OperationErrorView(code=operation.error_code, message=operation.error_message or "")
