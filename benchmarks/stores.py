# SPDX-License-Identifier: Apache-2.0
"""Databases of a run: made, migrated by `novitai migrate`, filled with instances, and dropped."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from urllib.parse import urlsplit

import psycopg
import sqlalchemy as sa
from psycopg import sql

from benchmarks.machine import BenchmarkFailed
from benchmarks.processes import NOVITAI, House, call
from novitai.store import tables

POSTGRESQL_URL: Final = os.environ.get(
    "TEST_POSTGRESQL_URL", "postgresql://root@127.0.0.1:5432/postgres"
)
SQLITE: Final = "SQLite"
POSTGRESQL: Final = "PostgreSQL"
_CHUNK: Final = 1_000
_MINUTE: Final = 60_000
_FIRST: Final = 1_760_000_000_000


@dataclass(frozen=True, slots=True)
class Store:
    """An empty, migrated database."""

    name: str
    url: str

    @property
    def env(self) -> dict[str, str]:
        """The settings of a process that uses it."""
        return {"NOVITAI_DATABASE_URL": self.url}


def postgresql_is_missing() -> str | None:
    """Return why the lines of PostgreSQL are skipped; None if the server answers."""
    try:
        psycopg.connect(POSTGRESQL_URL, connect_timeout=3).close()
    except psycopg.OperationalError:
        return "PostgreSQL skipped: no server answers at TEST_POSTGRESQL_URL or on the loopback"
    return None


@contextmanager
def sqlite(house: House, name: str = "novitai") -> Iterator[Store]:
    """Make a database file."""
    store = Store(SQLITE, f"sqlite:///{(house.folder / f'{name}.db').absolute()}")
    house.ended([NOVITAI, "migrate"], store.env)
    yield store


@contextmanager
def postgresql_url() -> Iterator[str]:
    """Make a PostgreSQL database without tables; drop it afterwards.

    Raises:
        BenchmarkFailed: the server did not make the database.
    """
    name = f"novitai_bench_{secrets.token_hex(6)}"
    _administer("CREATE DATABASE {}", name)
    try:
        yield urlsplit(POSTGRESQL_URL)._replace(path=f"/{name}").geturl()
    finally:
        _administer("DROP DATABASE {} WITH (FORCE)", name)


def _administer(statement: LiteralString, database: str) -> None:
    try:
        with psycopg.connect(POSTGRESQL_URL, autocommit=True, connect_timeout=3) as admin:
            admin.execute(sql.SQL(statement).format(sql.Identifier(database)))
    except psycopg.Error as error:
        raise BenchmarkFailed(f"PostgreSQL: {str(error).splitlines()[0]}") from None


@contextmanager
def postgresql(house: House) -> Iterator[Store]:
    """Make a migrated PostgreSQL database; drop it afterwards."""
    with postgresql_url() as url:
        store = Store(POSTGRESQL, url)
        house.ended([NOVITAI, "migrate"], store.env)
        yield store


def seed(emulator: str, count: int) -> list[str]:
    """Add running instances to the emulator's account; return their upstream IDs."""
    ids: list[str] = []
    while len(ids) < count:
        wanted = min(_CHUNK, count - len(ids))
        names = [f"instance-{len(ids) + number}" for number in range(wanted)]
        ids += call(emulator, "POST", "/_emulator/seed", {"names": names})[1]["ids"]
    return ids


def fill(store: Store, upstream_ids: Sequence[str]) -> list[str]:
    """Insert a running instance for each upstream ID; return the IDs, newest first."""
    engine = sa.create_engine(store.url.replace("postgresql://", "postgresql+psycopg://", 1))
    rows = [_row(number, upstream) for number, upstream in enumerate(upstream_ids)]
    with engine.begin() as connection:
        for start in range(0, len(rows), _CHUNK):
            connection.execute(sa.insert(tables.instances), rows[start : start + _CHUNK])
    if store.name == POSTGRESQL:
        # What autovacuum does within minutes; here it must not run during a measurement.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM ANALYZE instances"))
    engine.dispose()
    return [row["id"] for row in reversed(rows)]


def _row(number: int, upstream_id: str) -> dict[str, Any]:
    created_at = _FIRST + number
    return {
        "id": f"inst_{created_at}_{number:012}",
        "name": f"instance-{number}",
        "status": "running",
        "product_name": "gpu-basic",
        "product_id": "gpu-basic.8c32g",
        "template_id": "tmpl-12345",
        "gpu_num": 1,
        "rootfs_size": 60,
        "region": "US-WEST-01",
        "billing_mode": "onDemand",
        "hourly_price": 35_000,
        "webhook_url": "https://webhook.example.com/notify",
        "created_at": created_at,
        "updated_at": created_at + _MINUTE,
        "bought_at": created_at,
        "started_at": created_at + _MINUTE,
        "first_ready_at": created_at + _MINUTE,
        "ready_at": created_at + _MINUTE,
        "confirmed_at": created_at,
        "ever_ran": True,
        "launch_sealed": b"sealed",
        "upstream_id": upstream_id,
        "obs_status": "running",
        "obs_at": created_at + _MINUTE,
        "obs_ssh": "ssh://root@gpu-1.example.com:2222",
        "obs_port_mappings": '[[8888,"https://gpu-1.example.com:8888","http"]]',
    }
