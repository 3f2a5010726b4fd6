# SPDX-License-Identifier: Apache-2.0
"""Sessions of browsers, on each store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
from sqlalchemy import Connection, select
from structlog.testing import capture_logs

from novitai.domain.api_key import KeyRequest, Scope
from novitai.domain.session import CODE_MS, IDLE_MS, LONGEST_MS, Credential
from novitai.ids import Ids
from novitai.lifecycle.api_keys import ADMIN_KEY_ID, Caller, KeyRing, NewKey
from novitai.lifecycle.maintenance.housekeeping import Housekeeping
from novitai.lifecycle.sessions import NewSession, Sessions
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreBusy
from novitai.store.queries import sessions as queries
from novitai.store.tables import login_codes, sessions
from novitai.store.vault import Vault
from novitai.testing import ManualClock

VAULT = Vault(b"0123456789abcdef0123456789abcdef")
WRITER = KeyRequest("ci", frozenset({Scope.WRITE}))
WITHIN = 2.0
"""Seconds within which a session ends with its key."""


class Process:
    """The keys and sessions of one process on a store."""

    def __init__(self, database: Database, clock: ManualClock, admin: str | None = None) -> None:
        self.database = database
        self.clock = clock
        self.keys = KeyRing(
            database=database, vault=VAULT, clock=clock, ids=Ids(), admin_api_key=admin
        )
        self.sessions = Sessions(
            database=database, vault=VAULT, clock=clock, ids=Ids(), keys=self.keys
        )

    async def log_in(self, key: NewKey) -> NewSession:
        """Begin a session with a key."""
        caller = await self.keys.authenticate(key.text)
        assert caller is not None
        return await self.sessions.begin(caller)

    async def code(self, key_id: str) -> str:
        """Make a one-time code of a key."""
        made = await self.database.write(self.sessions.code_creation(key_id))
        assert made.text not in repr(made)
        return made.text

    async def flush(self) -> None:
        """Write all times of last use."""
        await self.keys.flush()
        await self.sessions.flush()


@pytest.fixture
async def one(database: Database, clock: ManualClock) -> AsyncIterator[Process]:
    """A process."""
    made = Process(database, clock)
    yield made
    await made.flush()


@pytest.fixture
async def other(database: Database, clock: ManualClock) -> AsyncIterator[Process]:
    """Another process on the same store."""
    made = Process(database, clock)
    yield made
    await made.flush()


async def test_a_session_is_as_good_as_its_key(one: Process, other: Process) -> None:
    """Its secret names the key, its scopes and the session in each process; a guess does not."""
    key = await one.keys.create(WRITER)
    begun = await one.log_in(key)
    caller = await other.sessions.authenticate(begun.secret)
    assert caller == Caller(key.key.id, WRITER.scopes, "ci", begun.session)
    assert caller.credential == Credential(key.key.id, begun.session.id)
    assert caller.actor.view() == {"keyId": key.key.id, "name": "ci"}
    for guess in ("", "x", Ids().secret(), key.text, begun.secret + "x"):
        assert await one.sessions.authenticate(guess) is None


async def test_only_digests_are_stored(one: Process) -> None:
    """Neither the secret of a session nor a code is in the database."""
    key = await one.keys.create(WRITER)
    begun, code = await one.log_in(key), await one.code(key.key.id)
    assert begun.secret not in repr(begun)

    rows = await one.database.read(
        lambda connection: [
            [tuple(row) for row in connection.execute(select(table))]
            for table in (sessions, login_codes)
        ]
    )
    assert all(rows)
    assert VAULT.digest(f"session {begun.secret}") in repr(rows)
    assert VAULT.digest(f"code {code}") in repr(rows)
    assert begun.secret not in repr(rows)
    assert code not in repr(rows)


async def test_no_secret_stands_in_for_another(one: Process) -> None:
    """A code is no session, a session is no code, and neither is a key."""
    key = await one.keys.create(WRITER)
    begun, code = await one.log_in(key), await one.code(key.key.id)
    assert await one.sessions.authenticate(code) is None
    assert await one.sessions.begin_with_code(begun.secret) is None
    assert await one.keys.authenticate(begun.secret) is None


async def test_a_session_that_is_not_used_ends(one: Process) -> None:
    """It ends 12 hours after its last use, to the minute, and a use before keeps it."""
    begun = await one.log_in(await one.keys.create(WRITER))
    for _ in range(3):
        await one.clock.advance(IDLE_MS / 1000 - 1)
        caller = await one.sessions.authenticate(begun.secret)
        await one.flush()
        assert caller is not None
        assert caller.session is not None
        assert caller.session.ends_at == one.clock.now() + IDLE_MS
    await one.clock.advance(IDLE_MS / 1000)
    assert await one.sessions.authenticate(begun.secret) is None


async def test_a_session_that_is_used_ends_too(one: Process) -> None:
    """It ends 7 days after the log-in, to the millisecond."""
    begun = await one.log_in(await one.keys.create(WRITER))
    end = one.clock.now() + LONGEST_MS
    while one.clock.now() + IDLE_MS // 2 < end:
        await one.clock.advance(IDLE_MS / 2000)
        assert await one.sessions.authenticate(begun.secret) is not None
        await one.flush()
    await one.clock.advance((end - one.clock.now()) / 1000 - 0.001)
    assert await one.sessions.authenticate(begun.secret) is not None
    await one.clock.advance(0.001)
    assert await one.sessions.authenticate(begun.secret) is None


async def test_the_last_use_is_written_once_a_minute(one: Process) -> None:
    """Uses within a minute of a recorded one are not written."""
    begun = await one.log_in(await one.keys.create(WRITER))
    read = partial(queries.by_ids, session_ids=[begun.session.id])
    recorded = []
    for _ in range(5):
        await one.clock.advance(25)
        await one.sessions.authenticate(begun.secret)
        await one.flush()
        (session,) = await one.database.read(read)
        recorded.append((session.last_used_at - begun.session.created_at) // 1000)
    assert recorded == [0, 0, 75, 75, 75]


async def test_a_use_that_cannot_be_written_counts_here(
    one: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database refuses to write it, the process that saw it remembers it, and logs it."""

    def refuse(_connection: Connection, *, session_id: str, now: int) -> None:
        raise StoreBusy(f"{session_id}: busy at {now}")

    monkeypatch.setattr(queries, "touch", refuse)
    begun = await one.log_in(await one.keys.create(WRITER))
    with capture_logs() as logs:
        await one.clock.advance(IDLE_MS / 1000 - 1)
        assert await one.sessions.authenticate(begun.secret) is not None
        await one.sessions.flush()
    assert [line["event"] for line in logs] == ["session_use_not_recorded"]
    await one.clock.advance(WITHIN)
    assert await one.sessions.authenticate(begun.secret) is not None


