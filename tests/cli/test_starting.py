# SPDX-License-Identifier: Apache-2.0
"""Startup is fast: a process imports only what it needs and disables garbage collection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_SERVER = {"starlette", "uvicorn"}
_QUEUE = {"pgqueuer", "asyncpg"}
_DRIVER = {"psycopg", "sqlalchemy.dialects.postgresql"}
_SHARED = {"redis"}
"""Imported only if rate limits are shared between processes."""
_NOBODYS = {"alembic", "novitai.emulator"}
"""Never imported if the database is up to date, or an SQLite file that does not exist yet."""

_CODE = """
import atexit, gc, json, os, signal, sys
before = gc.get_freeze_count()  # not 0 in every version
from novitai.cli import main, starting

done = starting.done

def end_when_started():
    done()
    os.kill(os.getpid(), signal.SIGTERM)

starting.done = end_when_started
atexit.register(lambda: sys.stderr.write(
    "\\n" + json.dumps([list(sys.modules), gc.isenabled(), gc.get_freeze_count() - before])
))
main.main()
"""


def loaded(url: str, folder: Path, *arguments: str, redis_url: str | None = None) -> set[str]:
    """Run a command, if long-running until it has started; return the modules it imported."""
    process = subprocess.run(
        [sys.executable, "-c", _CODE, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        cwd=folder,
        env={
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            "HOME": str(folder),
            "NOVITAI_DATA_DIR": str(folder),
            "NOVITAI_DATABASE_URL": url,
            "NOVITAI_SECRET_KEY": "canary-secret-key-that-is-32-bytes-long",
            "NOVITAI_UPSTREAM_URL": "http://127.0.0.1:9",
            **({"NOVITAI_REDIS_URL": redis_url} if redis_url else {}),
        },
    )
    assert process.returncode == 0, process.stderr
    modules, collecting, frozen = json.loads(process.stderr.splitlines()[-1])
    assert collecting
    assert bool(frozen) == (arguments[0] in {"serve", "api", "worker"})
    return set(modules)


def test_serve_on_the_embedded_file(sqlite_database_url: str, tmp_path: Path) -> None:
    """With an up-to-date file, modules for PostgreSQL and for migrations are not imported."""
    modules = loaded(sqlite_database_url, tmp_path, "serve", "--port", "0")
    assert modules >= _SERVER
    assert not modules & (_QUEUE | _DRIVER | _SHARED | _NOBODYS)


def test_the_first_start_of_serve(tmp_path: Path) -> None:
    """The tables of a new file are made without Alembic."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    modules = loaded(url, tmp_path, "serve", "--port", "0")
    assert modules >= _SERVER
    assert not modules & (_QUEUE | _DRIVER | _SHARED | _NOBODYS)


def test_a_short_command_on_the_embedded_file(sqlite_database_url: str, tmp_path: Path) -> None:
    """A command that reads a few rows imports neither the server nor the queue."""
    modules = loaded(sqlite_database_url, tmp_path, "keys", "list")
    assert not modules & (_SERVER | _QUEUE | _DRIVER | _SHARED | _NOBODYS)


@pytest.mark.postgresql
def test_a_worker(postgresql_database_url: str, tmp_path: Path) -> None:
    """A worker does not import the HTTP server, so that it restarts quickly."""
    modules = loaded(postgresql_database_url, tmp_path, "worker")
    assert modules >= _QUEUE | _DRIVER
    assert not modules & (_SERVER | _SHARED | _NOBODYS)


@pytest.mark.postgresql
def test_an_api(postgresql_database_url: str, tmp_path: Path) -> None:
    """A process without a worker does not import the queue's modules."""
    modules = loaded(postgresql_database_url, tmp_path, "api", "--port", "0")
    assert modules >= _SERVER | _DRIVER
    assert not modules & (_QUEUE | _SHARED | _NOBODYS)


@pytest.mark.postgresql
def test_an_api_that_shares_its_limits(postgresql_database_url: str, tmp_path: Path) -> None:
    """redis-py is imported if `NOVITAI_REDIS_URL` is set, even if the server does not answer."""
    modules = loaded(
        postgresql_database_url, tmp_path, "api", "--port", "0", redis_url="redis://127.0.0.1:9"
    )
    assert modules >= _SHARED
