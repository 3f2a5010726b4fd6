# SPDX-License-Identifier: Apache-2.0
"""API key access for `novitai keys`: in the database, or through the server that has it open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from novitai.api.schemas.keys import CreateKeyRequest
from novitai.api.schemas.wire import read
from novitai.cli.local_client import LocalServer
from novitai.clock import Clock
from novitai.domain.api_key import ApiKey, Scope
from novitai.domain.key_limits import key_limits_from_json
from novitai.lifecycle.api_keys import KeyRing, NewKey


class Keys(Protocol):
    """Access to the API keys."""

    async def create(self, fields: Mapping[str, object]) -> NewKey:
        """Create a key from the fields of a request; call `shown` to keep it."""
        ...

    async def shown(self) -> None:
        """Confirm that the new key has been shown to the user."""
        ...

    async def all(self) -> list[ApiKey]:
        """List every key, newest first."""
        ...

    async def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key; raises `NovitaiError` if no key has this ID."""
        ...


class KeysHere:
    """Access to keys in a database that this process has open."""

    def __init__(self, ring: KeyRing, clock: Clock) -> None:
        self._ring = ring
        self._clock = clock

    async def create(self, fields: Mapping[str, object]) -> NewKey:
        """Create a key."""
        return await self._ring.create(
            read(CreateKeyRequest, fields, now=self._clock.now()).wanted()
        )

    async def shown(self) -> None:
        """Do nothing: the key was valid from the start."""

    async def all(self) -> list[ApiKey]:
        """List every key, newest first."""
        keys: list[ApiKey] = []
        cursor: str | None = None
        while True:
            page = await self._ring.page(cursor=cursor)
            keys += page.keys
            cursor = page.next_cursor
            if cursor is None:
                return keys

    async def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key."""
        return await self._ring.revoke(key_id)


class KeysOfServer:
    """Access to keys through a running server.

    The server revokes a new key if this process ends before it calls `shown`.
    """

    def __init__(self, server: LocalServer) -> None:
        self._server = server

    async def create(self, fields: Mapping[str, object]) -> NewKey:
        """Create a key."""
        made = await self._server.call("create_key", fields=fields)
        return NewKey(_key(made["key"]), made["text"])

    async def shown(self) -> None:
        """Tell the server to keep the key."""
        await self._server.call("key_shown")

    async def all(self) -> list[ApiKey]:
        """List every key, newest first."""
        keys: list[ApiKey] = []
        cursor: str | None = None
        while True:
            page = await self._server.call("list_keys", cursor=cursor)
            keys += [_key(key) for key in page["keys"]]
            cursor = page["next"]
            if cursor is None:
                return keys

    async def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key."""
        return _key(await self._server.call("revoke_key", id=key_id))


def _key(fields: Mapping[str, Any]) -> ApiKey:
    scopes, limits = fields["scopes"], fields.get("limits")
    read_as = {
        "scopes": frozenset(Scope(word) for word in scopes),
        "limits": limits and key_limits_from_json(limits),
    }
    return ApiKey(**{**fields, **read_as})
