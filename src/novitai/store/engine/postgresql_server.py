# SPDX-License-Identifier: Apache-2.0
"""Connections to a PostgreSQL server, and the messages of connection errors and refusals.

No message contains the password.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

from novitai import postgresql_url, urls
from novitai.errors import SettingsError, StartupError
from novitai.postgresql_url import Target

TEMPORARY: Final = 75  # EX_TEMPFAIL of sysexits(3)
CONFIG: Final = 78  # EX_CONFIG

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_NOT_ALLOWED: Final = "42501"  # insufficient privilege
_NO_SCHEMA: Final = "3F000"
_READ_ONLY: Final = "25006"
_DISK_FULL: Final = "53100"
_WRONG_LOGIN: Final = ("password authentication failed", "no password supplied")
_NOT_LET_IN: Final = ("role", "no pg_hba.conf entry", "permission denied", "certificate")


def target(url: str) -> Target:
    """Parse the URL; see `postgresql_url.resolve`.

    Raises:
        SettingsError: the URL cannot be used.
    """
    try:
        return postgresql_url.resolve(url)
    except urls.UrlError as error:
        raise SettingsError(f"NOVITAI_DATABASE_URL: {error}") from None


def describe(url: str) -> str:
    """Describe the database without secrets, for messages.

    Raises:
        SettingsError: the URL cannot be used.
    """
    return target(url).describe()


def make_engine(url: str, *, pooled: bool = False, **options: Any) -> Engine:
    """Create an SQLAlchemy engine on psycopg whose error messages hide parameters.

    Args:
        url: The URL of the database.
        pooled: Whether each transaction may run in another session, so that statements cannot be
            prepared.
        options: Further options of the engine.

    Raises:
        SettingsError: the URL cannot be used.
    """
    unprepared = {"prepare_threshold": None} if pooled else {}
    return create_engine(
        "postgresql+psycopg://",
        connect_args={**target(url).for_psycopg(), **unprepared},
        hide_parameters=True,
        **options,
    )


def connect(url: str) -> Connection:
    """Open one connection without a pool; the caller closes it.

    Raises:
        SettingsError: the URL cannot be used.
        StartupError: the server cannot be reached, or it refuses the connection.
    """
    engine = make_engine(url, poolclass=NullPool)
    try:
        return engine.connect()
    except DBAPIError as error:
        raise unreachable(target(url), str(error.orig)) from None


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Convert errors of statements within the block into `StartupError`.

    Raises:
        StartupError: the server refused a statement, or the connection broke.
    """
    try:
        yield
    except DBAPIError as error:
        raise refused(target(url), error.orig) from None


def unreachable(where: Target, reason: str) -> StartupError:
    """Return the error for a failed connection; `reason` is the driver's message."""
    said = _without_secrets(where, reason)
    name = where.describe()
    if any(words in reason for words in _WRONG_LOGIN):
        return StartupError(
            f"{name}: the user or the password is wrong. Correct NOVITAI_DATABASE_URL.",
            exit_code=CONFIG,
        )
    if f'database "{where.database}" does not exist' in reason:
        return StartupError(
            f"{name}: there is no such database. Create it (createdb {where.database}) and run "
            "`novitai migrate`, or correct NOVITAI_DATABASE_URL.",
            exit_code=CONFIG,
        )
    if "statement pooling mode" in reason:  # PgBouncer refuses BEGIN in this mode
        return pooled(where)
    if any(f"FATAL:  {words}" in reason for words in _NOT_LET_IN):
        return StartupError(
            f"{name}: cannot connect: {said}. Correct NOVITAI_DATABASE_URL, or pg_hba.conf or the "
            "role on the server.",
            exit_code=CONFIG,
        )
    return StartupError(
        f"{name}: cannot connect: {said}. Start the server, or correct NOVITAI_DATABASE_URL.",
        exit_code=TEMPORARY,
    )


def refused(where: Target, error: BaseException | None) -> StartupError:
    """Return the error for a statement that the server refused, from the driver's exception."""
    diagnosis = getattr(error, "diag", None)
    said = getattr(diagnosis, "message_primary", None) or str(error)
    said = _without_secrets(where, said)
    state = getattr(error, "sqlstate", None) or ""
    name = where.describe()
    if state in {_NOT_ALLOWED, _NO_SCHEMA}:
        return StartupError(
            f"{name}: the role lacks rights: {said}. Make it the owner of the database and of its "
            f'tables, or run as a superuser: GRANT CREATE ON SCHEMA public TO "{where.user}".',
            exit_code=CONFIG,
        )
    if state == _READ_ONLY:
        return StartupError(f"{name}: accepts no writes: {said}.", exit_code=TEMPORARY)
    if state == _DISK_FULL:
        return StartupError(f"{name}: no space is left on its disk: {said}.", exit_code=TEMPORARY)
    if not state or state.startswith(("08", "57P")):
        return StartupError(f"{name}: the connection broke: {said}.", exit_code=TEMPORARY)
    return StartupError(f"{name}: the server refused: {said} (SQLSTATE {state}).", exit_code=CONFIG)


def pooled(where: Target) -> StartupError:
    """Return the error for a connection pooler that does not dedicate sessions to clients."""
    return StartupError(
        f"{where.describe()}: this is a connection pooler in transaction or statement mode, such "
        "as PgBouncer, which may run each transaction in another session: prepared statements, "
        "settings and notifications of several clients get mixed up. Set "
        "NOVITAI_DATABASE_DIRECT_URL to PostgreSQL's own address, or use pool_mode=session.",
        exit_code=CONFIG,
    )


def _without_secrets(where: Target, reason: str) -> str:
    text = " ".join(reason.split())
    for secret in where.secrets():
        text = text.replace(secret, urls.MASK)
    return urls.mask_within(text).rstrip(".")
