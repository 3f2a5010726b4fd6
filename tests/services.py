# SPDX-License-Identifier: Apache-2.0
"""The PostgreSQL and Redis servers that tests use if they answer."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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
        # No test stops the server, so nothing is lost if commits do not wait for its disk.
        self._run("ALTER DATABASE {} SET synchronous_commit = off", name)
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


class RestartableServer:
    """A PostgreSQL server of one test; `url` is that of its database."""

    def __init__(self, folder: Path, programs: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        self._folder = folder
        self._programs = programs
        self._run("initdb", "-A", "trust", "-U", "postgres", "--no-sync")
        places = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        self._control("start", "-o", f"-p {port} {places} -c fsync=off")

    def restart(self, how: str) -> None:
        """Restart it: `fast` ends its connections, `immediate` is a crash."""
        self._control("restart", "-m", how)

    def stop(self) -> None:
        """Stop it."""
        self._control("stop", "-m", "immediate")

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-w", "-l", str(self._folder / "log"), *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        # PostgreSQL does not run as root.
        user = "postgres" if os.geteuid() == 0 else None
        subprocess.run(
            [self._programs / program, "-D", self._folder / "data", *arguments],
            user=user,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )


@contextmanager
def restartable_server() -> Iterator[RestartableServer]:
    """Start a PostgreSQL server of the test's own; skip the test if the programs are missing."""
    found = shutil.which("initdb") or next(
        (str(one) for one in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None
    )
    if found is None:
        unavailable("initdb is not on the PATH (Debian's package: postgresql)")
    with tempfile.TemporaryDirectory(prefix="novitai-postgresql-") as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        server = RestartableServer(Path(folder), Path(found).parent)
        try:
            yield server
        finally:
            server.stop()
