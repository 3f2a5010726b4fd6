# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests: virtual time, servers, empty databases, and a complete control plane.

A test that uses `database` runs on SQLite and on PostgreSQL. If a server does not answer, its tests
are skipped, unless TEST_REQUIRE_SERVICES=1 makes them mandatory.
"""

from __future__ import annotations

import pwd
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from novitai.emulator import EmulatorConfig, create_app
from novitai.emulator.config import Settings as EmulatorSettings
from novitai.settings import Settings
from novitai.store import migrate
from novitai.store.engine.database import Database
from novitai.store.opening import open_database
from novitai.testing import ManualClock
from tests.lifecycle.world import SHORT_DELAYS, Emulator, World, settings_for
from tests.services import POSTGRESQL_URL, REDIS_URL, STORES, PostgresqlServer, unavailable

# A busy machine must not make a test fail.
hypothesis_settings.register_profile(
    "calm", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("calm")


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home folder, such as one that systemd makes for a service."""

    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.fixture
def clock() -> ManualClock:
    """Virtual time."""
    return ManualClock()


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
    """The PostgreSQL server, for tests that make their own databases."""
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
    """A migrated, empty database, on each store in turn; its deadlines use `clock`."""
    opened = await open_database(database_url, clock)
    yield opened
    await opened.close()


@pytest.fixture
async def sqlite_database(sqlite_database_url: str, clock: ManualClock) -> AsyncIterator[Database]:
    """A migrated, empty SQLite database, for tests that do not depend on the store."""
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
    """The URL of the Redis server. Tests share it, so each uses its own keys."""
    if not _redis_answers:
        unavailable("no Redis server answers at TEST_REDIS_URL or on the loopback")
    return REDIS_URL


@pytest.fixture
def store(request: pytest.FixtureRequest) -> str:
    """The store that a test runs on: SQLite, unless it is marked `on_both_stores`."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def settings(request: pytest.FixtureRequest, store: str, tmp_path: Path) -> Settings:
    """Settings for the store of the test."""
    return settings_for(request.getfixturevalue(f"{store}_database_url"), tmp_path)


@pytest.fixture
async def emulator(clock: ManualClock) -> AsyncIterator[Emulator]:
    """An emulator that uses the test's virtual time."""
    app = create_app(
        EmulatorConfig(
            time_source=clock.monotonic,
            seed=1,
            public_url="http://emulator",
            settings=EmulatorSettings(delays=SHORT_DELAYS),
        )
    )
    emulator = Emulator(app)
    async with app.router.lifespan_context(app):
        yield emulator
    await emulator.aclose()


@pytest.fixture
async def world(settings: Settings, clock: ManualClock, emulator: Emulator) -> AsyncIterator[World]:
    """A running control plane against an emulator, in virtual time."""
    made = World(settings, clock, emulator)
    await made.open()
    yield made
    await made.end()
