# SPDX-License-Identifier: Apache-2.0
"""Each group of benchmarks runs on a small scale, as a process, and yields its lines."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from benchmarks.__main__ import GROUPS, ON_DEMAND
from benchmarks.groups.creates import allowed_seconds
from tests.services import PostgresqlServer

ROOT: Final = Path(__file__).parents[2]
NOWHERE: Final = {"TEST_POSTGRESQL_URL": "postgresql://root@127.0.0.1:1/none"}
RUN: Final = """
import sys
from dataclasses import replace
from benchmarks.__main__ import main
from benchmarks.scale import SMALL
sys.exit(main(sys.argv[1:], replace(SMALL{changes})))
"""
ON_SQLITE: Final = {
    "reads": 8,
    "creates": 1,
    "start": 5,
    "store": 3,
    "jobs": 2,
    "sync": 2,
    "operating": 1,
    "webhooks": 0,
    "soak": 3,
}
"""The number of lines of each group without PostgreSQL and without FastAPI."""
ON_POSTGRESQL: Final = {
    "reads": 16,
    "creates": 2,
    "start": 5,
    "store": 0,
    "jobs": 2,
    "sync": 0,
    "operating": 0,
    "webhooks": 12,
    "soak": 3,
}
"""The number of lines that PostgreSQL adds."""


@dataclass(frozen=True)
class Ran:
    """A run that has ended."""

    code: int
    out: str
    err: str
    results: dict[str, Any]

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines, without those of the peer, which need not be installed."""
        return [one for one in self.results["lines"] if "FastAPI" not in one["measure"]]


def ran(folder: Path, *groups: str, env: Mapping[str, str] | None = None, changes: str = "") -> Ran:
    """Run groups in a folder of their own."""
    results = folder / "results.json"
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(changes=changes), *groups, "--json", str(results)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    read = orjson.loads(results.read_bytes()) if results.exists() else {}
    return Ran(done.returncode, done.stdout, done.stderr, read)


def test_every_group_is_tested() -> None:
    """The tables of this module name every group."""
    assert set(ON_SQLITE) == set(ON_POSTGRESQL) == {*GROUPS, *ON_DEMAND}


@pytest.mark.postgresql
@pytest.mark.parametrize("group", ON_SQLITE)
def test_a_group_yields_its_lines(
    group: str, tmp_path: Path, postgresql_server: PostgresqlServer
) -> None:
    """A group measures each of its lines on each store, prints them, and is silent otherwise."""
    done = ran(tmp_path, group, env={"TEST_POSTGRESQL_URL": postgresql_server.url})
    assert (done.code, done.err) == (0, "")
    lines = done.lines()
    assert len(lines) == ON_SQLITE[group] + ON_POSTGRESQL[group]
    assert {one["group"] for one in lines} == {group}
    assert all(one["figure"] >= 0 for one in lines)
    for one in lines:
        assert f"{one['measure']} " in done.out
    assert done.results["machine"]["load at the start"] in done.out
    # Databases, logs and processes end with the run.
    assert list((tmp_path / "build").glob("*")) == []


@pytest.mark.parametrize("group", ["jobs", "webhooks"])
def test_without_postgresql_its_lines_are_skipped(group: str, tmp_path: Path) -> None:
    """One line of text says that PostgreSQL is skipped; the lines of SQLite are there."""
    done = ran(tmp_path, group, env=NOWHERE)
    assert (done.code, done.err) == (0, "")
    assert len(done.lines()) == ON_SQLITE[group]
    assert len([note for note in done.results["notes"] if "PostgreSQL skipped" in note]) == 1
    assert done.out.count("PostgreSQL skipped") == 1


@pytest.mark.postgresql
def test_a_server_that_does_not_start_is_one_line(
    tmp_path: Path, postgresql_server: PostgresqlServer
) -> None:
    """The line names the server and its own message; the exit code is 1, and other lines stay."""
    env = {"TEST_POSTGRESQL_URL": postgresql_server.url}
    done = ran(tmp_path, "creates", env=env, changes=", calls_per_minute=0")
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert done.err.startswith("bench: creates: novitai api ended: ")
    assert "NOVITAI_UPSTREAM_CALLS_PER_MINUTE" in done.err
    assert len(done.lines()) == 2


def test_an_unknown_group_is_refused(tmp_path: Path) -> None:
    """A misspelt group runs nothing, and the known ones are named."""
    done = ran(tmp_path, "read")
    assert done.code == 2
    assert done.err.startswith("bench: no group is named read; known: reads, creates, ")


def test_the_limiter_lets_a_burst_through_at_once() -> None:
    """The yardstick of a burst: what two workers may send at once, then their rate, then 2 s."""
    assert allowed_seconds(480, 1_200) == 2
    # 260 more of each worker, at 60 s per 961 calls.
    assert allowed_seconds(1_000, 1_200) == pytest.approx(260 * 60 / 961 + 2)
