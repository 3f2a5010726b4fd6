# SPDX-License-Identifier: Apache-2.0
"""A slice of the runs with real processes; `make chaos` disturbs them hundreds of times."""

from __future__ import annotations

import pytest

from tests.chaos import processes
from tests.pooler import pgbouncer
from tests.services import restartable_server

pytestmark = pytest.mark.blackbox


def test_a_server_is_disturbed() -> None:
    """Killed, stopped and crashing again and again, `novitai serve` loses and doubles nothing."""
    report = processes.run(3, seed=7, kinds=("kill -9", "crash point", "SIGTERM"))
    assert not report.problems, report.table()
    assert report.lives


@pytest.mark.postgresql
def test_many_processes_are_disturbed(redis_url: str) -> None:
    """Nor do two API and three worker processes whose PostgreSQL server restarts, too."""
    with restartable_server() as server:
        kinds = ("SIGSTOP", "kill -9", "connections ended", "crash point", "PostgreSQL crashed")
        report = processes.run(len(kinds), seed=3, kinds=kinds, server=server, redis_url=redis_url)
    assert not report.problems, report.table()
    assert report.lives


@pytest.mark.postgresql
def test_processes_behind_a_pooler_are_disturbed(redis_url: str) -> None:
    """Nor behind PgBouncer in transaction mode, which keeps no session for a client."""
    with restartable_server() as server, pgbouncer(server.url, "transaction") as url:
        kinds = ("kill -9", "PostgreSQL restarted", "SIGSTOP")
        report = processes.run(
            3, seed=5, kinds=kinds, server=server, pooler_url=url, redis_url=redis_url
        )
    assert not report.problems, report.table()
    assert report.lives


@pytest.mark.postgresql
def test_processes_of_two_releases_are_disturbed(redis_url: str) -> None:
    """Nor during an upgrade, while some processes are of the release before."""
    with restartable_server() as server:
        kinds = ("kill -9", "SIGTERM", "SIGSTOP")
        report = processes.run(
            3, seed=5, kinds=kinds, server=server, redis_url=redis_url, upgrading=True
        )
    assert not report.problems, report.table()
    assert report.lives
