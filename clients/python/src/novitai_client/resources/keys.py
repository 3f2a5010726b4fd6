# SPDX-License-Identifier: Apache-2.0
"""API keys. All methods but `current` need a key with the scope `admin`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final, Unpack

from novitai_client.models.keys import ApiKey, CreatedKey, CurrentKey
from novitai_client.requests import KeyFields
from novitai_client.surface import IteratorMethod, Method, Mode, Resource
from novitai_client.wire import body, path, query

_PATH: Final = "/api/keys"


class Keys(Resource[Mode]):
    """API keys."""

    @Method
    async def create(
        self, *, idempotency_key: str | None = None, **fields: Unpack[KeyFields]
    ) -> CreatedKey:
        """Create a key. Its text is shown once and never stored.

        If the response was lost, the request is not repeated (`IdempotencyNotReplayable`, whose
        `details` have the ID): revoke that key, and create another one.

        Example:
            made = client.keys.create(
                name="ci", scopes=["read", "write"], limits={"max_instances": 3}
            )
            print(made.key)
        """
        return await self._api.fetch(
            CreatedKey, "POST", _PATH, content=body(fields), key=idempotency_key
        )

    @IteratorMethod
    async def list(self, *, limit: int | None = None) -> AsyncGenerator[ApiKey, None]:
        """Iterate over all keys, newest first, revoked and expired ones included.

        Example:
            for key in client.keys.list():
                print(key.name, key.last_used_at)
        """
        async for one in self._api.pages(ApiKey, _PATH, "keys", query(limit=limit)):
            yield one

    @Method
    async def current(self) -> CurrentKey:
        """Read the name, the scopes and the limits of the key of this client.

        Example:
            print(client.keys.current().scopes)
        """
        return await self._api.fetch(CurrentKey, "GET", "/api/key")

    @Method
    async def revoke(self, key_id: str, *, idempotency_key: str | None = None) -> ApiKey:
        """Revoke a key, effective at once.

        Example:
            client.keys.revoke("key_1")
        """
        place = path("api", "keys", key_id)
        return await self._api.fetch(ApiKey, "DELETE", place, key=idempotency_key)
