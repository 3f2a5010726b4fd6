# SPDX-License-Identifier: Apache-2.0
"""Migrates a database to the schema of this version. The migrations are part of the package.

Each migration runs in one transaction: after a crash the database is as it was before.

The migrations of a version only add something, so that processes of the version before it keep
working, or they clean up what that version used; the file name of those begins with
`NUMBER_after_`. On PostgreSQL they wait until a person says that no older process is left. The
database says which versions can use it.

Alembic is imported only if there is something to migrate, because the import takes longer than
the version check. An empty SQLite file gets the result of the migrations from `sqlite.sql`, which
`make schema` writes; if that file were behind, the migrations that it lacks would follow.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson
from sqlalchemy import URL, Connection, NullPool, create_engine, event, inspect, text

from novitai.clock import Clock
from novitai.errors import StartupError
from novitai.store.engine import postgresql_server
from novitai.store.engine.sqlite_file import DatabaseFile, explained, path_of, quoted
from novitai.store.queries import coordination

if TYPE_CHECKING:
    from alembic.config import Config

_VERSIONS: Final = Path(__file__).parent / "migrations" / "versions"
_SCHEMA: Final = Path(__file__).parent / "migrations" / "sqlite.sql"
_TABLE: Final = "alembic_version"
_AFTER: Final = "after_"
_SCHEMA_FACTS: Final = "schema"
"""The name of the value that says who made the schema and who can use it, as a JSON object."""
_FIRST_RELEASE: Final = "0019"
"""The last migration of the first release."""
_CONFIG: Final = 78  # EX_CONFIG of sysexits(3)
ADVISORY_LOCK: Final = 0x6E6F_7669_7461_6900  # "novitai"
"""The PostgreSQL advisory lock that is held during a migration."""


class Version(StrEnum):
    """The version of a database compared with this version of the code."""

    CURRENT = "current"
    UNFINISHED = "unfinished"
    """Only the clean-up after the last upgrade is still to be done."""
    OLDER = "older"
    USABLE = "usable"
    """A newer version migrated it, in a way that this version can use."""
    NEWER = "newer"
    """A newer version migrated it, and this version cannot use it."""

    @property
    def fits(self) -> bool:
        """Whether this version can use the database as it is."""
        return self in {Version.CURRENT, Version.UNFINISHED, Version.USABLE}


@dataclass(frozen=True, slots=True)
class Migration:
    """A migration.

    Attributes:
        number: Its number, such as `0007`.
        purpose: Its purpose, in a few words.
        cleans_up: Whether older versions cannot use the database afterwards.
    """

    number: str
    purpose: str
    cleans_up: bool


@dataclass(frozen=True, slots=True)
class SchemaFacts:
    """The facts that a database holds about its schema.

    Attributes:
        number: The last migration; None if the database is empty.
        made_by: The version of novitai that ran it, if that is known.
        works_with: The migration that a version must know to be able to use the database; None if
            only versions that know all of them can.
    """

    number: str | None
    made_by: str | None = None
    works_with: str | None = None


def upgrade(url: str, clock: Clock, *, finish: bool = False) -> None:
    """Migrate the database at `url`; do nothing if it is current.

    Concurrent calls are safe: on PostgreSQL the second waits, on SQLite it is refused.

    Args:
        url: The URL of the database.
        clock: Times the lock of a file.
        finish: Whether to clean up on PostgreSQL too, because no older process is left.

    Raises:
        SettingsError: the URL cannot be parsed.
        StartupError: the database cannot be used, or it is newer than this version.
    """
    if not url.startswith("sqlite"):
        _upgrade_server(url, finish=finish)
        return
    file = DatabaseFile.claim(path_of(url), clock)
    try:
        upgrade_file(file)
    finally:
        file.release()


def upgrade_file(file: DatabaseFile) -> None:
    """Migrate an SQLite file that this process has claimed.

    Raises:
        StartupError: it belongs to another program, is newer than this version, or cannot be
            written.
    """
    with explained(file.path), _embedded(str(file.path)) as connection:
        with connection.begin():
            names = inspect(connection).get_table_names()
            if not names:
                _make_tables(connection)
        if names and _TABLE not in names:
            raise StartupError(
                f"{file.path}: this database belongs to another program (it has a table "
                f"{names[0]}). Name another file in NOVITAI_DATABASE_URL.",
                exit_code=_CONFIG,
            )
        # Only this process uses the file, so no older one can be left.
        _upgrade(connection, str(file.path), finish=True, made=not names)


def facts_of(url: str) -> SchemaFacts:
    """Read what the database at `url` says about its schema. Changes nothing.

    Raises:
        SettingsError: the URL cannot be parsed.
        StartupError: the database cannot be read.
    """
    if not url.startswith("sqlite"):
        with (
            closing(postgresql_server.connect(url)) as connection,
            postgresql_server.explained(url),
        ):
            return _facts(connection)
    path = path_of(url)
    if not path.exists():
        return SchemaFacts(None)
    with explained(path), _embedded(str(path), mode="ro") as connection:
        return _facts(connection)


def check(url: str) -> Version:
    """Compare the database at `url` with this version of the code. Changes nothing.

    Raises:
        SettingsError: the URL cannot be parsed.
        StartupError: the database cannot be read.
    """
    return compare(facts_of(url))


def compare(facts: SchemaFacts) -> Version:
    """Compare the schema of a database with this version of the code."""
    known = steps()
    if facts.number == known[-1]:
        return Version.CURRENT
    if facts.number is None:
        return Version.OLDER
    if facts.number not in known:
        works = facts.works_with is not None and facts.works_with <= known[-1]
        return Version.USABLE if works else Version.NEWER
    to_do = [one for one in migrations() if one.number > facts.number]
    return Version.UNFINISHED if all(one.cleans_up for one in to_do) else Version.OLDER


def refuse_newer(facts: SchemaFacts, where: str) -> None:
    """Raise `StartupError` if only a newer version of novitai can use the database."""
    if compare(facts) is Version.NEWER:
        needed = f"novitai {facts.made_by}" if facts.made_by else "the version that migrated it"
        raise StartupError(
            f"{where}: made by a newer version of novitai than this one ({version_of('novitai')}). "
            f"Install {needed} or a newer one, or restore a backup.",
            exit_code=_CONFIG,
        )


def migrations() -> tuple[Migration, ...]:
    """List this version's migrations, in ascending order."""
    found = []
    for file in sorted(_VERSIONS.glob("[0-9]*.py")):
        number, _, purpose = file.stem.partition("_")
        cleans_up = purpose.startswith(_AFTER)
        words = purpose.removeprefix(_AFTER).replace("_", " ")
        found.append(Migration(number, words, cleans_up))
    return tuple(found)


