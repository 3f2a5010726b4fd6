# SPDX-License-Identifier: Apache-2.0
"""API keys: create, list, revoke, and authenticate requests with them."""

from __future__ import annotations

import asyncio
import functools
import hmac
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.actor import Actor
from novitai.domain.api_key import (
    ApiKey,
    KeyRequest,
    Scope,
    allows,
    make_key,
    well_formed,
)
from novitai.domain.budgets import Budget, BudgetAction, BudgetScope, BudgetTerms
from novitai.domain.session import Credential, Session
from novitai.errors import NotFound, NovitaiError
from novitai.ids import Ids
from novitai.lifecycle.commands.idempotency import Transaction, outcome
from novitai.lifecycle.queries.pagination import MAX_PAGE, cut, read_place
from novitai.store.engine.database import Database
from novitai.store.queries import api_keys, budgets
from novitai.store.vault import Vault

ADMIN_KEY_ID: Final = "key_admin"
ADMIN_KEY_NAME: Final = "NOVITAI_ADMIN_API_KEY"
"""The name of the key in the settings, as an actor."""

# A key revoked by another process is refused here after this time at most (promised: 2 s).
_TRUST_SECONDS: Final = 1.5
_MAX_REMEMBERED: Final = 4096
_TOUCH_EVERY_MS: Final = 60_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated caller of a request; `session` is set if a browser sent its cookie."""

    key_id: str
    scopes: frozenset[Scope]
    name: str = ""
    session: Session | None = None

    @property
    def actor(self) -> Actor:
        """The caller as the actor of changes."""
        return Actor(self.key_id, self.name)

    @property
    def credential(self) -> Credential:
        """How the caller is known."""
        return Credential(self.key_id, None if self.session is None else self.session.id)

    @property
    def is_admin(self) -> bool:
        """Whether the key has the scope `admin`, which no key with limits has."""
        return allows(self.scopes, Scope.ADMIN)


_ADMIN: Final = Caller(ADMIN_KEY_ID, frozenset({Scope.ADMIN}), ADMIN_KEY_NAME)


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
    caller: Caller
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
        self._admin_digests: tuple[str, ...] = ()
        if admin_api_key is not None:
            known = (vault, vault.previous)
            self._admin_digests = tuple(one.digest(admin_api_key) for one in known if one)
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._revocations = 0
        self._writing: set[asyncio.Task[None]] = set()

    @property
    def revocations(self) -> int:
        """How many keys this process has revoked: what was read before may be outdated."""
        return self._revocations

    @property
    def settings_caller(self) -> Caller | None:
        """The caller with the key of the settings; None if none is set."""
        return None if self._admin_digest is None else _ADMIN

    def settings_digest_of(self, key_id: str) -> str | None:
        """Return the digest of the key of the settings; None for the ID of another key."""
        return self._admin_digest if key_id == ADMIN_KEY_ID else None

    def settings_digests_of(self, key_id: str) -> tuple[str, ...]:
        """Return all digests of the key of the settings, during a rotation of the secret two."""
        return self._admin_digests if key_id == ADMIN_KEY_ID else ()

    async def authenticate(self, bearer: str) -> Caller | None:
        """Return the caller of a key; None if it is malformed, unknown, expired or revoked."""
        digest = self._vault.digest(bearer)
        if self._admin_digest is not None and hmac.compare_digest(digest, self._admin_digest):
            return _ADMIN
        if not well_formed(bearer):
            return None
        remembered = await self._look_up(digest, bearer)
        now = self._clock.now()
        if remembered is None or not remembered.key.usable(now):
            return None
        self._touch(remembered, now)
        return remembered.caller

    async def usable(self, key_ids: Collection[str]) -> set[str]:
        """Return those of some keys, given by ID, that are neither expired nor revoked."""
        read = functools.partial(api_keys.usable_of, key_ids=key_ids, now=self._clock.now())
        found = await self._database.read(read)
        return found if self._admin_digest is None else found | {ADMIN_KEY_ID}

    async def stored(self, key_id: str) -> ApiKey | None:
        """Return the record of a key; None for the key in the settings, which has no record."""
        return await self._database.read(functools.partial(api_keys.by_id, key_id=key_id))

    async def create(self, request: KeyRequest) -> NewKey:
        """Create a key from the command line; only the result holds its text."""
        return await outcome(self._database.write(self.creation(request)))

    def creation(self, request: KeyRequest) -> Transaction[NewKey]:
        """Create a key for a client; only the result holds its text."""
        made = self._new(request)
        digest = self._vault.digest(made.text)

        budget = self._budget_of(made.key)

        def act(connection: Connection) -> NewKey:
            api_keys.insert(connection, made.key, digest, secret_id=self._vault.secret_id)
            if budget is not None:
                budgets.insert(connection, budget)
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
            api_keys.insert(connection, made.key, digest, secret_id=self._vault.secret_id)
            return True

        return made if await self._database.write(insert_if_none) else None

    async def flush(self) -> None:
        """Wait for all writes in the background; call it before closing the database."""
        while self._writing:
            # Not `gather`: since Python 3.12 it returns at once if all tasks are done, and the
            # event loop would never run the callbacks that remove them from the set.
            await asyncio.wait(self._writing)

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
            limits=request.limits,
        )
        return NewKey(key, make_key(self._ids))

    def _budget_of(self, key: ApiKey) -> Budget | None:
        """Return the budget among the limits of a new key."""
        wanted = None if key.limits is None else key.limits.budget
        if wanted is None:
            return None
        terms = BudgetTerms(
            key.name,
            wanted.amount,
            wanted.period,
            scope=BudgetScope(key_id=key.id),
            on_limit=BudgetAction.STOP,
        )
        return Budget(
            self._ids.prefixed("bud"), terms, key.created_at, key.created_at, key_limit=True
        )

    async def _look_up(self, digest: str, bearer: str) -> _Remembered | None:
        began = self._clock.monotonic()
        remembered = self._remembered.get(digest)
        if remembered is not None and began - remembered.read_at < _TRUST_SECONDS:
            return remembered
        revocations = self._revocations
        key = await self._database.read(functools.partial(api_keys.by_digest, digest=digest))
        if key is None:
            key = await self._with_previous_secret(digest, bearer)
        if key is None:
            self._remembered.pop(digest, None)
            return None
        touched_at = key.last_used_at if remembered is None else remembered.touched_at
        found = _Remembered(key, Caller(key.id, key.scopes, key.name), began, touched_at)
        if revocations == self._revocations:
            self._remembered[digest] = found
            self._remembered.move_to_end(digest)
            if len(self._remembered) > _MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        return found

    async def _with_previous_secret(self, digest: str, bearer: str) -> ApiKey | None:
        """Find a key by its digest of the previous secret key, and have the digest renewed."""
        previous = self._vault.previous
        if previous is None:
            return None
        before = previous.digest(bearer)
        key = await self._database.read(functools.partial(api_keys.by_digest, digest=before))
        if key is not None:
            renewal = functools.partial(
                api_keys.renew_digest,
                key_id=key.id,
                before=before,
                digest=digest,
                secret_id=self._vault.secret_id,
            )
            self._in_background(self._write(renewal, key.id, "digest"))
        return key

    def _touch(self, remembered: _Remembered, now: int) -> None:
        if remembered.touched_at is not None and now - remembered.touched_at < _TOUCH_EVERY_MS:
            return
        remembered.touched_at = now
        use = functools.partial(
            api_keys.touch,
            key_id=remembered.key.id,
            now=now,
            unless_since=now - _TOUCH_EVERY_MS + 1,
        )
        self._in_background(self._write(use, remembered.key.id, "last_used_at"))

    def _in_background(self, write: Coroutine[Any, Any, None]) -> None:
        """Write without waiting: a busy database must not delay a request for this."""
        task = asyncio.ensure_future(write)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(
        self, transaction: Callable[[Connection], None], key_id: str, column: str
    ) -> None:
        try:
            await self._database.write(transaction)
        except NovitaiError as error:
            failure = type(error).__name__
            _log.warning("key_not_updated", key_id=key_id, column=column, error=failure)
