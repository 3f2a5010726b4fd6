# SPDX-License-Identifier: Apache-2.0
"""API keys: create, list, revoke, and authenticate requests with them."""

from __future__ import annotations

import asyncio
import functools
import hmac
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.api_key import (
    ApiKey,
    KeyRequest,
    Scope,
    make_key,
    well_formed,
)
from novitai.errors import NotFound, NovitaiError
from novitai.ids import Ids
from novitai.lifecycle.commands.idempotency import Transaction, outcome
from novitai.lifecycle.queries.pagination import MAX_PAGE, cut, read_place
from novitai.store.engine.database import Database
from novitai.store.queries import api_keys
from novitai.store.vault import Vault

ADMIN_KEY_ID: Final = "key_admin"

# A key revoked by another process is refused here after this time at most (promised: 2 s).
_TRUST_SECONDS: Final = 1.5
_MAX_REMEMBERED: Final = 4096
_TOUCH_EVERY_MS: Final = 60_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated caller of a request."""

    key_id: str
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key. `text` is the key itself; only its digest is stored."""

    key: ApiKey
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyPage:
    """A page of keys, newest first, and the cursor of the next page."""

    keys: Sequence[ApiKey]
    next_cursor: str | None


@dataclass(slots=True)
class _Remembered:
    key: ApiKey
    read_at: float
    touched_at: int | None


class KeyRing:
    """All API keys: those in the database and the one in the settings.

    Keys found in the database are cached by their digest for a short time. Unknown keys are not
    cached, so that guesses do not fill the memory.
    """

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        clock: Clock,
        ids: Ids,
        admin_api_key: str | None = None,
    ) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._ids = ids
        self._admin_digest = None if admin_api_key is None else vault.digest(admin_api_key)
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._revocations = 0
        self._touching: set[asyncio.Task[None]] = set()

    async def authenticate(self, bearer: str) -> Caller | None:
        """Return the caller of a key; None if it is malformed, unknown, expired or revoked."""
        digest = self._vault.digest(bearer)
        if self._admin_digest is not None and hmac.compare_digest(digest, self._admin_digest):
            return Caller(ADMIN_KEY_ID, frozenset({Scope.ADMIN}))
        if not well_formed(bearer):
            return None
        remembered = await self._look_up(digest)
        now = self._clock.now()
        if remembered is None or not remembered.key.usable(now):
            return None
        self._touch(remembered, now)
        key = remembered.key
        return Caller(key.id, key.scopes)

    async def create(self, request: KeyRequest) -> NewKey:
        """Create a key from the command line; only the result holds its text."""
        return await outcome(self._database.write(self.creation(request)))

    def creation(self, request: KeyRequest) -> Transaction[NewKey]:
        """Create a key for a client; only the result holds its text."""
        made = self._new(request)
        digest = self._vault.digest(made.text)

        def act(connection: Connection) -> NewKey:
            api_keys.insert(connection, made.key, digest)
            return made

        return act

    async def page(self, *, limit: int = MAX_PAGE, cursor: str | None = None) -> KeyPage:
        """List keys, newest first, including revoked and expired ones.

        Raises:
            ValidationFailed: `cursor` is invalid.
        """
        read = functools.partial(api_keys.page, limit=limit + 1, after=read_place(cursor))
        keys = await self._database.read(read)
        return KeyPage(*cut(keys, limit, lambda key: (key.created_at, key.id)))

    async def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key from the command line, as `revocation` does for a client."""
        return await outcome(self._database.write(self.revocation(key_id)))

    def revocation(self, key_id: str) -> Transaction[ApiKey]:
        """Revoke a key: at once in this process, within 2 s in others. Idempotent.

        Raises:
            NotFound: no key in the database has that ID.
        """
        return functools.partial(self._revoke, key_id=key_id)

    async def ensure_first_key(self) -> NewKey | None:
        """Create and return an admin key if no usable key exists; the caller shows it once.

        Of several processes that do this at the same time, only one creates a key.
        """
        now = self._clock.now()
        usable = functools.partial(api_keys.any_usable, now=now)
        if self._admin_digest is not None or await self._database.read(usable):
            return None
        made = self._new(KeyRequest("first key", frozenset({Scope.ADMIN})))
        digest = self._vault.digest(made.text)

        def insert_if_none(connection: Connection) -> bool:
            api_keys.lock(connection)
            if usable(connection):
                return False
            api_keys.insert(connection, made.key, digest)
            return True

        return made if await self._database.write(insert_if_none) else None

    async def flush(self) -> None:
        """Wait until all times of last use are written; call it before closing the database."""
        while self._touching:
            # Not `gather`: since Python 3.12 it returns at once if all tasks are done, and the
            # event loop would never run the callbacks that remove them from the set.
            await asyncio.wait(self._touching)

    def _revoke(self, connection: Connection, key_id: str) -> ApiKey:
        key = api_keys.revoke(connection, key_id=key_id, now=self._clock.now())
        if key is None:
            raise NotFound(f"There is no API key '{key_id}'", code="KEY_NOT_FOUND")
        # After the commit rather than after the await, which a disconnect may cancel.
        Database.after_commit(connection, self._forget)
        return key

    def _forget(self) -> None:
        # A concurrent look-up may have read the row before it changed: it sees the new count and
        # does not cache its result.
        self._revocations += 1
        self._remembered.clear()

    def _new(self, request: KeyRequest) -> NewKey:
        key = ApiKey(
            id=self._ids.prefixed("key"),
            name=request.name,
            scopes=request.scopes,
            created_at=self._clock.now(),
            expires_at=request.expires_at,
        )
        return NewKey(key, make_key(self._ids))

    async def _look_up(self, digest: str) -> _Remembered | None:
        began = self._clock.monotonic()
        remembered = self._remembered.get(digest)
        if remembered is not None and began - remembered.read_at < _TRUST_SECONDS:
            return remembered
        revocations = self._revocations
        key = await self._database.read(functools.partial(api_keys.by_digest, digest=digest))
        if key is None:
            self._remembered.pop(digest, None)
            return None
        touched_at = key.last_used_at if remembered is None else remembered.touched_at
        found = _Remembered(key, began, touched_at)
        if revocations == self._revocations:
            self._remembered[digest] = found
            self._remembered.move_to_end(digest)
            if len(self._remembered) > _MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        return found

    def _touch(self, remembered: _Remembered, now: int) -> None:
        if remembered.touched_at is not None and now - remembered.touched_at < _TOUCH_EVERY_MS:
            return
        remembered.touched_at = now
        # Not awaited: a busy database must not delay a request just to record its time.
        task = asyncio.ensure_future(self._write_use(remembered.key.id, now))
        self._touching.add(task)
        task.add_done_callback(self._touching.discard)

    async def _write_use(self, key_id: str, now: int) -> None:
        try:
            await self._database.write(
                functools.partial(
                    api_keys.touch, key_id=key_id, now=now, unless_since=now - _TOUCH_EVERY_MS + 1
                )
            )
        except NovitaiError as error:
            _log.warning("key_use_not_recorded", key_id=key_id, error=type(error).__name__)
