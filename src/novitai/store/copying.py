# SPDX-License-Identifier: Apache-2.0
"""Copy a database to an empty one, between SQLite and PostgreSQL in both directions.

The copy is one transaction of the target: it is there as a whole or not at all. Each table is read
back and compared by its number of rows and a digest of all values before the commit. The copy is
another installation: it has an ID of its own, recognizes the markers of the one before, and sends
no write call before a person confirms it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import Column, Connection, Select, Table, func, select, text

from novitai.clock import Clock
from novitai.errors import StartupError
from novitai.ids import Ids
from novitai.store import migrate
from novitai.store.engine import postgresql_server, sqlite
from novitai.store.engine.sqlite_file import DatabaseFile, explained, path_of
from novitai.store.queries import account, coordination
from novitai.store.tables import installation, leases, metadata, workers

_CONFIG: Final = 78  # EX_CONFIG of sysexits(3)
_TEMPORARY: Final = 75  # EX_TEMPFAIL
_SOFTWARE: Final = 70  # EX_SOFTWARE
_BATCH: Final = 500
_WORKER_SILENT_MS: Final = 30_000
_OF_THE_TARGET: Final = {"schema", "written"}
"""Values of `installation` that describe the database file and not its content."""
_TRIGGERED: Final = "changed_in"
"""The column that triggers of each database number in their own way."""


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """A table that was copied.

    Attributes:
        name: Its name.
        rows: How many rows it has.
        digest: The digest of all values, the same on both stores.
    """

    name: str
    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class Copied:
    """The result of a copy.

    Attributes:
        tables: The tables, in the order of their names.
        source: The installation ID of the source.
        target: The installation ID of the copy.
    """

    tables: Sequence[CopiedTable]
    source: str
    target: str


def copy(source: str, target: str, clock: Clock, ids: Ids) -> Copied:
    """Copy the database at one URL to the empty database at another.

    Args:
        source: The URL of a database that no process uses and that has the present schema.
        target: The URL of a missing or empty database; its tables are made.
        clock: Tells the time of the mark.
        ids: Makes the ID of the new installation.

    Raises:
        SettingsError: a URL cannot be parsed.
        StartupError: a process uses one of them, the source is of another version, the target is
            not empty, or the copy differs. The target has no rows then.
    """
    if source == target:
        raise StartupError("the source and the target are the same database", exit_code=_CONFIG)
    _insist_on_version(source)
    with _reading(source, clock) as reading:
        _prepare_target(target, clock)
        with _writing(target, clock) as writing:
            _insist_on_empty(writing, target)
            tables = [_copy_table(reading, writing, table) for table in _tables()]
            before, fresh = _become_another(writing, clock, ids)
            _raise_sequences(writing)
    return Copied(sorted(tables, key=lambda one: one.name), before, fresh)


def _tables() -> list[Table]:
    """List the tables in an order in which each refers to those before it alone.

    Leases and workers belong to running processes.
    """
    return [one for one in metadata.sorted_tables if one not in (leases, workers)]


def _insist_on_version(url: str) -> None:
    facts = migrate.facts_of(url)
    where = _describe(url)
    if facts.number is None:
        raise StartupError(f"{where}: there is no database of novitai.", exit_code=_CONFIG)
    migrate.refuse_newer(facts, where)
    if migrate.compare(facts) is not migrate.Version.CURRENT:
        raise StartupError(
            f"{where}: made for another version of novitai. Run `novitai migrate` on it first.",
            exit_code=_CONFIG,
        )


def _describe(url: str) -> str:
    if url.startswith("sqlite"):
        return str(path_of(url))
    return postgresql_server.describe(url)


@contextmanager
def _opened(url: str, clock: Clock, *, reading: bool = False) -> Iterator[Connection]:
    """Open a database in one transaction; a file is locked against other processes."""
    if url.startswith("sqlite"):
        file = DatabaseFile.claim(path_of(url), clock)
        engine = sqlite.make_engine(file.path, reading=reading)
        try:
            with explained(file.path), closing(engine.connect()) as connection, connection.begin():
                yield connection
        finally:
            engine.dispose()
            file.release()
        return
    with (
        closing(postgresql_server.connect(url)) as connection,
        postgresql_server.explained(url),
        connection.begin(),
    ):
        yield connection


@contextmanager
def _reading(url: str, clock: Clock) -> Iterator[Connection]:
    """Open a source as of one moment; no process may use it meanwhile."""
    with _opened(url, clock, reading=True) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            _insist_on_rest(connection, url, clock)
        yield connection


def _insist_on_rest(connection: Connection, url: str, clock: Clock) -> None:
    seen_at = coordination.worker_seen_at(connection)
    now = coordination.server_time(connection) or clock.now()
    if seen_at is not None and now - seen_at < _WORKER_SILENT_MS:
        raise StartupError(
            f"{_describe(url)}: a worker uses it. Stop all its processes; 30 seconds later it can "
            "be copied.",
            exit_code=_TEMPORARY,
        )


def _prepare_target(url: str, clock: Clock) -> None:
    """Make the tables of a target that has none."""
    facts = migrate.facts_of(url)
    if facts.number is None:
        migrate.upgrade(url, clock)
    else:
        _insist_on_version(url)


@contextmanager
def _writing(url: str, clock: Clock) -> Iterator[Connection]:
    """Open a target; a second copy to it waits here, and then finds that it is not empty."""
    with _opened(url, clock) as connection:
        if connection.dialect.name == "postgresql":
            lock = text("SELECT pg_advisory_xact_lock(:key)")
            connection.execute(lock, {"key": migrate.ADVISORY_LOCK})
        yield connection


def _insist_on_empty(connection: Connection, url: str) -> None:
    for table in _tables():
        query = select(func.count()).select_from(table)
        if table is installation:
            query = query.where(installation.c.name.not_in(_OF_THE_TARGET))
        if connection.execute(query).scalar_one():
            raise StartupError(
                f"{_describe(url)}: it is not empty: it has rows in `{table.name}`. Name another "
                "database, or drop this one and create it again.",
                exit_code=_CONFIG,
            )


def _copy_table(source: Connection, target: Connection, table: Table) -> CopiedTable:
    """Copy the rows of a table, read them back, and compare."""
    rows = _rows(source, table)
    read = _Digest()
    batch: list[dict[str, Any]] = []
    insert = table.insert()
    for row in rows:
        read.add(row)
        batch.append(dict(zip(_names(table), row, strict=True)))
        if len(batch) == _BATCH:
            target.execute(insert, batch)
            batch.clear()
    if batch:
        target.execute(insert, batch)
    written = _Digest()
    for row in _rows(target, table):
        written.add(row)
    if (read.rows, read.hexdigest()) != (written.rows, written.hexdigest()):
        raise StartupError(
            f"`{table.name}` was not copied truly: {read.rows} rows with the digest "
            f"{read.hexdigest()[:16]} became {written.rows} with {written.hexdigest()[:16]}. "
            "Nothing was kept.",
            exit_code=_SOFTWARE,
        )
    return CopiedTable(table.name, read.rows, read.hexdigest())


def _names(table: Table) -> list[str]:
    return [column.name for column in _columns(table)]


def _columns(table: Table) -> list[Column[Any]]:
    return [column for column in table.columns if column.name != _TRIGGERED]


def _rows(connection: Connection, table: Table) -> Iterator[Sequence[Any]]:
    """Read the rows in the order of the primary key, which is the same on both stores."""
    key = list(table.primary_key.columns)
    query: Select[Any] = select(*_columns(table))
    if table is installation:
        query = query.where(installation.c.name.not_in(_OF_THE_TARGET))
    order = [_bytewise(column, connection) for column in key]
    paged = {"yield_per": _BATCH}
    result = connection.execute(query.order_by(*order), execution_options=paged)
    for row in result:
        yield tuple(bytes(one) if isinstance(one, memoryview) else one for one in row)


def _bytewise(column: Column[Any], connection: Connection) -> Any:
    """Return what sorts a column by the bytes of its text on both stores."""
    if column.type.python_type is not str:
        return column
    return column.collate("C") if connection.dialect.name == "postgresql" else column


def _become_another(connection: Connection, clock: Clock, ids: Ids) -> tuple[str, str]:
    """Give the copy an installation ID of its own, and mark it; return the old ID and the new."""
    known = coordination.installation_ids(connection)
    fresh = ids.installation()
    coordination.set_value(connection, coordination.INSTALLATION_ID, fresh)
    if known:
        earlier = orjson.dumps(list(known)).decode()
        coordination.set_value(connection, coordination.EARLIER_IDS, earlier)
    account.mark_restored(connection, clock.now())
    return (known[0] if known else ""), fresh


def _raise_sequences(connection: Connection) -> None:
    """Let numbers that PostgreSQL draws begin after those that were copied."""
    if connection.dialect.name != "postgresql":
        return
    for table in _tables():
        column = table.autoincrement_column
        if column is not None and column.autoincrement is True:
            highest = connection.execute(select(func.max(column))).scalar_one()
            if highest is not None:
                sequence = func.pg_get_serial_sequence(table.name, column.name)
                connection.execute(select(func.setval(sequence, highest)))


class _Digest:
    """A digest of rows that is the same for equal values on both stores."""

    def __init__(self) -> None:
        self.rows = 0
        self._hash = hashlib.sha256()

    def add(self, row: Sequence[Any]) -> None:
        """Add the next row."""
        self.rows += 1
        for value in row:
            written = value if isinstance(value, bytes) else repr(value).encode()
            self._hash.update(b"%d:%b," % (len(written), written))
        self._hash.update(b";")

    def hexdigest(self) -> str:
        """Return the digest of the rows so far."""
        return self._hash.hexdigest()
