# SPDX-License-Identifier: Apache-2.0
"""`/api/keys`: making, listing and revoking API keys."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from novitai.api.http.answers import json_reply
from novitai.api.openapi.document import Parameter
from novitai.api.openapi.lifecycle_schemas import NoFields
from novitai.api.openapi.schemas import (
    CreateKeyRequest,
    CreateKeyResponse,
    KeyView,
    ListKeysResponse,
)
from novitai.api.routing.common_errors import BAD_QUERY
from novitai.api.routing.lists import LIMIT, PLACE_CURSOR, listed, only_page
from novitai.api.routing.once import run_once
from novitai.api.routing.router import Call, Operation
from novitai.api.services import Services
from novitai.clock import iso
from novitai.domain.api_key import ApiKey, Scope, in_order
from novitai.domain.validation import parse_key_request
from novitai.domain.view import iso_or_none, present
from novitai.errors import Conflict, FieldError, NotFound, ValidationFailed
from novitai.lifecycle.api_keys import NewKey
from novitai.lifecycle.commands.idempotency import Reply

_KEY_ID: Final = Parameter("keyId", "The key's id", {"type": "string", "maxLength": 64}, "path")


class KeyRoutes:
    """Handlers of the key routes."""

    def __init__(self, services: Services) -> None:
        self._keys = services.keys
        self._commands = services.commands
        self._clock = services.clock

    def operations(self) -> list[Operation]:
        """Declare the routes."""
        return [
            Operation(
                method="POST",
                path="/api/keys",
                handler=self.create,
                scope=Scope.ADMIN,
                tag="Keys",
                summary="Make an API key",
                answers={201: CreateKeyResponse},
                body=CreateKeyRequest,
                errors=[
                    Conflict(
                        "This request was answered before; the key it made is not shown again",
                        code="IDEMPOTENCY_NOT_REPLAYABLE",
                        details={"id": "key_1"},
                    ),
                    ValidationFailed(
                        "Validation failed",
                        details=[FieldError("name", "Name is required", has_value=False)],
                    ),
                ],
            ),
            Operation(
                method="GET",
                path="/api/keys",
                handler=self.page,
                scope=Scope.ADMIN,
                tag="Keys",
                summary="List API keys",
                answers={200: ListKeysResponse},
                parameters=[LIMIT, PLACE_CURSOR],
                errors=[BAD_QUERY],
            ),
            Operation(
                method="DELETE",
                path="/api/keys/{keyId:id}",
                handler=self.revoke,
                scope=Scope.ADMIN,
                tag="Keys",
                summary="Revoke an API key",
                answers={200: KeyView},
                body=NoFields,
                parameters=[_KEY_ID],
                errors=[NotFound("There is no API key 'key_1'", code="KEY_NOT_FOUND")],
            ),
        ]

    async def create(self, call: Call) -> Response:
        """Make a key. The answer is the only time that the key itself is shown."""
        body = await call.body()
        command = self._keys.creation(parse_key_request(body.fields, now=self._clock.now()))
        return await run_once(self._commands, call, body, command, _made)

    async def page(self, call: Call) -> Response:
        """List keys, newest first, revoked and expired ones too."""
        most, after = only_page(call)
        page = await self._keys.page(limit=most, cursor=after)
        return listed(call, "keys", [_view(key) for key in page.keys], page.next_cursor)

    async def revoke(self, call: Call) -> Response:
        """Revoke a key. The next request with it is refused; within 2 s by other processes too."""
        body = await call.no_fields()
        command = self._keys.revocation(call.request.path_params["keyId"])
        return await run_once(self._commands, call, body, command, _revoked)


def _made(made: NewKey) -> Reply:
    shown = {**_view(made.key), "key": made.text}
    return json_reply(shown, 201, {"Cache-Control": "no-store"}, secret_of=made.key.id)


def _revoked(key: ApiKey) -> Reply:
    return json_reply(_view(key))


def _view(key: ApiKey) -> dict[str, object]:
    return present(
        {
            "id": key.id,
            "name": key.name,
            "scopes": [scope.value for scope in in_order(key.scopes)],
            "createdAt": iso(key.created_at),
            "expiresAt": iso_or_none(key.expires_at),
            "revokedAt": iso_or_none(key.revoked_at),
            "lastUsedAt": iso_or_none(key.last_used_at),
        }
    )
