# SPDX-License-Identifier: Apache-2.0
"""The key ring."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from novitai.domain.api_key import ApiKey, KeyRequest, Scope, make_key, well_formed
from novitai.errors import NotFound, ValidationFailed
from novitai.ids import Ids
from novitai.lifecycle.api_keys import ADMIN_KEY_ID, KeyRing
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreBusy
from novitai.store.engine.moments import Moment
from novitai.store.queries import api_keys
from novitai.store.vault import Vault
from novitai.testing import ManualClock

T = TypeVar("T")

VAULT = Vault(b"0123456789abcdef0123456789abcdef")
READER = KeyRequest("ci", frozenset({Scope.READ}))


class Watched(Database):
    """A database that counts queries, can reject writes, and can delay the answers to reads."""

    def __init__(self, inner: Database) -> None:
        self.inner = inner
        self.reads = 0
        self.writes = 0
        self.refuse_writes = False
        self.hold: asyncio.Event | None = None
        self.holding = asyncio.Event()

    async def read(self, fn: Callable[[Connection], T], *, snapshot: bool = False) -> T:
        self.reads += 1
        answer = await self.inner.read(fn, snapshot=snapshot)
        if self.hold is not None:
            self.holding.set()
            await self.hold.wait()
        return answer

    async def write(self, fn: Callable[[Connection], T], *, deadline: int | None = None) -> T:
        self.writes += 1
        if self.refuse_writes:
            raise StoreBusy("busy")
        return await self.inner.write(fn, deadline=deadline)

    async def moment(self) -> Moment:
        raise NotImplementedError

    @staticmethod
    def _probe(connection: Connection) -> None:
        raise NotImplementedError

    def _release(self) -> None:
        raise NotImplementedError


@pytest.fixture
def watched(sqlite_database: Database) -> Watched:
    """Return a watched database."""
    return Watched(sqlite_database)


def ring_over(database: Database, clock: ManualClock, admin: str | None = None) -> KeyRing:
    """Make a ring, as one process would."""
    return KeyRing(database=database, vault=VAULT, clock=clock, ids=Ids(), admin_api_key=admin)


@pytest.fixture
def ring(watched: Watched, clock: ManualClock) -> KeyRing:
    """Return a ring without a configured key."""
    return ring_over(watched, clock)


async def stored(database: Database, key_id: str) -> ApiKey:
    """Read a key's row."""
    key = await database.read(partial(api_keys.by_id, key_id=key_id))
    assert key is not None
    return key


async def test_a_new_key_is_good_and_a_guess_is_not(database: Database, clock: ManualClock) -> None:
    """The key that was shown is accepted, on both stores; a guess is not."""
    ring = ring_over(database, clock)
    made = await ring.create(READER)
    caller = await ring.authenticate(made.text)
    await ring.flush()
    assert caller is not None
    assert (caller.key_id, caller.scopes) == (made.key.id, READER.scopes)
    assert await ring.authenticate(make_key(Ids())) is None
    assert made.text not in repr(made)


async def test_what_is_no_key_costs_no_look_up(ring: KeyRing, watched: Watched) -> None:
    """A wrong checksum is detected without the database."""
    for text in ("", "secret", "nvt_" + "a" * 38, make_key(Ids()) + "x"):
        assert await ring.authenticate(text) is None
    assert watched.reads == 0


async def test_a_known_key_is_looked_up_once_in_a_while(
    ring: KeyRing, watched: Watched, clock: ManualClock
) -> None:
    """A key is cached, and read again within 2 s."""
    made = await ring.create(READER)
    for _ in range(50):
        assert await ring.authenticate(made.text)
    assert watched.reads == 1
    await clock.advance(2)
    assert await ring.authenticate(made.text)
    assert watched.reads == 2
    await ring.flush()


async def test_unknown_keys_fill_no_memory(ring: KeyRing) -> None:
    """Unknown keys are not cached."""
    for _ in range(100):
        assert await ring.authenticate(make_key(Ids())) is None
    assert len(ring._remembered) == 0


