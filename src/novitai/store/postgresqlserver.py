# SPDX-License-Identifier: Apache-2.0
"""Reaching a PostgreSQL server: its URL, and what is wrong when it cannot be reached.

No message holds the password.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import URL, Connection, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from novitai.errors import SettingsError, StartupError

_TEMPORARY: Final = 75  # EX_TEMPFAIL of sysexits(3)
_CONFIG: Final = 78  # EX_CONFIG

# libpq's own names. A server that vanished without a word is noticed after half a minute.
_DEFAULTS: Final = {
    "connect_timeout": "10",
    "fallback_application_name": "novitai",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
}


def engine_url(url: str) -> URL:
    """Return the URL for SQLAlchemy and psycopg; what it says itself wins over our defaults.

    Raises:
        SettingsError: it cannot be understood.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # their messages would quote the URL, password and all
        raise SettingsError(
            "NOVITAI_DATABASE_URL: cannot be understood; write "
            "postgresql://USER:PASSWORD@HOST:5432/DATABASE, with special characters of the "
            "password percent-encoded"
        ) from None
    defaults = {name: value for name, value in _DEFAULTS.items() if name not in parsed.query}
    return parsed.set(drivername="postgresql+psycopg").update_query_dict(defaults)


def describe(url: URL) -> str:
    """Name the database in words that may be shown."""
    user = f" as {url.username}" if url.username else ""
    host = url.host or url.query.get("host") or "the local socket"
    return f"PostgreSQL at {host}:{url.port or 5432}, database {url.database or url.username}{user}"


def connect(url: str) -> Connection:
    """Open one connection outside of any pool; the caller closes it.

    Raises:
        SettingsError: the URL cannot be understood.
        StartupError: the server is not there, or it does not let us in.
    """
    target = engine_url(url)
    engine = create_engine(target, poolclass=NullPool, hide_parameters=True)
    try:
        return engine.connect()
    except DBAPIError as error:
        raise _startup_error(target, str(error.orig)) from None


def _startup_error(url: URL, reason: str) -> StartupError:
    where = describe(url)
    if "password authentication failed" in reason or "no password supplied" in reason:
        return StartupError(
            f"{where}: the user or the password is wrong. Correct NOVITAI_DATABASE_URL.",
            exit_code=_CONFIG,
        )
    if "database" in reason and "does not exist" in reason:
        return StartupError(
            f"{where}: there is no such database. Make it (createdb {url.database}) and run "
            "`novitai migrate`, or correct NOVITAI_DATABASE_URL.",
            exit_code=_CONFIG,
        )
    return StartupError(
        f"{where}: cannot connect: {_without_secrets(url, reason)}. "
        "Start the server, or correct NOVITAI_DATABASE_URL.",
        exit_code=_TEMPORARY,
    )


def _without_secrets(url: URL, reason: str) -> str:
    text = " ".join(reason.split())
    secrets = [url.password, url.query.get("password"), url.query.get("sslpassword")]
    for secret in secrets:
        if isinstance(secret, str) and secret:
            text = text.replace(secret, "***")
    return text.rstrip(".")
