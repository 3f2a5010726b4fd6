# SPDX-License-Identifier: Apache-2.0
"""What happened and what is under way: events, operations, waiting for a status.

A client that waits and goes away is noticed at once: nothing is held for nobody.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.answers import json_answer, json_reply
from novitai.api.openapi.document import Parameter
from novitai.api.openapi.lifecycle_schemas import (
    ListEventsResponse,
    NoFields,
    OperationView,
)
from novitai.api.openapi.schemas import InstanceDetails
from novitai.api.routes.instances import INSTANCE_ID, whole_view
from novitai.api.routing.common_errors import NO_INSTANCE
from novitai.api.routing.lists import (
    CURSOR,
    LIMIT,
    cursor,
    listed,
    only_page,
    read_page,
)
from novitai.api.routing.once import run_once
from novitai.api.routing.queries import one_of, query_fields
from novitai.api.routing.router import Call, Operation
from novitai.clock import iso
from novitai.domain.api_key import Scope
from novitai.domain.event import Event
from novitai.domain.fields import Wrong
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import Operation as Verb
from novitai.domain.view import View, present
from novitai.errors import Conflict, FieldError, NotFound, Overloaded, ValidationFailed
from novitai.lifecycle.commands.idempotency import Commands, Reply
from novitai.lifecycle.commands.instance_actions import Operating
from novitai.lifecycle.queries.history import EventPage, History

T = TypeVar("T")

MAX_WAITING: Final = 1000
"""How many requests may wait for a status at one time, in one process."""
MAX_SECONDS: Final = 300
DEFAULT_SECONDS: Final = 60

_STATUSES: Final = tuple(status.value for status in InstanceStatus)
_WHOLE: Final = re.compile(r"[0-9]{1,4}")

_OPERATION_ID: Final = Parameter(
    "operationId", "The operation's id", {"type": "string", "maxLength": 64}, "path"
)
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


class HistoryRoutes:
    """Handlers of what is read of the past, and of what is under way."""

    def __init__(self, history: History, operating: Operating, commands: Commands) -> None:
        self._history = history
        self._commands = commands
        self._operating = operating
        self._waiting = 0

    def operations(self) -> list[Operation]:
        """Declare the routes."""
        return [
            Operation(
                method="GET",
                path=f"{paths.INSTANCE}/wait",
                handler=self.wait,
                scope=Scope.READ,
                tag="Instances",
                summary="Wait for a status",
                answers={200: InstanceDetails, 202: InstanceDetails},
                parameters=[
                    INSTANCE_ID,
                    Parameter(
                        "status",
                        "The status to wait for",
                        {
                            "type": "string",
                            "enum": list(_STATUSES),
                            "default": InstanceStatus.RUNNING.value,
                        },
                    ),
                    Parameter(
                        "timeout",
                        "For how many seconds",
                        {
                            "type": "integer",
                            "minimum": 1,
                            "maximum": MAX_SECONDS,
                            "default": DEFAULT_SECONDS,
                        },
                    ),
                ],
                errors=[NO_INSTANCE, _BAD_TIMEOUT, _OUT_OF_REACH, _TOO_MANY],
                patient=True,
            ),
            Operation(
                method="GET",
                path=f"{paths.INSTANCE}/events",
                handler=self.of_instance,
                scope=Scope.READ,
                tag="History",
                summary="List an instance's events",
                answers={200: ListEventsResponse},
                parameters=[INSTANCE_ID, LIMIT, CURSOR],
                errors=[NO_INSTANCE, _BAD_CURSOR],
            ),
            Operation(
                method="GET",
                path="/api/events",
                handler=self.since,
                scope=Scope.READ,
                tag="History",
                summary="List the events of all instances",
                answers={200: ListEventsResponse},
                parameters=[
                    Parameter(
                        "since",
                        "Only what came after this event; `cursor` goes on from there",
                        {"type": "string", "maxLength": 64},
                    ),
                    LIMIT,
                    CURSOR,
                ],
                errors=[_BAD_SINCE],
            ),
            Operation(
                method="GET",
                path=paths.OPERATION,
                handler=self.operation,
                scope=Scope.READ,
                tag="History",
                summary="Read an operation",
                answers={200: OperationView},
                parameters=[_OPERATION_ID],
                errors=[_NO_OPERATION],
            ),
            Operation(
                method="POST",
                path=f"{paths.OPERATION}/cancel",
                handler=self.cancel,
                scope=Scope.WRITE,
                tag="History",
                summary="Cancel an operation",
                answers={200: OperationView},
                body=NoFields,
                parameters=[_OPERATION_ID],
                errors=[
                    _NO_OPERATION,
                    Conflict(
                        "Operation 'op_1' cannot be cancelled any more",
                        details={"phase": "launch", "done": False},
                    ),
                ],
            ),
        ]

    async def wait(self, call: Call) -> Response:
        """Hold the request until the instance has a status.

        200 with the instance when it has; 202 with the instance when time is up, or at once when
        the server is shutting down; 409 when it is `terminated`, `released` or `failed`, which
        nothing but a new request changes: then `error.details` has the `instance`, its `error`
        and that error's `code`.
        """
        fields = query_fields(call)
        wanted = fields.read("status", one_of("Status", _STATUSES), InstanceStatus.RUNNING.value)
        seconds = fields.read("timeout", _seconds, DEFAULT_SECONDS)
        fields.finish()
        instance_id = call.request.path_params["instanceId"]
        with self._seat():
            waited = await _while_there(
                call.request,
                self._history.wait(instance_id, InstanceStatus(wanted), seconds),
                call.context.closing.asked,
            )
        if waited is None:
            waited = await self._history.wait(instance_id, InstanceStatus(wanted), 0)
        shown = whole_view(waited.shown)
        if waited.out_of_reach:
            raise _out_of_reach(shown, wanted)
        return json_answer(shown, 200 if waited.reached else 202)

    async def of_instance(self, call: Call) -> Response:
        """List what happened to an instance, oldest first; after its termination too."""
        most, after = only_page(call)
        page = await self._history.of_instance(
            call.request.path_params["instanceId"], cursor=after, limit=most
        )
        return _events(call, page)

    async def since(self, call: Call) -> Response:
        """List what happened to all instances, oldest first.

        Ask again with the id of the last event seen as `since`: nothing is missed, nothing comes
        twice.
        """
        fields = query_fields(call)
        since = fields.read("since", cursor, None)
        most, after = read_page(fields)
        fields.finish()
        if after is None:
            return _events(call, await self._history.since(since, limit=most))
        # A cursor is the id of an event too, and further on than where the reading began.
        return _events(call, await self._history.since(after, limit=most, field="cursor"))

    async def operation(self, call: Call) -> Response:
        """Read an operation, running or over: `outcome` says how it ended."""
        found = await self._history.operation(call.request.path_params["operationId"])
        return json_answer(_operation(found))

    async def cancel(self, call: Call) -> Response:
        """Cancel an operation of which nothing irreversible has happened yet.

        A creation can be cancelled until it may have bought something; after that, delete the
        instance. A deletion cannot be cancelled.
        """
        body = await call.no_fields()
        command = self._operating.cancel(call.request.path_params["operationId"])
        return await run_once(self._commands, call, body, command, _cancelled)

    @contextmanager
    def _seat(self) -> Iterator[None]:
        """Count a request that waits.

        Raises:
            Overloaded: as many wait as may.
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
    """Do something for a client for as long as it is there; None if `until` was set first.

    Raises:
        ClientDisconnect: it has gone; the work was broken off.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
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


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _out_of_reach(shown: View, wanted: str) -> Conflict:
    """Say why a status cannot come any more; the instance's own reason first."""
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


