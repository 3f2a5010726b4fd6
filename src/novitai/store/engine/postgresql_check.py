# SPDX-License-Identifier: Apache-2.0
"""Checks at start that a PostgreSQL server meets the requirements.

The checks must not leave a setting or a prepared statement in the session: behind a pooler in
transaction mode, another client would get it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, LiteralString

import psycopg
from psycopg import sql

from novitai.errors import StartupError
from novitai.postgresql_url import Target
from novitai.store.engine import postgresql_server
from novitai.store.engine.postgresql_server import CONFIG, TEMPORARY
from novitai.store.tables import metadata

OLDEST_VERSION: Final = 14
NOTIFICATION_SECONDS: Final = 10.0
"""How long a notification may take to arrive."""
_ROUNDS: Final = 3
_QUEUE_TABLES: Final = ("pgqueuer", "pgqueuer_log", "pgqueuer_schedules")

_RIGHTS: Final[LiteralString] = """
    WITH ours AS (
        SELECT to_regclass(name) AS id FROM unnest(CAST(%s AS text[])) AS name
    ), forbidden AS (
        SELECT id FROM ours WHERE NOT (
            has_table_privilege(id, 'SELECT') AND has_table_privilege(id, 'INSERT')
            AND has_table_privilege(id, 'UPDATE') AND has_table_privilege(id, 'DELETE')
        )
        UNION ALL
        SELECT sequence.oid
        FROM ours
        JOIN pg_depend AS part ON part.refobjid = ours.id AND part.classid = 'pg_class'::regclass
        JOIN pg_class AS sequence ON sequence.oid = part.objid
        WHERE CASE sequence.relkind
            WHEN 'S' THEN NOT has_sequence_privilege(sequence.oid, 'USAGE') ELSE false
        END
        UNION ALL
        SELECT version.id FROM (SELECT to_regclass('alembic_version') AS id) AS version
        WHERE NOT has_table_privilege(version.id, 'SELECT')
    )
    SELECT id::regclass::text FROM forbidden ORDER BY 1
