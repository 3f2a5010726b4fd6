# SPDX-License-Identifier: Apache-2.0
"""What can be done to instances: start, stop, restart, delete, by id or by name, and all at once.

A verb is accepted in one commit and carried out afterwards; its answer names the operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.answers import json_answer, json_reply
from novitai.api.openapi.document import Parameter
from novitai.api.openapi.lifecycle_schemas import (
    CredentialsResponse,
    InstanceNameRequest,
    LastUsedRequest,
    NoFields,
    StopAllResponse,
    SyncResponse,
    VerbResponse,
)
from novitai.api.openapi.schemas import InstanceDetails
from novitai.api.routes.instances import INSTANCE_ID, whole_view
from novitai.api.routing.common_errors import NO_INSTANCE, RELEASED, UNKNOWN_FIELD
from novitai.api.routing.once import run_once
from novitai.api.routing.queries import flag as query_flag
from novitai.api.routing.queries import query_fields
from novitai.api.routing.router import Call, Handler, Operation
from novitai.api.services import ReadPort
from novitai.clock import parse_iso
from novitai.domain.api_key import Scope
from novitai.domain.fields import Fields, Wrong
from novitai.domain.operation import OperationKind
from novitai.domain.validation import parse_instance_name
from novitai.errors import ApiError, Conflict, FieldError, ValidationFailed
from novitai.lifecycle.commands.idempotency import Commands, Reply
from novitai.lifecycle.commands.instance_actions import Accepted, Operating, StopAll

_ID: Final = "inst_1697843200_abc123"
_END_OF_TIME: Final = 253_402_300_800_000
"""The year 10000, in Unix milliseconds: what cannot be written as ISO-8601 any more."""

_NOUNS: Final = {
    OperationKind.START: "start",
    OperationKind.STOP: "stop",
    OperationKind.RESTART: "restart",
    OperationKind.DELETE: "deletion",
}
_BUSY: Final = Conflict(
    f"Instance '{_ID}' is busy: a create is running",
    code="OPERATION_IN_PROGRESS",
    details={"operationId": "op_1", "kind": "create"},
)
_CONFIRM: Final = Parameter(
    "confirm",
    "Whether the call may leave although the account is held",
    {"type": "boolean"},
)
_AMBIGUOUS: Final = Conflict(
    "2 live instances are named 'my-instance': use an id",
    code="AMBIGUOUS_NAME",
    details={"instanceIds": [_ID, "inst_1697843300_def456"]},
)
_BAD_NAME: Final = ValidationFailed(
    "Validation failed",
    code="INVALID_INSTANCE_NAME",
    details=[FieldError("instanceName", "Instance name is required", has_value=False)],
)
_BAD_TIME: Final = ValidationFailed(
    "Validation failed",
    details=[
        FieldError(
            "lastUsedAt",
            "Last used at must be an ISO-8601 time with an offset, such as Z",
            "yesterday",
        )
    ],
)


class VerbRoutes:
    """Handlers of the verbs."""

    def __init__(self, operating: Operating, instances: ReadPort, commands: Commands) -> None:
        self._operating = operating
        self._commands = commands
        self._instances = instances

    def operations(self) -> list[Operation]:
        """Declare the routes."""
        return [
            *_verb(OperationKind.START, self.start, self.start_named),
            *_verb(OperationKind.STOP, self.stop, self.stop_named),
            *_verb(OperationKind.RESTART, self.restart, self.restart_named),
            *_verb(OperationKind.DELETE, self.delete, self.delete_named),
            Operation(
                method="POST",
                path="/api/instances/stop-all",
                handler=self.stop_all,
                scope=Scope.WRITE,
                tag="Instances",
                summary="Stop every instance",
                answers={202: StopAllResponse},
                body=NoFields,
            ),
            Operation(
                method="POST",
                path="/api/instances/sync",
                handler=self.sync,
                scope=Scope.WRITE,
                tag="Instances",
                summary="List the account now",
                answers={202: SyncResponse},
                body=NoFields,
            ),
            Operation(
                method="PUT",
                path=f"{paths.INSTANCE}/last-used",
                handler=self.note_use,
                scope=Scope.WRITE,
                tag="Instances",
                summary="Note when an instance was last used",
                answers={200: InstanceDetails},
                body=LastUsedRequest,
                parameters=[INSTANCE_ID],
                errors=[NO_INSTANCE, _BAD_TIME],
            ),
            Operation(
                method="GET",
                path=f"{paths.INSTANCE}/credentials",
                handler=self.credentials,
                scope=Scope.WRITE,
                tag="Instances",
                summary="Read an instance's passwords",
                answers={200: CredentialsResponse},
                parameters=[INSTANCE_ID],
                errors=[NO_INSTANCE],
            ),
        ]

    async def start(self, call: Call) -> Response:
        """Start an instance that is `stopped`, or `failed` and was bought.

        One that runs already is answered with 200 as it is.
        """
        return await self._ask(call, OperationKind.START)

    async def stop(self, call: Call) -> Response:
        """Stop an instance that is `running`; its disk is kept, and billed.

        One that is stopped already is answered with 200 as it is.
        """
        return await self._ask(call, OperationKind.STOP)

    async def restart(self, call: Call) -> Response:
        """Restart an instance that is `running`."""
        return await self._ask(call, OperationKind.RESTART)

    async def delete(self, call: Call) -> Response:
        """Delete an instance and all that is on it, whatever its state.

        It cancels whatever operation runs. One that is terminated already is answered with 200.
        """
        return await self._ask(call, OperationKind.DELETE)

    async def start_named(self, call: Call) -> Response:
        """Start the one live instance of a name."""
        return await self._ask_named(call, OperationKind.START)

    async def stop_named(self, call: Call) -> Response:
        """Stop the one live instance of a name."""
        return await self._ask_named(call, OperationKind.STOP)

    async def restart_named(self, call: Call) -> Response:
        """Restart the one live instance of a name."""
        return await self._ask_named(call, OperationKind.RESTART)

    async def delete_named(self, call: Call) -> Response:
        """Delete the one live instance of a name, and all that is on it."""
        return await self._ask_named(call, OperationKind.DELETE)

    async def stop_all(self, call: Call) -> Response:
        """Ask every instance to stop that can be, in one commit, and say why others are left."""
        body = await call.no_fields()
        return await run_once(self._commands, call, body, self._operating.stop_all(), _all_told)

    async def sync(self, call: Call) -> Response:
        """Compare the records with Novita's list of the account without waiting for the next turn.

        Poll the operation to see that it is done.
        """
        body = await call.no_fields()
        return await run_once(self._commands, call, body, self._operating.sync(), _sync_told)

    async def note_use(self, call: Call) -> Response:
        """Note when an instance was last used: now, unless `lastUsedAt` says when."""
        fields = Fields((await call.body(optional=True)).fields)
        at = fields.read("lastUsedAt", _time, None)
        fields.finish()
        instance_id = call.request.path_params["instanceId"]
        command = self._operating.note_use(instance_id, at)
        await self._commands.apply(command, deadline=call.context.deadline)
        return json_answer(whole_view(await self._instances.get(instance_id)))

    async def credentials(self, call: Call) -> Response:
        """Read the passwords as Novita last told them. They are shown nowhere else."""
        instance_id = call.request.path_params["instanceId"]
        found = await self._operating.credentials(instance_id)
        return json_answer(
            {"instanceId": instance_id, **found}, headers={"Cache-Control": "no-store"}
        )

    async def _ask(self, call: Call, kind: OperationKind) -> Response:
        confirmed = False
        if kind is OperationKind.DELETE:
            fields = query_fields(call)
            confirmed = fields.read("confirm", query_flag("confirm"), False)
            fields.finish()
        body = await call.no_fields()
        instance_id = call.request.path_params["instanceId"]
        command = self._operating.ask(kind, instance_id, confirmed=confirmed)
        return await run_once(self._commands, call, body, command, _told)

    async def _ask_named(self, call: Call, kind: OperationKind) -> Response:
        body = await call.body()
        command = self._operating.ask_by_name(kind, parse_instance_name(body.fields))
        return await run_once(self._commands, call, body, command, _told)


def _verb(kind: OperationKind, by_id: Handler, by_name: Handler) -> list[Operation]:
    """Declare a verb: of an instance's id, and of its name."""
    path, word = f"{paths.INSTANCE}/{kind.value}", kind.value.capitalize()
    method = "POST"
    if kind is OperationKind.DELETE:
        method, path = "DELETE", paths.INSTANCE
    return [
        Operation(
            method=method,
            path=path,
            handler=by_id,
            scope=Scope.WRITE,
            tag="Instances",
            summary=f"{word} an instance",
            answers={202: VerbResponse, 200: InstanceDetails},
            body=NoFields,
            parameters=[INSTANCE_ID, *([_CONFIRM] if kind is OperationKind.DELETE else [])],
            errors=[NO_INSTANCE, *_refusals(kind)],
        ),
        Operation(
            method="POST",
            path=f"/api/instances/{kind.value}",
            handler=by_name,
            scope=Scope.WRITE,
            tag="Instances",
            summary=f"{word} an instance by its name",
            answers={202: VerbResponse, 200: InstanceDetails},
            body=InstanceNameRequest,
            errors=[NO_INSTANCE, _AMBIGUOUS, *_refusals(kind), _BAD_NAME, UNKNOWN_FIELD],
        ),
    ]