def _seconds(value: object) -> int:
    if not isinstance(value, str) or not _WHOLE.fullmatch(value):
        raise Wrong("Timeout must be an integer")
    if not 1 <= int(value) <= MAX_SECONDS:
        raise Wrong(f"Timeout must be between 1 and {MAX_SECONDS}")
    return int(value)


def _events(call: Call, page: EventPage) -> Response:
    return listed(call, "events", [_event(one) for one in page.events], page.next_cursor)


def _event(event: Event) -> dict[str, object]:
    return {
        "id": event.id,
        "type": event.type.value,
        "at": iso(event.at),
        "data": event.data,
    }


def _cancelled(operation: Verb) -> Reply:
    return json_reply(_operation(operation))


def _operation(operation: Verb) -> dict[str, object]:
    return present(
        {
            "id": operation.id,
            "kind": operation.kind.value,
            "instanceId": operation.instance_id,
            "phase": operation.phase,
            "done": operation.done,
            "outcome": operation.outcome.value if operation.outcome else None,
            "attempts": operation.attempts,
            "error": _error(operation),
            "createdAt": iso(operation.created_at),
            "updatedAt": iso(operation.updated_at),
        }
    )


def _error(operation: Verb) -> dict[str, str] | None:
    if operation.error_code is None:
        return None
    return {"code": operation.error_code, "message": operation.error_message or ""}