async def test_remembered_keys_are_bounded(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of cached keys is bounded."""
    monkeypatch.setattr("novitai.lifecycle.api_keys._MAX_REMEMBERED", 3)
    for _ in range(5):
        made = await ring.create(READER)
        assert await ring.authenticate(made.text)
    assert len(ring._remembered) == 3
    await ring.flush()


async def test_revocation_is_effective_at_once_here(ring: KeyRing) -> None:
    """The next request is rejected; revoking twice is harmless."""
    made = await ring.create(READER)
    assert await ring.authenticate(made.text)
    revoked = await ring.revoke(made.key.id)
    assert revoked.revoked_at is not None
    assert await ring.authenticate(made.text) is None
    assert (await ring.revoke(made.key.id)).revoked_at == revoked.revoked_at
    await ring.flush()


async def test_a_look_up_on_its_way_does_not_undo_a_revocation(
    ring: KeyRing, watched: Watched
) -> None:
    """A row read before the revocation is not cached after it."""
    made = await ring.create(READER)
    watched.hold = asyncio.Event()
    early = asyncio.create_task(ring.authenticate(made.text))
    await watched.holding.wait()
    await ring.revoke(made.key.id)
    watched.hold.set()
    await early
    assert await ring.authenticate(made.text) is None
    await ring.flush()


async def test_revocation_reaches_other_processes_within_two_seconds(
    ring: KeyRing, watched: Watched, clock: ManualClock
) -> None:
    """Another process that cached the key stops accepting it."""
    elsewhere = ring_over(watched.inner, clock)
    made = await ring.create(READER)
    assert await elsewhere.authenticate(made.text)
    await ring.revoke(made.key.id)
    await clock.advance(2)
    assert await elsewhere.authenticate(made.text) is None
    await elsewhere.flush()


async def test_a_key_expires_even_while_it_is_remembered(ring: KeyRing, clock: ManualClock) -> None:
    """Expiry is checked at each request."""
    made = await ring.create(KeyRequest("ci", READER.scopes, clock.now() + 1000))
    assert await ring.authenticate(made.text)
    await clock.advance(1)
    assert await ring.authenticate(made.text) is None
    await ring.flush()


async def test_use_is_written_at_most_once_a_minute(
    ring: KeyRing, watched: Watched, clock: ManualClock
) -> None:
    """The first use is written, then at most one per minute."""
    made = await ring.create(READER)
    began = clock.now()
    for _ in range(59):
        assert await ring.authenticate(made.text)
        await ring.flush()
        await clock.advance(1)
    assert (await stored(watched.inner, made.key.id)).last_used_at == began
    assert watched.writes == 2
    await clock.advance(1)
    assert await ring.authenticate(made.text)
    await ring.flush()
    assert (await stored(watched.inner, made.key.id)).last_used_at == began + 60_000


async def test_a_use_that_cannot_be_written_refuses_nobody(ring: KeyRing, watched: Watched) -> None:
    """If writes fail, valid keys are still accepted."""
    made = await ring.create(READER)
    watched.refuse_writes = True
    assert await ring.authenticate(made.text)
    await ring.flush()


async def test_the_key_of_the_settings_is_an_admin(watched: Watched, clock: ManualClock) -> None:
    """It may have any format, is not in the database, and a prefix of it is invalid."""
    ring = ring_over(watched, clock, admin="correct-horse-battery-staple")
    caller = await ring.authenticate("correct-horse-battery-staple")
    assert caller is not None
    assert caller.key_id == ADMIN_KEY_ID
    assert caller.scopes == {Scope.ADMIN}
    assert await ring.authenticate("correct-horse-battery-stapl") is None
    assert watched.reads == 0


async def test_the_first_key_is_made_once(ring: KeyRing) -> None:
    """A server without any key makes one admin key."""
    made = await ring.ensure_first_key()
    assert made is not None
    assert well_formed(made.text)
    caller = await ring.authenticate(made.text)
    assert caller is not None
    assert caller.scopes == {Scope.ADMIN}
    assert await ring.ensure_first_key() is None
    await ring.flush()


async def test_processes_that_start_at_once_make_one_first_key(
    database: Database, clock: ManualClock
) -> None:
    """Processes that start together make only one key."""
    rings = [ring_over(database, clock) for _ in range(8)]
    made = await asyncio.gather(*(ring.ensure_first_key() for ring in rings))
    assert len([key for key in made if key is not None]) == 1
    assert len((await rings[0].page()).keys) == 1


async def test_no_first_key_where_the_settings_have_one(
    watched: Watched, clock: ManualClock
) -> None:
    """If an admin key is configured, no first key is made."""
    ring = ring_over(watched, clock, admin="correct-horse-battery-staple")
    assert await ring.ensure_first_key() is None
    assert (await ring.page()).keys == []


async def test_keys_are_listed_a_page_at_a_time(ring: KeyRing, clock: ManualClock) -> None:
    """Keys are listed newest first, each once."""
    made = []
    for _ in range(5):
        made.append((await ring.create(READER)).key.id)
        await clock.advance(1)
    listed: list[str] = []
    cursor = None
    for _ in range(3):
        page = await ring.page(limit=2, cursor=cursor)
        listed += [key.id for key in page.keys]
        cursor = page.next_cursor
    assert cursor is None
    assert listed == made[::-1]


async def test_closing_ends_where_the_last_use_has_just_been_written(ring: KeyRing) -> None:
    """Closing works before the callback of the last write has run."""
    task = asyncio.ensure_future(asyncio.sleep(0, None))
    ring._writing.add(task)
    task.add_done_callback(ring._writing.discard)
    while not task.done():  # noqa: ASYNC110 - an event would be set later
        await asyncio.sleep(0)
    assert task in ring._writing
    await asyncio.wait_for(ring.flush(), 60)
    assert not ring._writing


async def test_what_is_no_cursor_is_refused(ring: KeyRing) -> None:
    """An invalid cursor is a client error."""
    with pytest.raises(ValidationFailed):
        await ring.page(cursor="nonsense")


async def test_revoking_what_is_not_there_is_told(ring: KeyRing) -> None:
    """An unknown ID is not found; neither is the configured key."""
    with pytest.raises(NotFound) as caught:
        await ring.revoke("key_nobody")
    assert caught.value.code == "KEY_NOT_FOUND"
    with pytest.raises(NotFound):
        await ring.revoke(ADMIN_KEY_ID)
