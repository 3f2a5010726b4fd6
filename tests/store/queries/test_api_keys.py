# SPDX-License-Identifier: Apache-2.0
"""Queries on API keys, on both stores."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from novitai.domain.api_key import ApiKey, Scope
from novitai.store.engine.database import Database
from novitai.store.queries import api_keys
from novitai.store.tables import api_keys as table


def key(number: int, created_at: int = 0, expires_at: int | None = None) -> ApiKey:
    """Make a key to store."""
    scopes = frozenset({Scope.WRITE, Scope.READ})
    return ApiKey(f"key_{number}", f"name {number}", scopes, created_at, expires_at)


async def store(database: Database, *keys: ApiKey) -> None:
    """Store keys under the digests `d<id>`."""

    def insert(connection: Connection) -> None:
        for stored in keys:
            api_keys.insert(connection, stored, "d" + stored.id)

    await database.write(insert)


async def test_a_key_is_found_by_its_digest_as_it_was_stored(database: Database) -> None:
    """A key is read as it was written; an unknown digest finds nothing."""
    stored = key(1, created_at=5, expires_at=9)
    await store(database, stored)
    assert await database.read(partial(api_keys.by_digest, digest="dkey_1")) == stored
    assert await database.read(partial(api_keys.by_digest, digest="key_1")) is None


async def test_a_digest_is_stored_once(database: Database) -> None:
    """A second key with the same digest is refused."""
    await store(database, key(1))
    with pytest.raises(IntegrityError):
        await database.write(partial(api_keys.insert, key=key(2), digest="dkey_1"))


async def test_keys_are_listed_newest_first_a_page_at_a_time(database: Database) -> None:
    """Every key is listed once, also if several were created in the same millisecond."""
    await store(database, key(1, 10), key(2, 20), key(3, 20), key(4, 5))
    first = await database.read(partial(api_keys.page, limit=2))
    after = (first[-1].created_at, first[-1].id)
    second = await database.read(partial(api_keys.page, limit=9, after=after))
    assert [listed.id for listed in first + second] == ["key_3", "key_2", "key_1", "key_4"]


async def test_the_first_revocation_stands(database: Database) -> None:
    """Revoking twice keeps the first time; revoking an unknown key returns None."""
    await store(database, key(1))
    await database.write(partial(api_keys.revoke, key_id="key_1", now=100))
    again = await database.write(partial(api_keys.revoke, key_id="key_1", now=200))
    assert again is not None
    assert again.revoked_at == 100
    assert await database.write(partial(api_keys.revoke, key_id="key_2", now=1)) is None


async def test_use_is_noted_unless_it_was_noted_lately(database: Database) -> None:
    """A second use within the interval does not change `last_used_at`."""
    await store(database, key(1))
    for now, since in ((100, 0), (150, 100), (200, 150)):
        await database.write(partial(api_keys.touch, key_id="key_1", now=now, unless_since=since))
        found = await database.read(partial(api_keys.by_id, key_id="key_1"))
        assert found is not None
        assert found.last_used_at == {100: 100, 150: 100, 200: 200}[now]


async def test_only_a_usable_key_counts(database: Database) -> None:
    """Expired and revoked keys do not count as usable."""
    usable = partial(api_keys.any_usable, now=50)
    assert not await database.read(usable)
    await store(database, key(1, expires_at=50), key(2))
    assert await database.read(usable)
    await database.write(partial(api_keys.revoke, key_id="key_2", now=1))
    assert not await database.read(usable)


async def test_nothing_but_the_digest_is_stored_of_a_key(database: Database) -> None:
    """The table has no column with the key's text."""
    await store(database, key(1))
    row = await database.read(lambda connection: connection.execute(select(table)).one())
    assert "dkey_1" in row
    assert set(table.c.keys()) == {
        "id",
        "name",
        "scopes",
        "digest",
        "created_at",
        "expires_at",
        "revoked_at",
        "last_used_at",
        "limits",
        "secret_id",
    }