async def test_a_session_ends_with_its_key(one: Process, other: Process) -> None:
    """A revocation ends it at once in its process, and within 2 s in the others."""
    key = await one.keys.create(WRITER)
    begun = await one.log_in(key)
    assert await one.sessions.authenticate(begun.secret) is not None
    assert await other.sessions.authenticate(begun.secret) is not None
    await one.keys.revoke(key.key.id)
    assert await one.sessions.authenticate(begun.secret) is None
    await other.clock.advance(WITHIN)
    assert await other.sessions.authenticate(begun.secret) is None


async def test_a_session_ends_when_its_key_expires(one: Process) -> None:
    """It ends to the millisecond, although it is remembered."""
    expiring = KeyRequest("brief", frozenset({Scope.READ}), one.clock.now() + 1000)
    begun = await one.log_in(await one.keys.create(expiring))
    assert await one.sessions.authenticate(begun.secret) is not None
    await one.clock.advance(1)
    assert await one.sessions.authenticate(begun.secret) is None


async def test_a_session_can_be_ended(one: Process, other: Process) -> None:
    """It ends at once in its process and within 2 s in others; other sessions of the key go on."""
    key = await one.keys.create(WRITER)
    begun, kept = await one.log_in(key), await one.log_in(key)
    for process in (one, other):
        assert await process.sessions.authenticate(begun.secret) is not None
    for _ in range(2):
        await one.database.write(one.sessions.ending(begun.session.id))
    await asyncio.sleep(0)  # what follows a commit runs on the event loop
    assert await one.sessions.authenticate(begun.secret) is None
    await other.clock.advance(WITHIN)
    assert await other.sessions.authenticate(begun.secret) is None
    assert await other.sessions.authenticate(kept.secret) is not None


async def test_which_streams_may_go_on(one: Process, other: Process) -> None:
    """The keys and sessions that are usable are told at once in each process."""
    key, revoked = await one.keys.create(WRITER), await one.keys.create(WRITER)
    kept, ended, gone = await one.log_in(key), await one.log_in(key), await one.log_in(revoked)
    known = [
        Credential(key.key.id),
        Credential(revoked.key.id),
        *(begun.caller.credential for begun in (kept, ended, gone)),
        Credential(key.key.id, "sess_unknown"),
    ]
    await one.database.write(one.sessions.ending(ended.session.id))
    await one.keys.revoke(revoked.key.id)
    assert await other.sessions.usable(known) == {known[0], kept.caller.credential}
    await one.clock.advance(IDLE_MS / 1000)
    assert await other.sessions.usable(known) == {known[0]}


