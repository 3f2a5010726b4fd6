# SPDX-License-Identifier: Apache-2.0
"""The Novita account: what is not ours, what is held, and what a person decides about both."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.answers import json_answer, json_reply
from novitai.api.openapi.document import Parameter
from novitai.api.openapi.lifecycle_schemas import (
    AccountResponse,
    AdoptInstanceRequest,
    ConfirmAccountRequest,
    ConfirmAccountResponse,
    ListUnmanagedResponse,
    NoFields,
    UnmanagedInstance,
)
from novitai.api.openapi.schemas import InstanceDetails
from novitai.api.routes.instances import INSTANCE_ID
from novitai.api.routing.common_errors import BAD_QUERY, NO_INSTANCE, UNKNOWN_FIELD
from novitai.api.routing.lists import LIMIT, MAX_LIMIT, WRAPPED_CURSOR, limit, listed, wrap, wrapped
from novitai.api.routing.once import run_once
from novitai.api.routing.queries import query_fields
from novitai.api.routing.router import Call, Operation
from novitai.clock import iso
from novitai.domain.account import HoldReason
from novitai.domain.account_requests import parse_adopt, parse_confirm
from novitai.domain.api_key import Scope
from novitai.domain.product import usd
from novitai.domain.view import View, iso_or_none, present
from novitai.errors import Conflict, FieldError, NotFound, ValidationFailed
from novitai.lifecycle.account import WHAT_TO_DO, Overview
from novitai.lifecycle.commands.idempotency import Commands, Reply
from novitai.lifecycle.commands.ownership import Adopted, Ownership, Shown

_UPSTREAM_ID: Final = Parameter(
    "upstreamId", "The instance's id at Novita", {"type": "string", "maxLength": 255}, "path"
)
_NOT_LISTED: Final = NotFound(
    "The last listing of the account holds no unmanaged instance '3560b7fec915bbf9'",
    code="UPSTREAM_INSTANCE_NOT_FOUND",
)
_MANAGED: Final = Conflict(
    "Instance '3560b7fec915bbf9' belongs to 'inst_1697843200_abc123' already",
    code="ALREADY_MANAGED",
    details={"instanceId": "inst_1697843200_abc123"},
)
_ELSEWHERE: Final = Conflict(
    "Instance '3560b7fec915bbf9' bears the marker of another novitai installation",
    code="MANAGED_ELSEWHERE",
)
_NOT_WAITING: Final = Conflict(
    "Instance 'inst_1697843200_abc123' does not wait to be bought", details={"status": "running"}
)
_BUSY: Final = Conflict(
    "Instance 'inst_1697843200_abc123' is busy: a stop is running",
    code="OPERATION_IN_PROGRESS",
    details={"operationId": "op_1", "kind": "stop"},
)
_NOTHING: Final = Conflict("Nothing is held", code="NOTHING_TO_CONFIRM")
_NO_ID: Final = ValidationFailed(
    "Validation failed",
    details=[FieldError("upstreamId", "Upstream ID is required", has_value=False)],
)


class AccountRoutes:
    """Handlers of the account."""

    def __init__(self, ownership: Ownership, commands: Commands) -> None:
        self._ownership = ownership
        self._commands = commands

    def operations(self) -> list[Operation]:
        """Declare the routes."""
        return [
            Operation(
                method="GET",
                path="/api/account",
                handler=self.overview,
                scope=Scope.READ,
                tag="Account",
                summary="Read what is known of the Novita account",
                answers={200: AccountResponse},
            ),
            Operation(
                method="POST",
                path="/api/account/confirm",
                handler=self.confirm,
                scope=Scope.ADMIN,
                tag="Account",
                summary="Confirm what is held",
                answers={200: ConfirmAccountResponse},
                body=ConfirmAccountRequest,
                errors=[_NOTHING, UNKNOWN_FIELD],
            ),
            Operation(
                method="GET",
                path="/api/instances/unmanaged",
                handler=self.unmanaged,
                scope=Scope.READ,
                tag="Account",
                summary="List the account's other instances",
                answers={200: ListUnmanagedResponse},
                parameters=[LIMIT, WRAPPED_CURSOR],
                errors=[BAD_QUERY],
            ),
            Operation(
                method="POST",
                path=f"{paths.UNMANAGED}/dismiss",
                handler=self.dismiss,
                scope=Scope.ADMIN,
                tag="Account",
                summary="Dismiss an instance that is no matter",
                answers={200: UnmanagedInstance},
                body=NoFields,
                parameters=[_UPSTREAM_ID],
                errors=[_NOT_LISTED],
            ),
            Operation(
                method="POST",
                path="/api/instances/adopt",
                handler=self.adopt,
                scope=Scope.ADMIN,
                tag="Account",
                summary="Adopt an instance of the account",
                answers={201: InstanceDetails},
                body=AdoptInstanceRequest,
                errors=[_NO_ID, _NOT_LISTED, NO_INSTANCE, _MANAGED, _ELSEWHERE, _NOT_WAITING],
            ),
            Operation(
                method="POST",
                path=f"{paths.INSTANCE}/release",
                handler=self.release,
                scope=Scope.ADMIN,
                tag="Account",
                summary="Release an instance",
                answers={200: InstanceDetails},
                body=NoFields,
                parameters=[INSTANCE_ID],
                errors=[NO_INSTANCE, _BUSY, _NOT_WAITING],
            ),
        ]

    async def overview(self, call: Call) -> Response:
        """Read whether the account is held, why, and what to do."""
        query_fields(call).finish()
        return json_answer(_overview(await self._ownership.overview()))

    async def confirm(self, call: Call) -> Response:
        """Accept the missing instances that were shown as gone, and a restored database as it is.

        `missingDigest` names the set. If another set is missing by now, nothing is confirmed.
        """
        body = await call.body(optional=True)
        command = self._ownership.confirm(parse_confirm(body.fields))
        return await run_once(
            self._commands, call, body, command, lambda count: json_reply({"confirmed": count})
        )

    async def unmanaged(self, call: Call) -> Response:
        """List what the last listing of the account held that is no record's own.

        It is never changed, stopped or deleted by this server, unless `NOVITAI_ORPHANS` says so
        of orphans that its own calls have made.
        """
        fields = query_fields(call)
        most = fields.read("limit", limit, MAX_LIMIT)
        after = fields.read("cursor", wrapped, b"")
        fields.finish()
        known = await self._ownership.unmanaged()
        found = [one for one in known if one.row.upstream_id.encode() > after]
        last = wrap(found[most - 1].row.upstream_id) if len(found) > most else None
        shown = [_unmanaged(one) for one in found[:most]]
        return listed(call, "instances", shown, last, total=len(known))

    async def dismiss(self, call: Call) -> Response:
        """Remember that an instance is no matter: no record waits for it any more."""
        body = await call.no_fields()
        command = self._ownership.dismiss(call.request.path_params["upstreamId"])
        return await run_once(
            self._commands, call, body, command, lambda shown: json_reply(_unmanaged(shown))
        )

    async def adopt(self, call: Call) -> Response:
        """Make an instance of the account a record: it is watched, and can be stopped and deleted.

        With `instanceId`, a record that waits to be bought is given it instead.
        """
        body = await call.body()
        command = self._ownership.adopt(parse_adopt(body.fields))
        return await run_once(self._commands, call, body, command, _adopted)

    async def release(self, call: Call) -> Response:
        """Let go of an instance: it goes on at Novita, and this server does nothing to it again."""
        body = await call.no_fields()
        command = self._ownership.release(call.request.path_params["instanceId"])
        return await run_once(self._commands, call, body, command, json_reply)


def _adopted(adopted: Adopted) -> Reply:
    location = f"/api/instances/{adopted.instance_id}"
    return json_reply(adopted.view, 201, {"Location": location})


def _unmanaged(shown: Shown) -> View:
    row = shown.row
    return present(
        {
            "upstreamId": row.upstream_id,
            "name": row.name,
            "status": row.status,
            "orphan": row.orphan,
            "dismissed": shown.dismissed or None,
            "hourlyPrice": None if row.hourly_price is None else usd(row.hourly_price),
            "createdAt": iso_or_none(row.created_at),
            "region": row.region or None,
        }
    )


def _overview(overview: Overview) -> View:
    state, looked = overview.state, overview.looked
    hold = None
    if state.blocked:
        reason = state.hold.reason if state.hold else HoldReason.RESTORED
        since = state.hold.since if state.hold else state.restored_at
        hold = {
            "reason": reason.value,
            "since": iso(since or 0),
            "message": WHAT_TO_DO[reason],
            "missing": [
                present(
                    {
                        "instanceId": one.instance_id,
                        "name": one.name,
                        "upstreamId": one.upstream_id,
                    }
                )
                for one in overview.missing
            ],
            "missingCount": len(state.hold.missing) if state.hold else 0,
            "missingDigest": overview.missing_digest,
        }
    return present(
        {
            "held": state.blocked,
            "hold": hold,
            "listedAt": iso_or_none(looked.complete_at),
            "incompleteListings": looked.incomplete_count,
            "orphans": overview.orphans,
        }
    )
