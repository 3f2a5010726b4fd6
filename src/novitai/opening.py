# SPDX-License-Identifier: Apache-2.0
"""Opens what every process needs: the database, the vault of secrets, the job engine, the keys."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

from novitai.clock import Clock
from novitai.errors import SettingsError
from novitai.ids import Ids
from novitai.jobs.embedded import EmbeddedEngine
from novitai.jobs.port import JobEngine
from novitai.lifecycle.api_keys import KeyRing
from novitai.settings import Settings
from novitai.store.engine.database import Database
from novitai.store.opening import open_database
from novitai.store.queries import api_keys, coordination
from novitai.store.vault import SECRET_CHECK, Vault, load_or_make_secret, load_secret

MakeEngine = Callable[[Settings, Database, Clock, Ids], JobEngine]


@dataclass(frozen=True, slots=True)
class Store:
    """An open database, and the vault that seals its secrets."""

    database: Database
    vault: Vault


def make_engine(settings: Settings, database: Database, clock: Clock, ids: Ids) -> JobEngine:
    """Make the job engine for the store: embedded, or shared by processes on PostgreSQL."""
    if settings.embedded:
        return EmbeddedEngine(database, clock, ids)
    # Imported here because drivers and PgQueuer load slowly and only PostgreSQL needs them.
    from novitai.jobs.postgresql import PostgresqlEngine
    from novitai.jobs.upkeep import Presence

    presence = Presence(coordination.note_worker, coordination.worker_seen_at)
    return PostgresqlEngine(database, settings.direct_database, clock, ids, presence=presence)


@contextlib.asynccontextmanager
async def open_store(settings: Settings, clock: Clock) -> AsyncIterator[Store]:
    """Open only the store, for a short command.

    Raises:
        SettingsError: a setting that the store needs is missing or wrong.
        StartupError: the store cannot be used.
    """
    store = await open_unguarded(settings, clock)
    try:
        yield store
    finally:
        await store.database.close()


async def open_unguarded(settings: Settings, clock: Clock) -> Store:
    """Open the store; the caller must close it. `open_store` is the context manager.

    Raises:
        SettingsError: a setting that the store needs is missing or wrong.
        StartupError: the store cannot be used.
    """
    if settings.secret_key is None and not settings.embedded:
        raise SettingsError(
            "NOVITAI_SECRET_KEY: required with PostgreSQL, the same in every process; "
            "make one with: openssl rand -hex 32"
        )
    database = await open_database(settings.database, clock, direct_url=settings.direct_database)
    try:
        known = await database.read(partial(coordination.value, name=SECRET_CHECK))
        # Generate a key only for a new database: a new key could not open the sealed values.
        vault = Vault(_secret_key(settings, may_make=known is None), _previous_key(settings))
        fresh = vault.seal(SECRET_CHECK, b"").hex()
        sealed = await database.write(
            partial(coordination.kept_value, name=SECRET_CHECK, fresh=fresh)
        )
        # Fail now if the key is another one: API keys and secrets stored with it would be useless.
        vault.unseal(SECRET_CHECK, bytes.fromhex(sealed))
        # Until the first rotation all digests are of one secret key: the one before it.
        before = vault.previous or vault
        await database.write(partial(api_keys.name_secret, secret_id=before.secret_id))
    except BaseException:  # close the database and re-raise
        await database.close()
        raise
    return Store(database, vault)


def make_key_ring(settings: Settings, store: Store, clock: Clock, ids: Ids) -> KeyRing:
    """Build the API keys on an open store."""
    admin_key = settings.admin_api_key
    return KeyRing(
        database=store.database,
        vault=store.vault,
        clock=clock,
        ids=ids,
        admin_api_key=admin_key.get_secret_value() if admin_key else None,
    )


def _previous_key(settings: Settings) -> bytes | None:
    previous = settings.secret_key_previous
    return None if previous is None else previous.get_secret_value().encode()


def _secret_key(settings: Settings, *, may_make: bool) -> bytes:
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value().encode()
    folder = settings.data_folder
    return load_or_make_secret(folder) if may_make else load_secret(folder)
