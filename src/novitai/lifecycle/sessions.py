# SPDX-License-Identifier: Apache-2.0
"""Sessions of browsers: begin them with a key or a one-time code, end them, and authenticate.

A session has the scopes of its API key and ends with it. Only digests of its secret are stored.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.api_key import ApiKey
from novitai.domain.session import CODE_MS, LONGEST_MS, Credential, LoginCode, Session
from novitai.errors import NovitaiError
from novitai.ids import Ids
from novitai.lifecycle.api_keys import ADMIN_KEY_ID, Caller, KeyRing
from novitai.lifecycle.commands.idempotency import Transaction, outcome
from novitai.store.engine.database import Database
from novitai.store.queries import api_keys, sessions
from novitai.store.vault import Vault

# Together with the time of one request, less than the 2 s within which a session ends with its key.
_TRUST_SECONDS: Final = 1.5
_MAX_REMEMBERED: Final = 4096
_TOUCH_EVERY_MS: Final = 60_000
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NewSession:
    """A new session. `secret` is the value of its cookie; only its digest is stored."""

    session: Session
    caller: Caller
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewCode:
    """A new one-time code. `text` is the code itself; only its digest is stored."""

    code: LoginCode
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _KnownSession:
    """A session with its key, as they were read; no key means that of the settings."""

    session: Session
    key: ApiKey | None
    caller: Caller

    def usable(self, now: int) -> bool:
        """Whether neither the session nor its key has ended."""
        return self.session.usable(now) and (self.key is None or self.key.usable(now))


@dataclass(slots=True)
class _RememberedSession:
    """A session as read at a time, and how many keys and sessions this process had ended then."""

    known: _KnownSession
    read_at: float
    age: tuple[int, int]

    def used(self, at: int) -> None:
        """Note a use, unless a later one is known."""
        session, caller = self.known.session, self.known.caller
        if at > session.last_used_at:
            session = replace(session, last_used_at=at)
            self.known = replace(
                self.known, session=session, caller=replace(caller, session=session)
            )


class Sessions:
    """All sessions. Those found in the database are cached by their digest for a short time."""

    def __init__(
        self, *, database: Database, vault: Vault, clock: Clock, ids: Ids, keys: KeyRing
    ) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._ids = ids
        self._keys = keys
        self._remembered: OrderedDict[str, _RememberedSession] = OrderedDict()
        self._endings = 0
        self._touching: set[asyncio.Task[None]] = set()

    async def authenticate(self, secret: str) -> Caller | None:
        """Return the caller of a session; None if it is malformed, unknown or has ended."""
        if not _SECRET.fullmatch(secret):
            return None
        found = await self._look_up(secret)
        now = self._clock.now()
        if found is None or not found.known.usable(now):
            return None
        self._touch(found, now)
        return found.known.caller

    async def begin(self, caller: Caller) -> NewSession:
        """Begin a session of the key of an authenticated caller."""
        secret = self._ids.secret()
        digest = self._digest("session", secret)
        session = self._new(caller.key_id, self._keys.settings_digest_of(caller.key_id))
        write = partial(sessions.insert, session=session, digest=digest)
        await outcome(self._database.write(write))
        return NewSession(session, replace(caller, session=session), secret)

    async def begin_with_code(self, code: str) -> NewSession | None:
        """Begin a session with a one-time code, which is used up; None if it is not valid."""
        if not _SECRET.fullmatch(code):
            return None
        secret = self._ids.secret()
        digest = self._digest("session", secret)
        wanted = self._digest("code", code)

        def act(connection: Connection) -> NewSession | None:
            taken = sessions.take_code(connection, wanted, self._clock.now())
            if taken is None:
                return None
            session = self._new(taken.key_id, taken.settings_key_digest)
            found = self._with_key(connection, session)
            if found is None or not found.usable(self._clock.now()):
                return None
            sessions.insert(connection, session, digest)
            return NewSession(session, found.caller, secret)

        return await outcome(self._database.write(act))

    def code_creation(self, key_id: str) -> Transaction[NewCode]:
        """Make a one-time code with which a browser can begin a session of a key."""
        text = self._ids.secret()
        digest = self._digest("code", text)

        def act(connection: Connection) -> NewCode:
            made = LoginCode(
                self._ids.prefixed("code"),
                key_id,
                self._keys.settings_digest_of(key_id),
                self._clock.now() + CODE_MS,
            )
            sessions.insert_code(connection, made, digest)
            return NewCode(made, text)

        return act

    async def admin_code(self) -> NewCode | None:
        """Make a one-time code of the key of the settings or else of the oldest admin key.

        For the user who starts a server, and who may make keys there. None if there is no such key.
        """

        def act(connection: Connection) -> NewCode | None:
            if self._keys.settings_caller is not None:
                return self.code_creation(ADMIN_KEY_ID)(connection)
            key_id = api_keys.oldest_admin(connection, self._clock.now())
            return None if key_id is None else self.code_creation(key_id)(connection)

        return await outcome(self._database.write(act))

    def ending(self, session_id: str) -> Transaction[None]:
        """End a session: at once in this process, within 2 s in others. Idempotent."""

        def act(connection: Connection) -> None:
            sessions.remove(connection, session_id)
            Database.after_commit(connection, self._forget)

        return act

    async def usable(self, credentials: Collection[Credential]) -> set[Credential]:
        """Return those whose key and, if they came by one, whose session has not ended."""
        keys = await self._keys.usable({one.key_id for one in credentials})
        now = self._clock.now()
        wanted = {one.session_id for one in credentials if one.session_id is not None}
        read = partial(sessions.by_ids, session_ids=wanted)
        found = await self._database.read(read) if wanted else []
        open_ids = {one.id for one in found if one.usable(now) and self._fits(one)}
        return {
            one
            for one in credentials
            if one.key_id in keys and (one.session_id is None or one.session_id in open_ids)
        }

    async def flush(self) -> None:
        """Wait until all times of last use are written; call it before closing the database."""
        while self._touching:
            await asyncio.wait(self._touching)

    async def _look_up(self, secret: str) -> _RememberedSession | None:
        began = self._clock.monotonic()
        digest = self._digest("session", secret)
        # A concurrent revocation or ending changes it, so that a row read before is not trusted.
        age = (self._keys.revocations, self._endings)
        remembered = self._remembered.get(digest)
        if (
            remembered is not None
            and remembered.age == age
            and began - remembered.read_at < _TRUST_SECONDS
        ):
            return remembered

        def read(connection: Connection) -> _KnownSession | None:
            session = sessions.by_digest(connection, self._digests("session", secret))
            return None if session is None else self._with_key(connection, session)

        known = await self._database.read(read)
        if known is None:
            self._remembered.pop(digest, None)
            return None
        found = _RememberedSession(known, began, age)
        if remembered is not None:  # its last use may not be written yet
            found.used(remembered.known.session.last_used_at)
        self._remembered[digest] = found
        self._remembered.move_to_end(digest)
        if len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return found

    def _with_key(self, connection: Connection, session: Session) -> _KnownSession | None:
        """Find the key of a session; None if there is none any more."""
        if session.key_id == ADMIN_KEY_ID:
            caller = self._keys.settings_caller
            if caller is None or not self._fits(session):
                return None
            return _KnownSession(session, None, replace(caller, session=session))
        key = api_keys.by_id(connection, session.key_id)
        if key is None:
            return None
        return _KnownSession(session, key, Caller(key.id, key.scopes, key.name, session))

    def _fits(self, session: Session) -> bool:
        """Whether a session of the key of the settings began with the key that is set now."""
        known = self._keys.settings_digests_of(session.key_id) or ("",)
        digest = session.settings_key_digest or ""
        return any(hmac.compare_digest(digest, one) for one in known)

    def _new(self, key_id: str, settings_key_digest: str | None) -> Session:
        now = self._clock.now()
        return Session(
            self._ids.prefixed("sess"), key_id, settings_key_digest, now, now, now + LONGEST_MS
        )

    def _digest(self, kind: str, secret: str) -> str:
        # No API key has a space, so no secret of one kind is accepted in place of another.
        return self._vault.digest(f"{kind} {secret}")

    def _digests(self, kind: str, secret: str) -> tuple[str, ...]:
        """Return the digest, and during a rotation also that of the previous secret key."""
        previous = self._vault.previous
        present = self._digest(kind, secret)
        return (present,) if previous is None else (present, previous.digest(f"{kind} {secret}"))

    def _forget(self) -> None:
        self._endings += 1

    def _touch(self, found: _RememberedSession, now: int) -> None:
        session = found.known.session
        if now - session.last_used_at < _TOUCH_EVERY_MS:
            return
        found.used(now)
        # Not awaited: a busy database must not delay a request just to record its time.
        task = asyncio.ensure_future(self._write_use(session, now))
        self._touching.add(task)
        task.add_done_callback(self._touching.discard)

    async def _write_use(self, session: Session, now: int) -> None:
        try:
            await self._database.write(partial(sessions.touch, session_id=session.id, now=now))
        except NovitaiError as error:
            _log.warning(
                "session_use_not_recorded", key_id=session.key_id, error=type(error).__name__
            )
