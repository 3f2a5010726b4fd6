# SPDX-License-Identifier: Apache-2.0
"""`/api/account` and unmanaged instances: holds, adoption and release."""

from __future__ import annotations

from typing import Final

import orjson
from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.answers import answer, reply
from novitai.api.routing.common_errors import BAD_QUERY, NO_INSTANCE, UNKNOWN_FIELD
from novitai.api.routing.lists import listed
from novitai.api.routing.queries import NoQuery, WrappedQuery
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.account import (
    AccountHold,
    AccountResponse,
    AdoptInstanceRequest,
    ConfirmAccountRequest,
    ConfirmAccountResponse,
    ListUnmanagedResponse,
    MissingInstance,
    UnmanagedInstance,
)
from novitai.api.schemas.wire import NoFields
from novitai.domain.account import HoldReason
from novitai.domain.api_key import Scope
from novitai.domain.instance_details import InstanceDetails
from novitai.domain.product import usd_or_none
from novitai.errors import Conflict, FieldError, NotFound, ValidationFailed
from novitai.lifecycle.account import WHAT_TO_DO, Overview
from novitai.lifecycle.commands.idempotency import Reply
from novitai.lifecycle.commands.ownership import Adopted, Ownership, UnmanagedShown

_NOT_LISTED: Final = NotFound(
    "The last listing of the account has no unmanaged instance '3560b7fec915bbf9'",
    code="UPSTREAM_INSTANCE_NOT_FOUND",
)
_MANAGED: Final = Conflict(
    "Instance '3560b7fec915bbf9' already belongs to 'inst_1697843200_abc123'",
    code="ALREADY_MANAGED",
    details={"instanceId": "inst_1697843200_abc123"},
)
_ELSEWHERE: Final = Conflict(
    "Instance '3560b7fec915bbf9' has the marker of another novitai installation",
    code="MANAGED_ELSEWHERE",
)
_NOT_WAITING: Final = Conflict(
    "Instance 'inst_1697843200_abc123' is not waiting for a purchase", details={"status": "running"}
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
    """Handlers of the account routes."""

    def __init__(self, ownership: Ownership) -> None:
        self._ownership = ownership

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [
            Route(
                method="GET",
                path="/api/account",
                id="getAccount",
                handler=self.overview,
                scope=Scope.READ,
                tag="Account",
                summary="Read the state of the Novita account",
                answers={200: AccountResponse},
                errors=[BAD_QUERY],
            ),
            Route(
                method="POST",
                path="/api/account/confirm",
                id="confirmAccount",
                handler=self.confirm,
                scope=Scope.ADMIN,
                tag="Account",
                summary="Confirm the account and end the hold",
                answers={200: ConfirmAccountResponse},
                errors=[_NOTHING, UNKNOWN_FIELD],
            ),
            Route(
                method="GET",
                path="/api/instances/unmanaged",
                id="listUnmanagedInstances",
                handler=self.unmanaged,
                scope=Scope.READ,
                tag="Account",
                summary="List unmanaged instances",
                answers={200: ListUnmanagedResponse},
                errors=[BAD_QUERY],
            ),
            Route(
                method="POST",
                path=f"{paths.UNMANAGED}/dismiss",
                id="dismissUnmanagedInstance",
                handler=self.dismiss,
                scope=Scope.ADMIN,
                tag="Account",
                summary="Dismiss an unmanaged instance",
                answers={200: UnmanagedInstance},
                errors=[_NOT_LISTED],
            ),
            Route(
                method="POST",
                path="/api/instances/adopt",
                id="adoptInstance",
                handler=self.adopt,
                scope=Scope.ADMIN,
                tag="Account",
                summary="Adopt an unmanaged instance",
                answers={201: InstanceDetails},
                sends={"Location": "The path of the instance"},
                errors=[_NO_ID, _NOT_LISTED, NO_INSTANCE, _MANAGED, _ELSEWHERE, _NOT_WAITING],
            ),
            Route(
                method="POST",
                path=f"{paths.INSTANCE}/release",
                id="releaseInstance",
                handler=self.release,
                scope=Scope.ADMIN,
                tag="Account",
                summary="Release an instance",
                answers={200: InstanceDetails},
                errors=[NO_INSTANCE, _BUSY, _NOT_WAITING],
            ),
        ]

    async def overview(self, _call: RouteCall, query: NoQuery) -> Response:
        """Read whether write calls are held, why, and what to do."""
        return answer(_overview(await self._ownership.overview()))

    async def confirm(self, call: RouteCall, body: ConfirmAccountRequest) -> Response:
        """Confirm that the missing instances are gone, or that a restored database is right.

        `missingDigest` names the set of instances. If the set has changed, nothing is confirmed.
        """
        return await call.run_once(
            self._ownership.confirm(body.missing_digest, actor=call.actor),
            lambda count: reply(ConfirmAccountResponse(confirmed=count)),
        )

    async def unmanaged(self, call: RouteCall, query: WrappedQuery) -> Response:
        """List the instances in the last listing of the account that belong to no record.

        This server never changes, stops or deletes them, except orphans of its own create calls
        if `NOVITAI_ORPHANS` says so.
        """
        after = bytes.fromhex(query.cursor or "")
        known = await self._ownership.unmanaged()
        found = [one for one in known if one.row.upstream_id.encode() > after]
        shown = found[: query.most]
        more = len(found) > len(shown)
        return listed(
            call,
            ListUnmanagedResponse(
                instances=[_unmanaged(one) for one in shown],
                total=len(known),
                next_cursor=shown[-1].row.upstream_id.encode().hex() if more else None,
            ),
        )

    async def dismiss(self, call: RouteCall, body: NoFields) -> Response:
        """Dismiss an unmanaged instance: no record waits for it any longer."""
        return await call.run_once(
            self._ownership.dismiss(call.named("upstreamId")),
            lambda shown: reply(_unmanaged(shown)),
        )

    async def adopt(self, call: RouteCall, body: AdoptInstanceRequest) -> Response:
        """Adopt an unmanaged instance: it gets a record and is watched, and verbs work on it.

        With `instanceId`, a record that waits to be bought gets the instance instead.
        """
        command = self._ownership.adopt(body.wanted(), actor=call.actor)
        return await call.run_once(command, _adopted)

    async def release(self, call: RouteCall, body: NoFields) -> Response:
        """Release an instance: it stays as it is at Novita; no verb works on it any longer."""
        return await call.run_once(
            self._ownership.release(call.named("instanceId"), actor=call.actor),
            lambda view: reply(orjson.dumps(view)),
        )


def _adopted(adopted: Adopted) -> Reply:
    location = f"/api/instances/{adopted.instance_id}"
    return reply(orjson.dumps(adopted.view), 201, {"Location": location})


def _unmanaged(shown: UnmanagedShown) -> UnmanagedInstance:
    row = shown.row
    return UnmanagedInstance(
        upstream_id=row.upstream_id,
        name=row.name,
        status=row.status,
        orphan=row.orphan,
        dismissed=shown.dismissed or None,
        hourly_price=usd_or_none(row.hourly_price),
        created_at=row.created_at,
        region=row.region or None,
    )


def _overview(overview: Overview) -> AccountResponse:
    state = overview.state
    return AccountResponse(
        held=state.blocked,
        hold=_hold(overview) if state.blocked else None,
        listed_at=overview.looked.complete_at,
        incomplete_listings=overview.looked.incomplete_count,
        orphans=overview.orphans,
    )


def _hold(overview: Overview) -> AccountHold:
    state = overview.state
    reason = state.hold.reason if state.hold else HoldReason.RESTORED
    since = state.hold.since if state.hold else state.restored_at
    return AccountHold(
        reason=reason,
        since=since or 0,
        message=WHAT_TO_DO[reason],
        missing=[MissingInstance.model_validate(one) for one in overview.missing],
        missing_count=len(state.hold.missing) if state.hold else 0,
        missing_digest=overview.missing_digest,
    )
