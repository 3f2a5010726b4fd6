# SPDX-License-Identifier: Apache-2.0
"""What every room's tests share: virtual time, real servers, and an empty database on each store.

A test that takes `database` runs on SQLite and on PostgreSQL. Where no server answers, its tests
are skipped, unless TEST_REQUIRE_SERVICES=1 says that they have to run.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Never
from urllib.parse import urlsplit

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql

from novitai.store import migrate
from novitai.store.engine.database import Database
from novitai.store.opening import open_database
from novitai.testing import ManualClock

POSTGRESQL_URL = os.environ.get("TEST_POSTGRESQL_URL", "postgresql://root@127.0.0.1:5432/postgres")
REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")

# No test fails because the machine is busy.
settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")

STORES = (
    pytest.param("sqlite", id="sqlite"),
    pytest.param("postgresql", id="postgresql", marks=pytest.mark.postgresql),
)


def unavailable(reason: str) -> Never:
    """Skip the test, or fail it where services are required."""
    if os.environ.get("TEST_REQUIRE_SERVICES") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def clock() -> ManualClock:
    """Virtual time."""
    return ManualClock()


class PostgresqlServer:
    """The server of the tests, and databases in it that last as long as they are needed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._admin = psycopg.connect(url, autocommit=True, connect_timeout=3)

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """Make a database, yield its URL, and drop it whoever is still connected."""
        name = f"novitai_test_{secrets.token_hex(8)}"
        self._run("CREATE DATABASE {} TEMPLATE {}", name, template)
        try:
            yield urlsplit(self.url)._replace(path=f"/{name}").geturl()
        finally:
            self._run("DROP DATABASE {} WITH (FORCE)", name)

    def _run(self, statement: str, *names: str) -> None:
        identifiers = [sql.Identifier(name) for name in names]
        self._admin.execute(sql.SQL(statement).format(*identifiers))

    def close(self) -> None:
        """Hang up."""
        self._admin.close()


@pytest.fixture(scope="session")
def _postgresql_server_or_reason() -> Iterator[PostgresqlServer | str]:
    try:
        server = PostgresqlServer(POSTGRESQL_URL)
    except psycopg.OperationalError:
        yield "no PostgreSQL server answers at TEST_POSTGRESQL_URL or on the loopback"
        return
    yield server
    server.close()


@pytest.fixture
def postgresql_server(_postgresql_server_or_reason: PostgresqlServer | str) -> PostgresqlServer:
    """The PostgreSQL server, for tests that make databases of their own."""
    if isinstance(_postgresql_server_or_reason, str):
        unavailable(_postgresql_server_or_reason)
    return _postgresql_server_or_reason


@pytest.fixture
def postgresql_url(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """The URL of an empty database without tables, dropped afterwards."""
    with postgresql_server.database() as url:
        yield url


@pytest.fixture(scope="session")
def _postgresql_template(
    _postgresql_server_or_reason: PostgresqlServer | str,
) -> Iterator[str | None]:
    """The name of a migrated database to copy."""
    if isinstance(_postgresql_server_or_reason, str):
        yield None
        return
    with _postgresql_server_or_reason.database() as url:
        migrate.upgrade(url, ManualClock())
        yield urlsplit(url).path[1:]


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file to copy."""
    path = tmp_path_factory.mktemp("template") / "novitai.db"
    migrate.upgrade(f"sqlite:///{path}", ManualClock())
    return path


@pytest.fixture
def sqlite_database_url(_sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a migrated, empty SQLite database."""
    path = tmp_path / "novitai.db"
    shutil.copyfile(_sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgresql_database_url(
    postgresql_server: PostgresqlServer, _postgresql_template: str
) -> Iterator[str]:
    """The URL of a migrated, empty PostgreSQL database."""
    with postgresql_server.database(_postgresql_template) as url:
        yield url


@pytest.fixture(params=STORES)
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a migrated, empty database, on each store in turn."""
    url: str = request.getfixturevalue(f"{request.param}_database_url")
    return url


@pytest.fixture
async def database(database_url: str, clock: ManualClock) -> AsyncIterator[Database]:
    """A migrated, empty database, on each store in turn; its deadlines go by `clock`."""
    opened = await open_database(database_url, clock)
    yield opened
    await opened.close()


@pytest.fixture
async def sqlite_database(sqlite_database_url: str, clock: ManualClock) -> AsyncIterator[Database]:
    """A migrated, empty database on SQLite alone, where the store makes no difference."""
    opened = await open_database(sqlite_database_url, clock)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def _redis_answers() -> bool:
    parts = urlsplit(REDIS_URL)
    try:
        address = (parts.hostname or "127.0.0.1", parts.port or 6379)
        with socket.create_connection(address, timeout=3) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False


@pytest.fixture
def redis_url(_redis_answers: bool) -> str:
    """The URL of the Redis server. It is shared: use keys of your own."""
    if not _redis_answers:
        unavailable("no Redis server answers at TEST_REDIS_URL or on the loopback")
    return REDIS_URL
