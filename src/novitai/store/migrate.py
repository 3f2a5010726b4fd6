# SPDX-License-Identifier: Apache-2.0
"""Migrates a database to the schema of this version. The migrations are part of the package.

Each migration runs in one transaction: after a crash the database is as it was before.
Alembic is imported only if there is something to migrate, because the import takes longer than
the version check and most processes start with a current database.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import URL, Connection, NullPool, create_engine, event, inspect, text

from novitai.clock import Clock
from novitai.errors import StartupError
from novitai.store.engine import postgresql_server
from novitai.store.engine.sqlite_file import DatabaseFile, explained, path_of, quoted

if TYPE_CHECKING:
    from alembic.config import Config

_VERSIONS: Final = Path(__file__).parent / "migrations" / "versions"
_TABLE: Final = "alembic_version"
_CONFIG: Final = 78  # EX_CONFIG of sysexits(3)
ADVISORY_LOCK: Final = 0x6E6F_7669_7461_6900  # "novitai"
"""The PostgreSQL advisory lock that is held during a migration."""


class Version(StrEnum):
    """The version of a database compared with this version of the code."""

    CURRENT = "current"
    OLDER = "older"
    NEWER = "newer"


def upgrade(url: str, clock: Clock) -> None:
    """Migrate the database at `url`; do nothing if it is current.

    Concurrent calls are safe: on PostgreSQL the second waits, on SQLite it is refused.

    Raises:
        SettingsError: the URL cannot be parsed.
        StartupError: the database cannot be used, or it is newer than this version.
    """
    if not url.startswith("sqlite"):
        _upgrade_server(url)
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
        if names and _TABLE not in names:
            raise StartupError(
                f"{file.path}: this database belongs to another program (it has a table "
                f"{names[0]}). Name another file in NOVITAI_DATABASE_URL.",
                exit_code=_CONFIG,
            )
        _upgrade(connection, str(file.path))


def check(url: str) -> Version:
    """Compare the database at `url` with this version of the code. Changes nothing.

    Raises:
        SettingsError: the URL cannot be parsed.
        StartupError: the database cannot be read.
    """
    if not url.startswith("sqlite"):
        with (
            closing(postgresql_server.connect(url)) as connection,
            postgresql_server.explained(url),
        ):
            return _version(connection)
    path = path_of(url)
    if not path.exists():
        return Version.OLDER
    with explained(path), _embedded(str(path), mode="ro") as connection:
        return _version(connection)


def refuse_newer(version: Version, where: str) -> None:
    """Raise `StartupError` if a newer version of novitai migrated the database."""
    if version is Version.NEWER:
        raise StartupError(
            f"{where}: made by a newer version of novitai than this one. "
            "Install that version, or restore a backup.",
            exit_code=_CONFIG,
        )


def steps() -> tuple[str, ...]:
    """List the numbers of this version's migrations, in ascending order."""
    return tuple(sorted(file.name.partition("_")[0] for file in _VERSIONS.glob("[0-9]*.py")))


def recorded(connection: Connection) -> frozenset[str]:
    """Read the number of the last migration applied; empty if the database was never migrated."""
    if not inspect(connection).has_table(_TABLE):
        return frozenset()
    rows = connection.execute(text(f"SELECT version_num FROM {_TABLE}"))  # noqa: S608 - a constant
    return frozenset(rows.scalars())


def config(connection: Connection) -> Config:
    """Return Alembic's configuration for commands on `connection`."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", "novitai.store:migrations")
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    return made


def _upgrade_server(url: str) -> None:
    from novitai.store.engine import postgresql_check

    postgresql_check.insist_on_database(url)
    with closing(postgresql_server.connect(url)) as connection, postgresql_server.explained(url):
        key = {"key": ADVISORY_LOCK}
        # A session-level lock, because each migration runs in its own transaction.
        connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
        connection.commit()
        _upgrade(connection, postgresql_server.describe(url))


def _upgrade(connection: Connection, where: str) -> None:
    version = _version(connection)
    refuse_newer(version, where)
    if version is Version.OLDER:
        from alembic import command

        command.upgrade(config(connection), "head")


def _version(connection: Connection) -> Version:
    known = steps()
    with connection.begin():
        found = recorded(connection)
    if found == {known[-1]}:
        return Version.CURRENT
    return Version.OLDER if found <= set(known) else Version.NEWER


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