def steps() -> tuple[str, ...]:
    """List the numbers of this version's migrations, in ascending order."""
    return tuple(one.number for one in migrations())


def pending(facts: SchemaFacts) -> tuple[Migration, ...]:
    """List the migrations that a database lacks; none if it is newer than this version."""
    if facts.number is not None and facts.number not in steps():
        return ()
    return tuple(one for one in migrations() if facts.number is None or one.number > facts.number)


def _facts(connection: Connection) -> SchemaFacts:
    with connection.begin():
        tables = inspect(connection)
        if not tables.has_table(_TABLE):
            return SchemaFacts(None)
        numbers = connection.execute(text(f"SELECT version_num FROM {_TABLE}"))  # noqa: S608 - a constant
        number = max(numbers.scalars(), default=None)
        if not tables.has_table("installation"):
            return SchemaFacts(number)
        stored = coordination.value(connection, _SCHEMA_FACTS)
    if stored is None:
        return SchemaFacts(number)
    told = orjson.loads(stored)
    return SchemaFacts(number, told["madeBy"], told["worksWith"])


def _store_facts(connection: Connection, number: str) -> None:
    """Store which version ran the migrations up to a number, and which ones can use the result."""
    done = [one.number for one in migrations() if one.cleans_up and one.number <= number]
    told = {"madeBy": version_of("novitai"), "worksWith": max([_FIRST_RELEASE, *done])}
    coordination.set_value(connection, _SCHEMA_FACTS, orjson.dumps(told).decode())


def config(connection: Connection) -> Config:
    """Return Alembic's configuration for commands on `connection`."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", "novitai.store:migrations")
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    return made


def _upgrade_server(url: str, *, finish: bool) -> None:
    from novitai.store.engine import postgresql_check

    postgresql_check.insist_on_database(url)
    with closing(postgresql_server.connect(url)) as connection, postgresql_server.explained(url):
        key = {"key": ADVISORY_LOCK}
        # A session-level lock, because each migration runs in its own transaction.
        connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
        connection.commit()
        _upgrade(connection, postgresql_server.describe(url), finish=finish)


def _make_tables(connection: Connection) -> None:
    """Make what the migrations make in an empty SQLite file, with the number of the last one."""
    statement = ""
    for line in _SCHEMA.read_text(encoding="utf-8").splitlines(keepends=True):
        statement += line
        # Not `executescript`, which commits before it begins.
        if sqlite3.complete_statement(statement):
            connection.exec_driver_sql(statement)
            statement = ""


def _upgrade(connection: Connection, where: str, *, finish: bool, made: bool = False) -> None:
    facts = _facts(connection)
    refuse_newer(facts, where)
    target = _target(pending(facts), where, finish=finish)
    if target is not None:
        from alembic import command

        command.upgrade(config(connection), target)
    if target is not None or made:
        with connection.begin():
            _store_facts(connection, target or facts.number or "")


def _target(to_do: Sequence[Migration], where: str, *, finish: bool) -> str | None:
    """Return the number of the last migration to run; None if there is none to run.

    Raises:
        StartupError: a clean-up comes before the migrations of this version.
    """
    if finish:
        return to_do[-1].number if to_do else None
    adding = [one for one in to_do if not one.cleans_up]
    if not adding:
        return None
    blocking = [one for one in to_do if one.cleans_up and one.number < adding[-1].number]
    if blocking and to_do[0].number != steps()[0]:
        raise StartupError(
            f"{where}: the clean-up of an earlier upgrade is still to be done (migration "
            f"{blocking[0].number}). Stop the processes that are older than this version, then run "
            "`novitai migrate --finish`.",
            exit_code=_CONFIG,
        )
    return adding[-1].number


@contextmanager
def _embedded(path: str, mode: str = "rw") -> Iterator[Connection]:
    """Connect to an SQLite file with foreign keys off, as Alembic copies tables to alter them."""
    uri = URL.create(
        "sqlite+pysqlite", database=f"file:{quoted(path)}", query={"mode": mode, "uri": "true"}
    )
    engine = create_engine(
        uri, poolclass=NullPool, hide_parameters=True, connect_args={"isolation_level": None}
    )
    begin = "BEGIN" if mode == "ro" else "BEGIN EXCLUSIVE"
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    with engine.connect() as connection:
        yield connection
