# SPDX-License-Identifier: Apache-2.0
"""Verbs on instances: start, stop, restart and delete, by ID or name; stop all; sync; credentials.

A verb is accepted in one transaction and executed afterwards; the response has the operation's ID.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import orjson
from pydantic import Field
from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.answers import answer, reply
from novitai.api.routes.instances import whole_view
from novitai.api.routing.common_errors import (
    NO_INSTANCE,
    OVER_BUDGET,
    RELEASED,
    UNKNOWN_FIELD,
)
from novitai.api.routing.queries import Flag
from novitai.api.routing.router import Handler, Route, RouteCall
from novitai.api.schemas.instances import (
    CredentialsResponse,
    InstanceNameRequest,
    LastUsedRequest,
    LeftAlone,
    StopAllResponse,
    StopBegun,
    SyncResponse,
    VerbResponse,
)
from novitai.api.schemas.wire import NoFields, RequestModel, absent
from novitai.api.services import ReadPort
from novitai.domain.api_key import Scope
from novitai.domain.instance_details import InstanceDetails
from novitai.domain.operation import OperationKind
from novitai.errors import ApiError, Conflict, FieldError, ValidationFailed
from novitai.lifecycle.commands.idempotency import Reply
from novitai.lifecycle.commands.instance_actions import Accepted, InstanceActions, StopAll

_ID: Final = "inst_1697843200_abc123"
_FOLLOW: Final = {"Location": "The path of the operation, if one was accepted"}

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
_AMBIGUOUS: Final = Conflict(
    "2 live instances are named 'my-instance': use an ID",
    code="AMBIGUOUS_NAME",
    details={"instanceIds": [_ID, "inst_1697843300_def456"]},
)
_PROTECTED: Final = Conflict(
    f"Instance '{_ID}' is protected: it holds the results of the week",
    code="INSTANCE_PROTECTED",
    details={"reason": "it holds the results of the week"},
)
_SPENT: Final = Conflict(
    f"Instance '{_ID}' has spent its maxSpend of 5.0 USD",
    code="LIMIT_REACHED",
    details={"limit": "maxSpend", "maxSpend": 5.0, "accruedAtMost": 5.00021},
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


class DeleteQuery(RequestModel):
    """Options of a deletion."""

    confirm: Annotated[
        bool,
        Field(description="Whether to send the call even if the account is held"),
        Flag("confirm"),
    ] = absent()


class InstanceActionRoutes:
    """Handlers of the verbs."""

    def __init__(self, operating: InstanceActions, instances: ReadPort) -> None:
        self._operating = operating
        self._instances = instances

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [
            *_verb(OperationKind.START, self.start, self.start_named),
            *_verb(OperationKind.STOP, self.stop, self.stop_named),
            *_verb(OperationKind.RESTART, self.restart, self.restart_named),
            *_verb(OperationKind.DELETE, self.delete, self.delete_named),
            Route(
                method="POST",
                path="/api/instances/stop-all",
                id="stopAllInstances",
                handler=self.stop_all,
                scope=Scope.WRITE,
                tag="Instances",
                summary="Stop every instance",
                answers={202: StopAllResponse},
            ),
            Route(
                method="POST",
                path="/api/instances/sync",
                id="syncInstances",
                handler=self.sync,
                scope=Scope.WRITE,
                tag="Instances",
                summary="Reconcile the records with the account now",
                answers={202: SyncResponse},
                sends=_FOLLOW,
            ),
            Route(
                method="PUT",
                path=f"{paths.INSTANCE}/last-used",
                id="recordInstanceUse",
                handler=self.record_usage,
                scope=Scope.WRITE,
                tag="Instances",
                summary="Record when an instance was last used",
                answers={200: InstanceDetails},
                errors=[NO_INSTANCE, _BAD_TIME],
            ),
            Route(
                method="GET",
                path=f"{paths.INSTANCE}/credentials",
                id="getInstanceCredentials",
                handler=self.credentials,
                scope=Scope.WRITE,
                tag="Instances",
                summary="Read an instance's passwords",
                answers={200: CredentialsResponse},
                errors=[NO_INSTANCE],
            ),
        ]

    async def start(self, call: RouteCall, body: NoFields) -> Response:
        """Start an instance that is `stopped`, or `failed` and was bought.

        If it is running already, the response is 200 with the instance.
        """
        return await self._ask(call, OperationKind.START)

    async def stop(self, call: RouteCall, body: NoFields) -> Response:
        """Stop an instance that is `running`; its disk is kept, and billed.

        If it is stopped already, the response is 200 with the instance.
        """
        return await self._ask(call, OperationKind.STOP)

    async def restart(self, call: RouteCall, body: NoFields) -> Response:
        """Restart an instance that is `running`."""
        return await self._ask(call, OperationKind.RESTART)

    async def delete(self, call: RouteCall, query: DeleteQuery, body: NoFields) -> Response:
        """Delete an instance and its data, in any status.

        A running operation is cancelled. The response is 200 if it is terminated already.
        """
        return await self._ask(call, OperationKind.DELETE, confirmed=bool(query.confirm))

    async def start_named(self, call: RouteCall, body: InstanceNameRequest) -> Response:
        """Start the only live instance with a name."""
        return await self._ask_named(call, OperationKind.START, body)

    async def stop_named(self, call: RouteCall, body: InstanceNameRequest) -> Response:
        """Stop the only live instance with a name."""
        return await self._ask_named(call, OperationKind.STOP, body)

    async def restart_named(self, call: RouteCall, body: InstanceNameRequest) -> Response:
        """Restart the only live instance with a name."""
        return await self._ask_named(call, OperationKind.RESTART, body)

    async def delete_named(self, call: RouteCall, body: InstanceNameRequest) -> Response:
        """Delete the only live instance with a name, and its data."""
        return await self._ask_named(call, OperationKind.DELETE, body)

    async def stop_all(self, call: RouteCall, body: NoFields) -> Response:
        """Stop all instances that can be stopped, in one transaction, and say why others cannot."""
        return await call.run_once(self._operating.stop_all(actor=call.actor), _all_told)

    async def sync(self, call: RouteCall, body: NoFields) -> Response:
        """List the account and reconcile the records now, before the next periodic listing.

        Poll the operation for completion.
        """
        return await call.run_once(self._operating.sync(actor=call.actor), _sync_told)

    async def record_usage(self, call: RouteCall, body: LastUsedRequest) -> Response:
        """Record when an instance was last used: `lastUsedAt`, or now if it is absent."""
        instance_id = call.named("instanceId")
        await call.apply(self._operating.record_usage(instance_id, body.last_used_at))
        return answer(orjson.dumps(whole_view(await self._instances.get(instance_id))))

    async def credentials(self, call: RouteCall) -> Response:
        """Read the passwords as Novita last reported them. No other response shows them."""
        instance_id = call.named("instanceId")
        found = await self._operating.credentials(instance_id)
        shown = CredentialsResponse.model_validate({"instanceId": instance_id, **found})
        return answer(shown, headers={"Cache-Control": "no-store"})

    async def _ask(
        self, call: RouteCall, kind: OperationKind, *, confirmed: bool = False
    ) -> Response:
        command = self._operating.ask(
            kind, call.named("instanceId"), actor=call.actor, confirmed=confirmed
        )
        return await call.run_once(command, _told)

    async def _ask_named(
        self, call: RouteCall, kind: OperationKind, body: InstanceNameRequest
    ) -> Response:
        command = self._operating.ask_by_name(kind, body.instance_name, actor=call.actor)
        return await call.run_once(command, _told)


def _verb(kind: OperationKind, by_id: Handler, by_name: Handler) -> list[Route]:
    """Declare the two routes of a verb: by ID and by name."""
    path, word = f"{paths.INSTANCE}/{kind.value}", kind.value.capitalize()
    operation_id = f"{kind.value}Instance"
    method = "POST"
    if kind is OperationKind.DELETE:
        method, path = "DELETE", paths.INSTANCE
    return [
        Route(
            method=method,
            path=path,
            id=operation_id,
            handler=by_id,
            scope=Scope.WRITE,
            tag="Instances",
            summary=f"{word} an instance",
            answers={202: VerbResponse, 200: InstanceDetails},
            sends=_FOLLOW,
            errors=[NO_INSTANCE, *_refusals(kind)],
        ),
        Route(
            method="POST",
            path=f"/api/instances/{kind.value}",
            id=f"{operation_id}ByName",
            handler=by_name,
            scope=Scope.WRITE,
            tag="Instances",
            summary=f"{word} an instance by its name",
            answers={202: VerbResponse, 200: InstanceDetails},
            sends=_FOLLOW,
            errors=[NO_INSTANCE, _AMBIGUOUS, *_refusals(kind), _BAD_NAME, UNKNOWN_FIELD],
        ),
    ]


_ABOVE_KEY: Final = Conflict(
    f"Instance '{_ID}' costs 1.2 USD an hour, over the 1 that the API key that created it allows",
    code="KEY_LIMIT_EXCEEDED",
    details={"key": "key_1", "limit": "maxHourlyPrice", "allowed": 1.0, "wanted": 1.2},
)


def _refusals(kind: OperationKind) -> Sequence[ApiError]:
    if kind is OperationKind.DELETE:
        return (RELEASED, _PROTECTED)
    state = Conflict(
        f"Instance '{_ID}' is terminating: {kind.value} is not possible",
        details={"status": "terminating"},
    )
    refused = (_SPENT, OVER_BUDGET, _ABOVE_KEY) if kind is OperationKind.START else ()
    return (state, _BUSY, RELEASED, *refused)


def _told(accepted: Accepted) -> Reply:
    operation = accepted.operation
    if operation is None:
        return reply(orjson.dumps(accepted.view()))
    told = VerbResponse(
        instance_id=accepted.instance.id,
        status=accepted.instance.status,
        operation_id=operation.id,
        message=f"Instance {_NOUNS[operation.kind]} initiated successfully",
    )
    return reply(told, 202, _location(operation.id))


def _all_told(done: StopAll) -> Reply:
    told = StopAllResponse(
        operations=[
            StopBegun(instance_id=one.instance.id, operation_id=one.operation.id)
            for one in done.accepted
            if one.operation is not None
        ],
        skipped=[LeftAlone.model_validate(one) for one in done.skipped],
    )
    return reply(told, 202)


def _sync_told(operation_id: str) -> Reply:
    return reply(SyncResponse(operation_id=operation_id), 202, _location(operation_id))


def _location(operation_id: str) -> dict[str, str]:
    """Build the `Location` header with the path of the operation."""
    return {"Location": f"/api/operations/{operation_id}"}
