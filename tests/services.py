# SPDX-License-Identifier: Apache-2.0
"""The PostgreSQL and Redis servers that tests use if they answer."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Never
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

POSTGRESQL_URL = os.environ.get("TEST_POSTGRESQL_URL", "postgresql://root@127.0.0.1:5432/postgres")


REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")


STORES = (
    pytest.param("sqlite", id="sqlite"),
    pytest.param("postgresql", id="postgresql", marks=pytest.mark.postgresql),
)


def unavailable(reason: str) -> Never:
    """Skip the test, or fail it if services are required."""
    if os.environ.get("TEST_REQUIRE_SERVICES") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class PostgresqlServer:
    """The PostgreSQL server of the tests; it makes temporary databases."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._admin = psycopg.connect(url, autocommit=True, connect_timeout=3)

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """Make a database, yield its URL, and drop it even if clients are still connected."""
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
        """Close the connection."""
        self._admin.close()
