# SPDX-License-Identifier: Apache-2.0
"""No answer is older than the last commit at the moment the request arrived.

Another process commits changes; each answer is compared with what was committed before its request.
TEST_STALENESS_READS lengthens the test.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from novitai.clock import parse_iso
from novitai.domain.instance import InstanceStatus
from novitai.errors import ApiError
from novitai.lifecycle.queries.ready_views import ReadyAnswer, ReadyPage, ReadyViews, WantedPage
from novitai.store import migrate
from novitai.store.engine.database import Database
from novitai.store.opening import open_database
from novitai.store.queries import instances
from novitai.store.queries.instances import Filter
from novitai.testing import ManualClock, an_instance
from tests.blackbox.harness import until
from tests.lifecycle.queries.committing import BASE, numbers
from tests.services import RestartableServer, restartable_server

READS = int(os.environ.get("TEST_STALENESS_READS", "2000"))
READERS = 16
WITHIN = 240.0
"""Seconds that a test may take at least, on a busy machine."""
SLOWEST = 20
"""Reads a second, on a busy machine."""
IDS = [f"inst_1760000000_{number:03}" for number in range(40)]
ALL = WantedPage(Filter(), None, 100)


@dataclass
class Seen:
    """What readers saw. `stale` has the answers that were too old."""

    reads: int = 0
    changes: int = 0
    cancelled: int = 0
    failed: int = 0
    stale: list[str] = field(default_factory=list)


async def filled(database: Database, clock: ManualClock) -> ReadyViews:
    """Return the reader under test, with a few records."""
    one = an_instance(InstanceStatus.RUNNING, upstream_id=None)
    for instance_id in IDS:
        made = replace(one, id=instance_id)
        await database.write(partial(instances.insert, instance=made, launch_sealed=b"sealed"))
    return ReadyViews(database, clock)


@contextmanager
def committing(url: str, tmp_path: Path) -> Iterator[memoryview]:
    """Have another process commit all the time; yield what it has committed."""
    shared = tmp_path / "committed"
    shared.write_bytes(bytes(8 * len(IDS)))
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "tests.lifecycle.queries.committing", url]
    process = subprocess.Popen([*command, str(shared), *IDS], cwd=root)
    try:
        committed = numbers(shared)
        until(lambda: any(committed), WITHIN, "a commit", every=0.01)
        yield committed
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def number_in(view: Mapping[str, Any]) -> int:
    """Return the number of the change that a view shows."""
    return parse_iso(view["lastUsedAt"]) - BASE if "lastUsedAt" in view else 0


async def read_on(ready: ReadyViews, committed: memoryview, seen: Seen, seed: int) -> None:
    """Read, each time in a task of its own as a server does, and compare."""
    chosen = random.Random(seed)
    last = [0] * len(IDS)
    while seen.reads < READS or seen.changes <= len(IDS):
        before = list(committed)
        places = [chosen.randrange(len(IDS))]
        try:
            if chosen.random() < 0.8:
                task = asyncio.create_task(ready.one(IDS[places[0]]))
                views = [await give(task, chosen)]
            else:
                places = list(range(len(IDS)))
                page = await give(asyncio.create_task(ready.page(ALL)), chosen)
                views = page["instances"]
        except asyncio.CancelledError:
            if cancelling():
                raise
            seen.cancelled += 1
            continue
        except ApiError:
            seen.failed += 1
            continue
        seen.reads += 1
        for view in views:
            place = IDS.index(view["id"])
            number = number_in(view)
            seen.changes += number != last[place]
            last[place] = number
            if number < before[place]:
                seen.stale.append(f"{view['id']}: {number} instead of {before[place]}")


def cancelling() -> bool:
    """Say whether the test itself is ended, rather than one of its readers."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def give(
    task: asyncio.Task[ReadyAnswer] | asyncio.Task[ReadyPage], chosen: random.Random
) -> Any:
    """Return the answer, or cancel its reader now and then."""
    if chosen.random() < 0.05:
        await asyncio.sleep(0)
        task.cancel()
    return orjson.loads((await task).body)


async def break_connections(url: str, seen: Seen) -> None:
    """End the server's connections again and again, except that of the process that commits."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as admin:
        for share in range(1, 10):
            while seen.reads < READS * share // 10:
                await asyncio.sleep(0)
                await admin.execute("SELECT 1")
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND application_name <> 'committing'"
            )


async def restart(server: RestartableServer, seen: Seen) -> None:
    """Restart the server several times, every other time by a crash."""
    for share in range(1, 5):
        while seen.reads < READS * share // 5:  # noqa: ASYNC110 - counted, without an event
            await asyncio.sleep(0)
        await asyncio.to_thread(server.restart, "immediate" if share % 2 else "fast")


async def compare(
    ready: ReadyViews, committed: memoryview, seen: Seen, *more: Coroutine[Any, Any, None]
) -> None:
    """Read with several readers and check what they saw."""
    async with asyncio.timeout(WITHIN + READS / SLOWEST), asyncio.TaskGroup() as group:
        for seed in range(READERS):
            group.create_task(read_on(ready, committed, seen, seed))
        for one in more:
            group.create_task(one)
    print(  # noqa: T201 - the figures of a long run
        f"{seen.reads} reads, {sum(committed)} commits, {seen.changes} changes seen, "
        f"{seen.cancelled} cancelled, {seen.failed} failed, {len(seen.stale)} stale"
    )
    assert seen.stale == []
    assert seen.changes > len(IDS)
    assert seen.cancelled


async def test_no_answer_is_older_than_its_request(
    database: Database, database_url: str, clock: ManualClock, tmp_path: Path
) -> None:
    """It holds also while readers are cancelled and, on PostgreSQL, connections are lost."""
    ready, seen = await filled(database, clock), Seen()
    breaking = [] if database_url.startswith("sqlite") else [break_connections(database_url, seen)]
    with committing(database_url, tmp_path) as committed:
        await compare(ready, committed, seen, *breaking)


@pytest.mark.postgresql
async def test_no_answer_is_older_while_the_server_restarts(
    clock: ManualClock, tmp_path: Path
) -> None:
    """It holds while PostgreSQL restarts and crashes; reads fail meanwhile, and go on after it."""
    with restartable_server() as server:
        await asyncio.to_thread(migrate.upgrade, server.url, clock)
        database = await open_database(server.url, clock)
        try:
            ready, seen = await filled(database, clock), Seen()
            with committing(server.url, tmp_path) as committed:
                await compare(ready, committed, seen, restart(server, seen))
            assert seen.failed
        finally:
            await database.close()
