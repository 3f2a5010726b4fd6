# SPDX-License-Identifier: Apache-2.0
"""`/api/keys`: create, list and revoke API keys."""

from __future__ import annotations

from starlette.responses import Response

from novitai.api.http.answers import answer, reply
from novitai.api.routing.common_errors import BAD_QUERY
from novitai.api.routing.lists import listed
from novitai.api.routing.queries import PageQuery
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.keys import (
    CreateKeyRequest,
    CreateKeyResponse,
    CurrentKeyResponse,
    KeyLimitsView,
    KeyView,
    ListKeysResponse,
)
from novitai.api.schemas.wire import NoFields
from novitai.api.services import Services
from novitai.domain.api_key import ApiKey, Scope, in_order
from novitai.errors import Conflict, FieldError, NotFound, ValidationFailed
from novitai.lifecycle.api_keys import NewKey
from novitai.lifecycle.commands.idempotency import Reply


class KeyRoutes:
    """Handlers of the key routes."""

    def __init__(self, services: Services) -> None:
        self._keys = services.keys

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [
            Route(
                method="POST",
                path="/api/keys",
                id="createKey",
                handler=self.create,
                scope=Scope.ADMIN,
                tag="Keys",
                summary="Create an API key",
                answers={201: CreateKeyResponse},
                errors=[
                    Conflict(
                        "This request was already answered; the secret in that answer is not shown "
                        "again",
                        code="IDEMPOTENCY_NOT_REPLAYABLE",
                        details={"id": "key_1"},
                    ),
                    ValidationFailed(
                        "Validation failed",
                        details=[FieldError("name", "Name is required", has_value=False)],
                    ),
                ],
            ),
            Route(
                method="GET",
                path="/api/keys",
                id="listKeys",
                handler=self.page,
                scope=Scope.ADMIN,
                tag="Keys",
                summary="List API keys",
                answers={200: ListKeysResponse},
                errors=[BAD_QUERY],
            ),
            Route(
                method="GET",
                path="/api/key",
                id="getCurrentKey",
                handler=self.current,
                scope=Scope.READ,
                tag="Keys",
                summary="Read the API key of the request",
                answers={200: CurrentKeyResponse},
            ),
            Route(
                method="DELETE",
                path="/api/keys/{keyId:id}",
                id="revokeKey",
                handler=self.revoke,
                scope=Scope.ADMIN,
                tag="Keys",
                summary="Revoke an API key",
                answers={200: KeyView},
                errors=[NotFound("There is no API key 'key_1'", code="KEY_NOT_FOUND")],
            ),
        ]

    async def create(self, call: RouteCall, body: CreateKeyRequest) -> Response:
        """Create an API key. The key itself is shown only in this response.

        `limits` bind every instance that the key creates, also after the key was revoked.
        """
        return await call.run_once(self._keys.creation(body.wanted()), _made)

    async def page(self, call: RouteCall, query: PageQuery) -> Response:
        """List API keys, newest first, including revoked and expired ones."""
        page = await self._keys.page(limit=query.most, cursor=query.cursor)
        shown = [_view(key) for key in page.keys]
        return listed(call, ListKeysResponse(keys=shown, next_cursor=page.next_cursor))

    async def current(self, call: RouteCall) -> Response:
        """Read the name, the scopes and the limits of the key that sends the request."""
        caller = call.caller
        key = await self._keys.stored(caller.key_id)
        return answer(
            CurrentKeyResponse(
                id=caller.key_id,
                name=caller.name,
                scopes=in_order(caller.scopes),
                created_at=None if key is None else key.created_at,
                expires_at=None if key is None else key.expires_at,
                limits=None if key is None else KeyLimitsView.of(key),
            )
        )

    async def revoke(self, call: RouteCall, body: NoFields) -> Response:
        """Revoke an API key. This process refuses it at once, other processes within 2 s."""
        return await call.run_once(self._keys.revocation(call.named("keyId")), _revoked)


def _made(made: NewKey) -> Reply:
    key = made.key
    shown = CreateKeyResponse(
        id=key.id,
        name=key.name,
        scopes=in_order(key.scopes),
        key=made.text,
        created_at=key.created_at,
        expires_at=key.expires_at,
        limits=KeyLimitsView.of(key),
    )
    return reply(shown, 201, {"Cache-Control": "no-store"}, secret_of=key.id)


def _revoked(key: ApiKey) -> Reply:
    return reply(_view(key))


def _view(key: ApiKey) -> KeyView:
    return KeyView(
        id=key.id,
        name=key.name,
        scopes=in_order(key.scopes),
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        last_used_at=key.last_used_at,
        limits=KeyLimitsView.of(key),
    )
