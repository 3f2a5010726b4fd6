# SPDX-License-Identifier: Apache-2.0
"""The checks of `novitai doctor` on the machine of a server: its settings, store and upstream.

They change nothing, and they work whether a server runs or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from novitai.cli.client.diagnosis import CheckResult, Diagnosis
from novitai.cli.client.wording import clean
from novitai.clock import Clock, iso
from novitai.domain.account import HoldReason
from novitai.domain.api_key import ApiKey
from novitai.domain.marker import read_marker
from novitai.domain.status import Observation, read_word
from novitai.errors import NovitaiError, SettingsError, StartupError, WrongSecretKey
from novitai.settings import Settings, known_names, load
from novitai.store import migrate
from novitai.store.engine import postgresql_server, sqlite
from novitai.store.engine.sqlite_file import ROOM_BYTES, explained, path_of
from novitai.store.queries import (
    account,
    api_keys,
    attempts,
    coordination,
    fleet,
    instances,
)
from novitai.store.queries.sealed import SIGNING_SECRET
from novitai.store.vault import SECRET_CHECK, SECRET_FILE, Vault, read_secret

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from novitai.upstream.client import NovitaClient
    from novitai.upstream.models import Listing

T = TypeVar("T")

_LOW_SPACE: Final = 1024**3
"""Less free space than this is a warning."""
_SKEW_MS: Final = 2_000
_WORKER_SILENT_MS: Final = 30_000
_OVERDUE_MS: Final = 60_000
_SHOWN: Final = 5
_ANSWER_SECONDS: Final = 5.0
_LISTING_SECONDS: Final = 60.0
_GOING: Final = frozenset({Observation.REMOVING, Observation.REMOVED})


def is_server(environment: Mapping[str, str], dotenv: Mapping[str, str]) -> bool:
    """Whether this machine has a server: one of its settings is set, or its database exists."""
    given = {name.upper() for each in (environment, dotenv) for name in each if each[name].strip()}
    if given.intersection(known_names()):
        return True
    try:
        settings = Settings()
    except ValueError:
        return True  # the check of the settings says what is wrong
    return settings.embedded and path_of(settings.database).exists()


def checks(clock: Clock) -> Iterator[Diagnosis]:
    """Check the server of this machine, one thing after the other."""
    logged = structlog.get_config()
    # The findings say what the parts that are used here would log.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield from _all_checks(clock)
    finally:
        structlog.configure(**logged)


def _all_checks(clock: Clock) -> Iterator[Diagnosis]:
    try:
        settings = load()
    except SettingsError as error:
        for line in str(error).splitlines():
            yield _wrong("settings", line, "Correct it; `novitai config` shows all settings.")
        return
    yield _ok("settings", _told_settings(settings))
    yield from _ServerChecks(settings, clock).all()


class _ServerChecks:
    """The checks after the settings; each uses what the ones before have found."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._engine: Engine | None = None
        self._vault: Vault | None = None

    def all(self) -> Iterator[Diagnosis]:
        """Yield the results; a check that needs a broken one is left out."""
        if self._settings.embedded:
            yield from self._folder()
        try:
            yield from self._database()
            if self._engine is not None:
                yield from self._secrets()
                yield from self._queue()
                yield from self._account()
        except SQLAlchemyError as error:
            yield _wrong("database", f"a query failed: {clean(error)}", "Look at its server's log.")
        yield from asyncio.run(self._outside())
        if self._engine is not None:
            self._engine.dispose()

    def _folder(self) -> Iterator[Diagnosis]:
        file = path_of(self._settings.database)
        folder = file.parent
        if not folder.exists():
            yield _ok("data folder", f"{folder} does not exist; `novitai serve` makes it")
            return
        mode = stat.S_IMODE(folder.stat().st_mode)
        secret = folder / SECRET_FILE
        if not os.access(folder, os.W_OK | os.X_OK):
            yield _wrong("data folder", f"{folder} cannot be written", "Make it writable for me.")
        elif secret.exists() and secret.stat().st_mode & 0o077:
            advice = f"chmod 600 '{secret}'"
            yield _wrong("data folder", f"other users can read {secret}", advice)
        elif mode & 0o077:
            found = f"other users can look into {folder} (mode {mode:o})"
            yield _warning("data folder", found, f"chmod 700 '{folder}'")
        else:
            yield _ok("data folder", f"{folder}, for this user alone")
        free = shutil.disk_usage(folder).free
        told = f"{free / 1024**3:.1f} GiB are free"
        if free < ROOM_BYTES:
            yield _wrong("disk", told, "Free some space: no write is accepted.")
        elif free < _LOW_SPACE:
            yield _warning("disk", told, "Free some space before the disk is full.")
        else:
            yield _ok("disk", told)

    def _database(self) -> Iterator[Diagnosis]:
        url = self._settings.direct_database
        try:
            facts = migrate.facts_of(url)
            found = self._open_file(url) if self._settings.embedded else self._open_server(url)
        except (StartupError, SettingsError) as error:
            yield _wrong("database", str(error), "")
            return
        yield found
        state = migrate.compare(facts)
        if state is migrate.Version.NEWER:
            try:
                migrate.refuse_newer(facts, "the database")
            except StartupError as error:
                yield _wrong("migrations", str(error), "")
            self._close()
        elif state is migrate.Version.OLDER:
            yield self._older(facts)
            self._close()
        elif state is migrate.Version.UNFINISHED:
            advice = "When no older process is left, run `novitai migrate --finish`."
            yield _warning("migrations", f"at {facts.number}; a clean-up waits", advice)
        else:
            newer = ", by a newer version that this one works with"
            told = newer if state is migrate.Version.USABLE else ""
            yield _ok("migrations", f"at {facts.number}{told}")

    def _older(self, facts: migrate.SchemaFacts) -> Diagnosis:
        to_do = f"{len(migrate.pending(facts))} migrations are to be done"
        if not self._settings.embedded:
            return _wrong("migrations", to_do, "Run `novitai migrate`.")
        if facts.number is None:
            return _ok("migrations", "the first start makes the tables")
        advice = "The next start does that; make a backup first: `novitai backup FILE`."
        return _warning("migrations", f"{to_do}, the last done is {facts.number}", advice)

    def _open_file(self, url: str) -> Diagnosis:
        """Open the file for reading, and see whether it can be written."""
        path = path_of(url)
        if not path.exists():
            return _ok("database", f"{path} does not exist; `novitai serve` makes it")
        with explained(path):
            engine = sqlite.make_engine(path, reading=True)
            with closing(engine.connect()) as connection, connection.begin():
                finding = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if finding != "ok":
            engine.dispose()
            return _wrong("database", f"{path} is damaged: {clean(finding)}", "Restore a backup.")
        if not os.access(path, os.W_OK):
            engine.dispose()
            return _wrong("database", f"{path} cannot be written", "Make it writable for me.")
        self._engine = engine
        size = path.stat().st_size / 1024**2
        return _ok("database", f"{path}, {size:.1f} MiB, SQLite {sqlite3.sqlite_version}")

    def _open_server(self, url: str) -> Diagnosis:
        """Check the server as at a start: version, encoding, writable, notifications, rights."""
        from novitai.store.engine import postgresql_check

        postgresql_check.insist_on_server(url)
        if url != self._settings.database:
            postgresql_check.insist_on_pooler(self._settings.database, url)
        postgresql_check.insist_on_rights(url)
        self._engine = postgresql_server.make_engine(url, pool_size=1)
        where = postgresql_server.describe(url)
        began = self._clock.now()
        with closing(self._engine.connect()) as connection:
            version = connection.exec_driver_sql("SHOW server_version").scalar_one()
            theirs = coordination.server_time(connection) or began
        ended = self._clock.now()
        ahead = (began + ended) // 2 - theirs
        told = f"{where}, PostgreSQL {clean(version)}, UTF8, accepts writes"
        if abs(ahead) - (ended - began) // 2 > _SKEW_MS:
            way = "ahead of" if ahead > 0 else "behind"
            found = f"{where}: this machine is {abs(ahead) / 1000:.1f} s {way} it"
            return _wrong("database", found, "Switch on time synchronization (NTP) on both.")
        return _ok("database", told)

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _read(self, fn: Callable[[Connection], T]) -> T:
        if self._engine is None:
            raise RuntimeError("a check reads before the database is open")
        with ExitStack() as stack:
            connection = stack.enter_context(closing(self._engine.connect()))
            stack.enter_context(connection.begin())
            return fn(connection)

    def _secrets(self) -> Iterator[Diagnosis]:
        try:
            self._vault = vault = self._open_vault()
        except (StartupError, SettingsError) as error:
            yield _wrong("secret key", str(error), "")
            return
        if vault is None:
            yield _ok("secret key", "none yet; the first start makes it")
            return
        sealed = self._read(lambda connection: coordination.value(connection, SECRET_CHECK))
        if vault.previous is None:
            yield _ok("secret key", "it opens the stored secrets")
        elif sealed is not None and vault.opened(SECRET_CHECK, bytes.fromhex(sealed)) is None:
            advice = "A running worker does that; keep NOVITAI_SECRET_KEY_PREVIOUS until then."
            yield _warning("secret key", "the stored secrets are not resealed yet", advice)
        else:
            yield _ok("secret key", "all stored secrets are sealed with the present one")
        yield self._keys(vault)
        yield self._webhook_secret(vault)

    def _open_vault(self) -> Vault | None:
        """Return the vault; None if neither a key nor a value that needs it exists.

        Raises:
            StartupError: the secret key is missing or is not the right one.
        """
        settings = self._settings
        sealed = self._read(lambda connection: coordination.value(connection, SECRET_CHECK))
        secret = settings.secret_key
        if secret is not None:
            text: bytes | None = secret.get_secret_value().encode()
        elif settings.embedded:
            text = read_secret(settings.data_folder / SECRET_FILE)
        else:
            raise SettingsError("NOVITAI_SECRET_KEY is required with PostgreSQL")
        if text is None and sealed is None:
            return None
        if text is None:
            raise StartupError(
                f"{settings.data_folder / SECRET_FILE} is missing: restore it from a backup, or "
                "set NOVITAI_SECRET_KEY"
            )
        before = settings.secret_key_previous
        vault = Vault(text, None if before is None else before.get_secret_value().encode())
        if sealed is not None:
            vault.unseal(SECRET_CHECK, bytes.fromhex(sealed))
        return vault

    def _keys(self, vault: Vault) -> Diagnosis:
        """List the API keys that the present secret key does not know."""
        now = self._clock.now()
        stale = self._read(
            lambda connection: api_keys.of_other_secrets(connection, vault.secret_id, now)
        )
        if not stale:
            usable = self._read(lambda connection: api_keys.any_usable(connection, now))
            if not usable and self._settings.admin_api_key is None:
                return _warning(
                    "API keys",
                    "there is none that can be used",
                    "The next start makes one and shows it once, or use `novitai keys create`.",
                )
            return _ok("API keys", "all are known to the present secret key")
        names = _some([_key_name(one) for one in stale])
        if vault.previous is None:
            return _wrong(
                "API keys",
                f"{len(stale)} ended with the old secret key: {names}",
                "Set NOVITAI_SECRET_KEY_PREVIOUS to the old one, or revoke and replace them.",
            )
        return _warning(
            "API keys",
            f"{len(stale)} would end with the old secret key: {names}",
            "Each is renewed when it is next used; keep NOVITAI_SECRET_KEY_PREVIOUS until then.",
        )

    def _webhook_secret(self, vault: Vault) -> Diagnosis:
        if self._settings.webhook_secret is not None:
            return _ok("webhook secret", "the one of NOVITAI_WEBHOOK_SECRET")
        stored = self._read(lambda connection: coordination.value(connection, SIGNING_SECRET))
        if stored is None:
            return _ok("webhook secret", "none yet; the first start makes it")
        import base64

        try:
            vault.unseal(SIGNING_SECRET, base64.b64decode(stored))
        except (WrongSecretKey, ValueError) as error:
            return _wrong("webhook secret", str(error), "Set NOVITAI_WEBHOOK_SECRET.")
        return _ok("webhook secret", "stored and sealed; `novitai webhooks secret` shows it")

    def _queue(self) -> Iterator[Diagnosis]:
        now = self._clock.now()
        if self._settings.embedded:
            runs = asyncio.run(_is_served(path_of(self._settings.database)))
            found = "a server runs" if runs else "no server runs"
            advice = "Start it: `novitai serve`."
            yield _ok("process", found) if runs else _warning("process", found, advice)
        else:
            seen_at = self._read(coordination.worker_seen_at)
            runs = seen_at is not None and now - seen_at < _WORKER_SILENT_MS
            if runs:
                yield _ok("workers", "at least one works")
            else:
                told = "none was seen yet" if seen_at is None else f"last seen {iso(seen_at)}"
                yield _wrong("workers", told, "Start one: `novitai worker`.")
        due_at = self._read(lambda connection: fleet.oldest_due(connection, now))
        late = 0 if due_at is None else now - due_at
        if late > _OVERDUE_MS:
            waited = timedelta(seconds=late // 1000)
            told = f"the oldest due step has waited for {waited}"
            advice = "Look at the log of the workers." if runs else "Start a worker."
            yield _warning("queue", told, advice)
        else:
            yield _ok("queue", "no step is overdue")

    def _account(self) -> Iterator[Diagnosis]:
        state = self._read(account.load_state)
        orphans = self._read(account.count_orphans)
        if state.hold is not None:
            missing = self._read(
                lambda connection: (
                    instances.load_many(connection, list(state.hold.missing)[:100])
                    if state.hold
                    else {}
                )
            )
            names = _some([f"{one.name} ({one.id})" for one in missing.values()])
            reason = {
                HoldReason.DISAPPEARED: "many instances are missing from the account",
                HoldReason.KEY_CHANGED: "instances are not in the account of NOVITA_API_KEY",
                HoldReason.RESTORED: "the database was restored or copied, and instances are gone",
            }[state.hold.reason]
            yield _wrong(
                "account",
                f"held, no write call is sent: {reason}: {names}",
                "If they are gone, `novitai doctor --confirm`; otherwise correct the key.",
            )
        elif state.restored_at is not None:
            yield _wrong(
                "account",
                f"the database was restored or copied at {iso(state.restored_at)}: no write call "
                "is sent",
                "See below what differs; then `novitai doctor --confirm`.",
            )
        else:
            yield _ok("account", "it is not held")
        if orphans:
            yield _warning(
                "orphans",
                f"instances with our marker that belong to no record: {orphans}",
                "`novitai unmanaged` lists them: adopt, dismiss or delete each.",
            )
        else:
            yield _ok("orphans", "none is known")

    async def _outside(self) -> list[Diagnosis]:
        found = []
        if self._settings.redis_url is not None:
            found.append(await self._redis(self._settings.redis_url.get_secret_value()))
        return [*found, *[one async for one in self._upstream()]]

    async def _redis(self, url: str) -> Diagnosis:
        from redis.asyncio import Redis
        from redis.exceptions import RedisError

        client = Redis.from_url(
            url, socket_timeout=_ANSWER_SECONDS, socket_connect_timeout=_ANSWER_SECONDS
        )
        try:
            async with asyncio.timeout(2 * _ANSWER_SECONDS):
                await client.ping()
        except (RedisError, OSError, TimeoutError) as error:
            return _warning(
                "Redis",
                f"it does not answer: {clean(error) or type(error).__name__}",
                "Each process limits by itself until it does; look at NOVITAI_REDIS_URL.",
            )
        finally:
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()
        return _ok("Redis", "it answers")

    async def _upstream(self) -> AsyncIterator[Diagnosis]:
        from novitai.upstream.client import NovitaClient
        from novitai.upstream.errors import ConnectionFailed, KeyRefused, Timeout, UpstreamError

        settings = self._settings
        if settings.novita_api_key is None:
            advice = "Set it to a key of https://novita.ai; without it every call is refused."
            yield _wrong("Novita", "NOVITA_API_KEY is not set", advice)
            return
        proxy = settings.upstream_proxy
        client = NovitaClient.build(
            base_url=settings.upstream_url,
            api_key=settings.novita_api_key.get_secret_value(),
            calls_per_minute=settings.upstream_calls_per_minute,
            timeout=settings.upstream_timeout_seconds,
            clock=self._clock,
            observer=lambda *_arguments, **_options: None,
            proxy=None if proxy is None else proxy.get_secret_value(),
        )
        try:
            async with asyncio.timeout(_LISTING_SECONDS):
                listing = await client.list_instances()
        except KeyRefused as error:
            yield _wrong("Novita", clean(error), "NOVITA_API_KEY is wrong or lacks rights.")
            return
        except (ConnectionFailed, Timeout, TimeoutError) as error:
            said = clean(error) or f"no answer in {_LISTING_SECONDS:.0f} s"
            yield _wrong("Novita", said, f"Can {settings.upstream_url} be reached from here?")
            return
        except UpstreamError as error:
            advice = f"Is {settings.upstream_url} the base address of Novita's API?"
            yield _wrong("Novita", clean(error), advice)
            return
        finally:
            await client.aclose()
        yield _ok("Novita", f"{settings.upstream_url} accepts the key: {_instances(listing)}")
        yield _upstream_clock(client)
        if self._engine is not None:
            for one in self._differences(client, listing):
                yield one

    def _differences(self, client: NovitaClient, listing: Listing) -> Iterator[Diagnosis]:
        state = self._read(account.load_state)
        tracked = self._read(instances.tracked)
        if state.keys and client.key_digest not in state.keys:
            yield _warning(
                "same account",
                "NOVITA_API_KEY is not the key with which the records were last seen",
                "It is accepted once it shows one of the known instances.",
            )
        else:
            yield _ok("same account", "the key is the one with which the records were last seen")
        if not listing.complete:
            yield _warning("differences", "Novita's list was not complete", "Try again.")
            return
        listed = {row.id for row in listing.instances}
        gone = [one.id for one in tracked if one.upstream_id not in listed and _expected(one)]
        ours = self._read(coordination.installation_ids)
        owned = {one.upstream_id for one in tracked}
        marked = [
            row
            for row in listing.instances
            if row.id not in owned
            and read_word(row.status) not in _GOING
            and (marker := read_marker(row.name)) is not None
            and marker.installation_id in ours
        ]
        if not gone and not marked:
            yield _ok("differences", "the records and Novita's list agree")
        if gone:
            told = f"{len(gone)} records have an instance that is not listed: {_some(gone)}"
            advice = "If they are gone, the server ends them by itself, or asks you to confirm."
            yield _warning("differences", told, advice)
        if marked:
            unknown = self._read(
                lambda connection: attempts.by_ids(
                    connection, [one.attempt_id for row in marked if (one := read_marker(row.name))]
                )
            )
            names = _some([f"{clean(row.name)} ({clean(row.id)})" for row in marked])
            more = "" if unknown else "; the database does not know their purchase"
            yield _warning(
                "differences",
                f"{len(marked)} listed instances bear our marker and belong to no record{more}: "
                f"{names}",
                "Adopt each with `novitai unmanaged adopt`, or dismiss it.",
            )


def _expected(one: instances.Tracked) -> bool:
    return read_word(one.obs_status) not in _GOING and one.status.value != "terminating"


def _upstream_clock(client: NovitaClient) -> Diagnosis:
    offset = client.clock_offset
    if offset is None:
        return _warning("clock", "Novita sends no date", "")
    # A date has whole seconds.
    if abs(offset) <= _SKEW_MS + 500:
        return _ok("clock", "it agrees with Novita's")
    way = "behind" if offset > 0 else "ahead of"
    told = f"this machine is {abs(offset) / 1000:.0f} s {way} Novita"
    return _warning("clock", told, "Switch on time synchronization (NTP).")


def _instances(listing: Listing) -> str:
    count = len(listing.instances)
    return f"{count} instance{'' if count == 1 else 's'} in the account"


async def _is_served(database: Path) -> bool:
    from novitai.cli.local_client import LocalServer
    from novitai.cli.local_socket import socket_path

    try:
        server = await LocalServer.connect(socket_path(database))
    except NovitaiError:
        return True  # of another user
    if server is None:
        return False
    await server.close()
    return True


def _told_settings(settings: Settings) -> str:
    store = "an embedded file" if settings.embedded else "PostgreSQL"
    return f"they are valid: {settings.environment.value}, {store}"


def _key_name(key: ApiKey) -> str:
    return f"{clean(key.name)} ({key.id})"


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _ok(check: str, found: str) -> Diagnosis:
    return Diagnosis(check, CheckResult.OK, found)


def _warning(check: str, found: str, advice: str) -> Diagnosis:
    return Diagnosis(check, CheckResult.WARNING, found, advice)


def _wrong(check: str, found: str, advice: str) -> Diagnosis:
    return Diagnosis(check, CheckResult.WRONG, found, advice)