def _refusals(kind: OperationKind) -> Sequence[ApiError]:
    if kind is OperationKind.DELETE:
        return (RELEASED,)
    state = Conflict(
        f"Instance '{_ID}' is terminating: it cannot be asked to {kind.value}",
        details={"status": "terminating"},
    )
    return (state, _BUSY, RELEASED)


def _told(accepted: Accepted) -> Reply:
    operation = accepted.operation
    if operation is None:
        return json_reply(accepted.view())
    body = {
        "instanceId": accepted.instance.id,
        "status": accepted.instance.status.value,
        "operationId": operation.id,
        "message": f"Instance {_NOUNS[operation.kind]} initiated successfully",
    }
    return json_reply(body, 202, _location(operation.id))


def _all_told(done: StopAll) -> Reply:
    body = {
        "operations": [
            {"instanceId": one.instance.id, "operationId": one.operation.id}
            for one in done.accepted
            if one.operation is not None
        ],
        "skipped": [{"instanceId": one.instance_id, "reason": one.reason} for one in done.skipped],
    }
    return json_reply(body, 202)


def _sync_told(operation_id: str) -> Reply:
    return json_reply({"operationId": operation_id}, 202, _location(operation_id))


def _location(operation_id: str) -> dict[str, str]:
    """Say where the operation can be followed."""
    return {"Location": f"/api/operations/{operation_id}"}


def _time(value: object) -> int:
    wrong = Wrong("Last used at must be an ISO-8601 time with an offset, such as Z")
    if not isinstance(value, str):
        raise wrong
    try:
        at = parse_iso(value)
    except (ValueError, OverflowError):
        raise wrong from None
    if not 0 <= at < _END_OF_TIME:
        raise Wrong("Last used at must be between the years 1970 and 9999")
    return at