async def test_a_code_begins_one_session(one: Process, other: Process) -> None:
    """Any process takes a code, once; the session is that of its key."""
    key = await one.keys.create(WRITER)
    code = await one.code(key.key.id)
    begun = await other.sessions.begin_with_code(code)
    assert begun is not None
    assert begun.caller == Caller(key.key.id, WRITER.scopes, "ci", begun.session)
    assert await one.sessions.authenticate(begun.secret) == begun.caller
    for process in (one, other):
        assert await process.sessions.begin_with_code(code) is None


async def test_of_several_that_use_a_code_one_gets_a_session(one: Process, other: Process) -> None:
    """Concurrent uses in two processes begin one session."""
    key = await one.keys.create(WRITER)
    for _ in range(5):
        code = await one.code(key.key.id)
        begun = await asyncio.gather(
            *(process.sessions.begin_with_code(code) for process in (one, other) * 4)
        )
        assert len([found for found in begun if found is not None]) == 1


async def test_a_code_is_valid_for_a_minute(one: Process) -> None:
    """A millisecond before its end it is taken; at its end it is not."""
    key = await one.keys.create(WRITER)
    codes = [await one.code(key.key.id) for _ in range(2)]
    await one.clock.advance(CODE_MS / 1000 - 0.001)
    assert await one.sessions.begin_with_code(codes[0]) is not None
    await one.clock.advance(0.001)
    assert await one.sessions.begin_with_code(codes[1]) is None


async def test_a_code_of_a_revoked_key_is_refused(one: Process) -> None:
    """The key is looked up again when the code is used."""
    key = await one.keys.create(WRITER)
    code = await one.code(key.key.id)
    await one.keys.revoke(key.key.id)
    assert await one.sessions.begin_with_code(code) is None


async def test_the_key_of_the_settings_has_sessions(database: Database, clock: ManualClock) -> None:
    """They and its codes end when another key is set, or none."""
    first = Process(database, clock, "correct-horse-battery-staple")
    caller = await first.keys.authenticate("correct-horse-battery-staple")
    assert caller is not None
    begun, code = await first.sessions.begin(caller), await first.code(ADMIN_KEY_ID)
    assert await first.sessions.authenticate(begun.secret) == begun.caller
    assert await first.sessions.usable([begun.caller.credential]) == {begun.caller.credential}
    for later in (
        Process(database, clock, "another-horse-in-the-stable"),
        Process(database, clock),
    ):
        assert await later.sessions.authenticate(begun.secret) is None
        assert await later.sessions.usable([begun.caller.credential]) == set()
    again = await first.sessions.begin_with_code(code)
    assert again is not None
    assert again.caller.is_admin
    code = await first.code(ADMIN_KEY_ID)
    assert await Process(database, clock).sessions.begin_with_code(code) is None


async def test_the_user_who_starts_a_server_is_an_admin(
    database: Database, clock: ManualClock
) -> None:
    """The code is one of the key of the settings, or else of the oldest usable admin key."""
    one = Process(database, clock)
    assert await one.sessions.admin_code() is None
    admin = KeyRequest("ops", frozenset({Scope.READ, Scope.ADMIN}))
    expiring = KeyRequest("brief", frozenset({Scope.ADMIN}), clock.now() + 1)
    made = []
    for request in (WRITER, expiring, admin, admin, admin):
        made.append(await one.keys.create(request))
        await clock.advance(1)
    await one.keys.revoke(made[2].key.id)
    code = await one.sessions.admin_code()
    assert code is not None
    assert code.code.key_id == made[3].key.id
    with_key = Process(database, clock, "correct-horse-battery-staple")
    code = await with_key.sessions.admin_code()
    assert code is not None
    begun = await with_key.sessions.begin_with_code(code.text)
    assert begun is not None
    assert begun.caller.key_id == ADMIN_KEY_ID


async def test_ended_sessions_and_codes_are_deleted(one: Process) -> None:
    """Housekeeping deletes them, and nothing that can still be used."""
    key = await one.keys.create(WRITER)
    idle, used = await one.log_in(key), await one.log_in(key)
    await one.code(key.key.id)
    housekeeping = Housekeeping(one.database, one.clock)
    assert await housekeeping.once() == 0
    await one.clock.advance(IDLE_MS / 2000)
    assert await one.sessions.authenticate(used.secret) is not None
    await one.flush()
    assert await housekeeping.once() == 1
    await one.clock.advance(IDLE_MS / 2000)
    assert await housekeeping.once() == 1
    assert await one.sessions.authenticate(idle.secret) is None
    assert await one.sessions.authenticate(used.secret) is not None