"""

Session = psycopg.Connection[tuple[object, ...]]


def insist_on_database(url: str) -> None:
    """Check for dedicated sessions, a supported version, UTF-8 encoding and a writable database.

    Raises:
        SettingsError: the URL cannot be used.
        StartupError: a requirement is not met, or the server cannot be reached.
    """
    with _sessions(url) as (where, one, other):
        _insist_on_database(where, one, other)


def insist_on_server(url: str) -> None:
    """Check the same as `insist_on_database`, and that NOTIFY reaches a listening session.

    Raises:
        SettingsError: the URL cannot be used.
        StartupError: a requirement is not met, or the server cannot be reached.
    """
    with _sessions(url) as (where, one, other):
        _insist_on_database(where, one, other)
        _insist_on_notifications(where, one, other)


def insist_on_pooler(url: str, direct_url: str) -> None:
    """Check that a pooler leads to the database to which another URL leads directly.

    Raises:
        SettingsError: a URL cannot be used.
        StartupError: a server cannot be reached, or they are two databases.
    """
    where = postgresql_server.target(url)
    with _sessions(direct_url) as (_, one, _), _open(where) as other:
        try:
            with other.transaction():
                if _value(other, "SHOW transaction_read_only") != "off":
                    raise StartupError(
                        f"{where.describe()}: accepts no writes.", exit_code=TEMPORARY
                    )
            channel = sql.Identifier(f"novitai_check_{secrets.token_hex(8)}")
            one.execute(sql.SQL("LISTEN {}").format(channel))
            other.execute(sql.SQL("NOTIFY {}").format(channel))
            arrived = list(one.notifies(timeout=NOTIFICATION_SECONDS, stop_after=1))
        except psycopg.Error as error:
            raise postgresql_server.refused(where, error) from None
    if not arrived:
        raise StartupError(
            f"{where.describe()}: NOVITAI_DATABASE_URL and NOVITAI_DATABASE_DIRECT_URL lead to two "
            "databases: a notification of one did not reach the other.",
            exit_code=CONFIG,
        )


def insist_on_rights(url: str) -> None:
    """Check that the role has all rights on novitai's tables and sequences, as far as they exist.

    Raises:
        SettingsError: the URL cannot be used.
        StartupError: a right is missing, or the server cannot be reached.
    """
    with _sessions(url) as (where, one, _):
        names = sorted([*metadata.tables, *_QUEUE_TABLES])
        row = one.execute(_RIGHTS, (names,)).fetchone()
    if row is not None:
        raise StartupError(
            f"{where.describe()}: the role {where.user} may not use {row[0]}. "
            "Connect as the role that ran `novitai migrate`, or give it these rights: GRANT "
            f'SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{where.user}"; '
            f'GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO "{where.user}".',
            exit_code=CONFIG,
        )


@contextmanager
def _sessions(url: str) -> Iterator[tuple[Target, Session, Session]]:
    """Open two sessions; errors of psycopg within the block become `StartupError`."""
    where = postgresql_server.target(url)
    try:
        with _open(where) as one, _open(where) as other:
            yield where, one, other
    except psycopg.Error as error:
        raise postgresql_server.refused(where, error) from None


@contextmanager
def _open(where: Target) -> Iterator[Session]:
    try:
        session = psycopg.connect(**where.for_psycopg(), autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        raise postgresql_server.unreachable(where, str(error)) from None
    with session:
        yield session


def _insist_on_database(where: Target, one: Session, other: Session) -> None:
    if _shared(one, other):
        raise postgresql_server.pooled(where)
    if one.info.server_version < OLDEST_VERSION * 10_000:
        raise StartupError(
            f"{where.describe()}: PostgreSQL {one.info.server_version // 10_000} is too old. "
            f"Use {OLDEST_VERSION} or newer.",
            exit_code=CONFIG,
        )
    encoding = _value(one, "SHOW server_encoding")
    if encoding != "UTF8":
        raise StartupError(
            f"{where.describe()}: its encoding is {encoding}, which cannot store all text. Create "
            "a database with UTF8: createdb --encoding=UTF8 --template=template0 "
            f"{where.database}",
            exit_code=CONFIG,
        )
    if _value(one, "SELECT pg_is_in_recovery()"):
        raise StartupError(
            f"{where.describe()}: accepts no writes because it is a standby. Connect to the "
            "primary; if the URL names several hosts, add target_session_attrs=read-write.",
            exit_code=TEMPORARY,
        )
    if _value(one, "SHOW transaction_read_only") != "off":
        raise StartupError(
            f"{where.describe()}: accepts no writes: default_transaction_read_only is on for the "
            "database, the role or the server. Some providers turn it on when the disk is full.",
            exit_code=TEMPORARY,
        )


def _insist_on_notifications(where: Target, one: Session, other: Session) -> None:
    """Send a notification from one session to the other; only a dedicated session receives it."""
    channel = sql.Identifier(f"novitai_check_{secrets.token_hex(8)}")
    one.execute(sql.SQL("LISTEN {}").format(channel))
    other.execute(sql.SQL("NOTIFY {}").format(channel))
    arrived = list(one.notifies(timeout=NOTIFICATION_SECONDS, stop_after=1))
    if not arrived:
        if _behind_pooler(one):
            raise postgresql_server.pooled(where)
        raise StartupError(
            f"{where.describe()}: a notification (NOTIFY) did not reach the connection that "
            f"listens within {NOTIFICATION_SECONDS:.0f} s. Connect to PostgreSQL itself.",
            exit_code=TEMPORARY,
        )
    one.execute(sql.SQL("UNLISTEN {}").format(channel))


def _shared(one: Session, other: Session) -> bool:
    """Whether a pooler serves both sessions by one server process, or by changing ones."""
    if not _behind_pooler(one):
        return False
    before = _value(one, "SELECT pg_backend_pid()")
    return any(
        _value(other, "SELECT pg_backend_pid()") == before
        or _value(one, "SELECT pg_backend_pid()") != before
        for _ in range(_ROUNDS)
    )


def _behind_pooler(session: Session) -> bool:
    """Whether another process answers than the handshake named: a pooler does the handshake."""
    return _value(session, "SELECT pg_backend_pid()") != session.info.backend_pid


def _value(session: Session, statement: LiteralString) -> object:
    row = session.execute(statement).fetchone()
    return None if row is None else row[0]
