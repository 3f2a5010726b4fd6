# SPDX-License-Identifier: Apache-2.0
"""Promises of the engine on PostgreSQL alone: shared work, and recovery of lost connections."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from pgqueuer.adapters.persistence.schema_ddl import render_install

from novitai.jobs import queue_sql
from novitai.jobs.consumer import NAMES, Consumer
from novitai.jobs.postgresql import PostgresqlEngine
from novitai.store import migrate, migrations
from novitai.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping

    from tests.jobs.rig import EngineFactory, Rig

pytestmark = pytest.mark.postgresql

NEVER = 3600.0
OLD_LINES = """
    INSERT INTO pgqueuer_log (created, job_id, status, priority, entrypoint)
    SELECT now() - interval '11 minutes', n, 'successful', 0, 'old'
    FROM generate_series(1, 12000) AS n
"""


async def pruned(rig: Rig) -> bool:
    """Whether the old rows of the log are gone."""
    old = await rig.scalar("SELECT count(*) FROM pgqueuer_log WHERE entrypoint = 'old'")
    return old == 0


class Proxy:
    """A TCP relay to the server that can break its connections or stop forwarding."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._port = 0
        self._url = url

    @property
    def url(self) -> str:
        """The URL of the database through this relay."""
        parts = urlsplit(self._url)
        user = f"{parts.username}@" if parts.username else ""
        return f"postgresql://{user}127.0.0.1:{self._port}{parts.path}?sslmode=disable"

    async def listen(self) -> None:
        """Start to listen, the second time on the same port."""
        self._open.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def swallow(self) -> None:
        """Stop forwarding without closing the connections."""
        self._open.clear()

    async def cut(self) -> None:
        """Break every connection and refuse new ones."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._relay(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _relay(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        open_ = self._open
        try:
            while data := await source.read(65536):
                await open_.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.transport.abort()
            self._writers.discard(sink)

    def reopen(self) -> None:
        """Forward new connections again; existing ones stay silent."""
        self._open = asyncio.Event()
        self._open.set()


@pytest.fixture
async def proxy(postgresql: Rig) -> AsyncIterator[Proxy]:
    """A relay in front of the server."""
    proxy = Proxy(postgresql.url)
    await proxy.listen()
    yield proxy
    await postgresql.close()
    await proxy.cut()


def test_the_schema_is_what_the_queue_expects() -> None:
    """The migration installs exactly what PgQueuer would install."""
    ours = Path(migrations.__file__).with_name("pgqueuer.sql").read_text()
    theirs = render_install(NAMES).split("\n\n", 1)[1]

    assert theirs in ours


def test_the_environment_renames_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment variables that PgQueuer reads, such as CHANNEL, do not affect the engine."""
    for name in ("CHANNEL", "QUEUE_TABLE", "PGQUEUER_PREFIX", "PGQUEUER_CHANNEL", "FUNCTION"):
        monkeypatch.setenv(name, "other")

    assert type(NAMES)() == NAMES
    assert (NAMES.channel, NAMES.queue_table) == ("ch_pgqueuer", "pgqueuer")


async def test_waiting_nudges_of_one_key_are_one(postgresql: Rig) -> None:
    """A waiting key is in the queue once, even if it is nudged often."""
    for _ in range(3):
        await postgresql.nudge("x", "op_1", "op_1", "op_2")

    assert await postgresql.scalar("SELECT count(*) FROM pgqueuer") == 2
    assert await postgresql.engine.queue_sizes() == {"x": 2}


async def test_a_nudge_does_not_lean_on_a_job_that_is_being_picked(postgresql: Rig) -> None:
    """A nudge queues its key if the only waiting job of the key is being picked."""
    await postgresql.nudge("x", "op_1")
    with postgresql.database.engine.begin() as picker:
        picker.execute(sa.text("SELECT id FROM pgqueuer FOR UPDATE"))
        await asyncio.wait_for(postgresql.nudge("x", "op_1"), 60)

    assert await postgresql.scalar("SELECT count(*) FROM pgqueuer") == 2


async def test_a_job_that_a_nudge_leans_on_is_not_picked_before_the_commit(
    postgresql: Rig,
) -> None:
    """The run after a nudge sees what the nudging transaction wrote, even with an older job."""
    await postgresql.nudge("x", "op_1")
    pick = "SELECT count(*) FROM (SELECT id FROM pgqueuer FOR UPDATE SKIP LOCKED) AS free"
    with postgresql.database.engine.begin() as nudger:
        queue_sql.nudge(nudger, "x", "op_1")
        assert await postgresql.scalar(pick) == 0
    assert await postgresql.scalar(pick) == 1


async def test_a_backlog_is_not_queued_again_and_again(postgresql: Rig) -> None:
    """Rows that stay due for many sweeps have one job each."""
    sweeps = 0
    due = postgresql.due_of("x")

    def counted(connection: sa.Connection, now: int, limit: int) -> list[str]:
        nonlocal sweeps
        sweeps += 1
        return list(due(connection, now, limit))

    async def hang(key: str) -> None:
        await asyncio.Event().wait()

    postgresql.rebuild(0.05)
    postgresql.engine.register("x", hang, due=counted, concurrency=1)
    await postgresql.due("x", *(f"op_{number}" for number in range(60)))
    await postgresql.start()

    await postgresql.until(lambda: sweeps >= 5)
    assert await postgresql.scalar("SELECT count(*) FROM pgqueuer") == 60


async def test_only_one_process_sweeps_a_name_at_a_time(postgresql: Rig) -> None:
    """While one process sweeps a name, another does not query its due rows."""
    with postgresql.database.engine.begin() as other:
        assert queue_sql.try_lock(other, "x")
        postgresql.rebuild(0.02)
        postgresql.register("x")
        await postgresql.due("x", "op_1")
        await postgresql.start()

        async def seen() -> bool:
            return bool(await postgresql.scalar("SELECT count(*) FROM workers"))

        await postgresql.until(seen)
        assert await postgresql.scalar("SELECT count(*) FROM pgqueuer") == 0
    await postgresql.until(lambda: postgresql.runs == [("x", "op_1")])


async def test_two_processes_share_the_work(
    postgresql: Rig, postgresql_engine: EngineFactory
) -> None:
    """Keys nudged in a process without a worker are run by the processes with one."""
    done: dict[str, list[str]] = {"a": [], "b": []}
    engines = {name: postgresql_engine(postgresql.database, postgresql.url) for name in done}

    def handler(name: str) -> PostgresqlEngine:
        async def work(key: str) -> None:
            done[name].append(key)
            await asyncio.sleep(0.02)
            await postgresql.done("x", key)

        engines[name].register("x", work, due=postgresql.due_of("x"), concurrency=2)
        return engines[name]

    for name in done:
        postgresql.replace(handler(name))
        await postgresql.start()
    api = postgresql_engine(postgresql.database, postgresql.url)
    await api.start(consume=False)
    postgresql.replace(api)
    keys = {f"op_{number}" for number in range(200)}
    await postgresql.nudge("x", *keys)

    await postgresql.until(lambda: {*done["a"], *done["b"]} == keys)
    assert all(done.values())


async def test_jobs_of_a_killed_worker_are_taken_over(postgresql: Rig) -> None:
    """A job that a worker picked before it died runs elsewhere once its heartbeat is old."""
    postgresql.rebuild(NEVER)
    postgresql.register("x")
    await postgresql.execute(
        "INSERT INTO pgqueuer (priority, entrypoint, payload, status, queue_manager_id, heartbeat)"
        " VALUES (0, 'x', 'op_1', 'picked', gen_random_uuid(), now() - interval '6 seconds')"
    )
    await postgresql.start()

    await postgresql.until(lambda: postgresql.runs == [("x", "op_1")])


async def test_a_job_stays_queued_until_its_run_has_ended(postgresql: Rig) -> None:
    """A job stays in the queue during its run, so that another worker can take it over."""
    release = asyncio.Event()

    async def handler(key: str) -> None:
        if key == "op_1":
            await release.wait()

    async def keys() -> str | None:
        query = "SELECT string_agg(encode(payload, 'escape'), ',') FROM pgqueuer"
        found = await postgresql.scalar(query)
        return None if found is None else str(found)

    async def only_the_first_is_left() -> bool:
        return await keys() == "op_1"

    async def none_is_left() -> bool:
        return await keys() is None

    postgresql.rebuild(NEVER)
    postgresql.register("x", handler)
    await postgresql.start()
    await postgresql.nudge("x", "op_1", "op_2")
    await postgresql.until(only_the_first_is_left)

    release.set()

    await postgresql.until(none_is_left)


async def test_what_another_process_swept_does_not_count_as_a_nudge(postgresql: Rig) -> None:
    """A failed key keeps backing off if another process's sweep queues it."""

    async def handler(key: str) -> None:
        raise ArithmeticError(key)

    async def idle() -> bool:
        return await postgresql.scalar("SELECT count(*) FROM pgqueuer") == 0

    postgresql.rebuild(NEVER)
    assert isinstance(postgresql.engine, PostgresqlEngine)
    postgresql.register("x", handler)
    await postgresql.start()
    await postgresql.nudge("x", "op_1")
    await postgresql.until(lambda: postgresql.engine.metrics.snapshot()["x"].failed == 1)
    dispatcher = postgresql.engine._dispatcher
    for _ in range(6):
        # More failures raise the pause to a minute; for a nudge it stays one second.
        dispatcher._lanes["x"].backoff.failed("op_1", postgresql.clock.now())

    def sweep(connection: sa.Connection) -> None:
        queue_sql.enqueue_due(connection, "x", ["op_1"])

    await postgresql.until(idle)
    await postgresql.database.write(sweep)
    await postgresql.until(idle)

    assert len(dispatcher._agenda) == 0
    assert postgresql.engine.metrics.snapshot()["x"].failed == 1


async def test_a_lost_connection_is_made_anew(postgresql: Rig) -> None:
    """After its server process is killed, the worker reconnects, and running handlers continue."""
    release, ended = asyncio.Event(), asyncio.Event()

    async def slow(key: str) -> None:
        await release.wait()
        ended.set()

    def have_run(count: int) -> bool:
        return len(postgresql.runs) == count

    postgresql.rebuild(NEVER)
    postgresql.register("slow", slow)
    postgresql.register("x")
    await postgresql.start()
    await postgresql.nudge("slow", "op_0")
    await postgresql.until(lambda: postgresql.engine.metrics.snapshot()["slow"].running == 1)
    for number in range(3):
        await postgresql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'novitai worker' AND datname = current_database()"
        )
        began = time.monotonic()
        await postgresql.nudge("x", f"op_{number}")
        await postgresql.until(partial(have_run, number + 1))
        assert time.monotonic() - began < 30

    assert not ended.is_set()
    release.set()
    await postgresql.until(ended.is_set)
    assert postgresql.engine.metrics.snapshot()["slow"].cancelled == 0


def consumer_of(rig: Rig) -> Consumer:
    """Return the part of a working engine that holds the connection to the queue."""
    assert isinstance(rig.engine, PostgresqlEngine)
    assert rig.engine._consumer is not None
    return rig.engine._consumer


async def break_protocol(rig: Rig) -> None:
    """End the connection as asyncpg does after an error of the protocol: without telling it."""
    driver = consumer_of(rig)._driver
    assert driver is not None
    driver._connection._protocol.abort()


async def hide_the_queue(rig: Rig) -> None:
    """Make picking fail over a connection that stays open, for a moment."""
    await rig.execute("ALTER TABLE pgqueuer RENAME TO hidden")
    consumer = consumer_of(rig)
    try:
        await rig.until(lambda: consumer._driver is None)
    finally:
        await rig.execute("ALTER TABLE hidden RENAME TO pgqueuer")


@pytest.mark.parametrize("fail", [break_protocol, hide_the_queue])
async def test_the_queue_is_found_again_while_a_handler_runs(
    postgresql: Rig, fail: Callable[[Rig], Awaitable[None]]
) -> None:
    """PgQueuer ends only after its running jobs; the worker does not wait for that."""
    release = asyncio.Event()

    async def slow(_: str) -> None:
        await release.wait()

    postgresql.rebuild(NEVER)
    postgresql.register("slow", slow)
    postgresql.register("x")
    await postgresql.start()
    await postgresql.nudge("slow", "op_0")
    await postgresql.until(lambda: postgresql.engine.metrics.snapshot()["slow"].running == 1)
    await fail(postgresql)
    await postgresql.nudge("x", "op_1")
    await postgresql.until(lambda: len(postgresql.runs) == 1)
    release.set()


async def test_the_queue_connects_wherever_the_store_does(
    postgresql: Rig, postgresql_engine: EngineFactory, proxy: Proxy
) -> None:
    """The queue connects with URL parameters that asyncpg would send to the server as settings."""
    url = f"{proxy.url}&connect_timeout=10&channel_binding=prefer&keepalives_idle=5"
    postgresql.replace(postgresql_engine(postgresql.database, url, NEVER))
    postgresql.register("x")
    await postgresql.start()
    await postgresql.nudge("x", "op_1")
    await postgresql.until(lambda: len(postgresql.runs) == 1)


async def test_a_server_that_was_away_is_found_again(
    postgresql: Rig,
    postgresql_engine: EngineFactory,
    proxy: Proxy,
    logged: list[MutableMapping[str, Any]],
) -> None:
    """While the server is unreachable no worker is recorded; afterwards work continues."""
    postgresql.replace(postgresql_engine(postgresql.database, proxy.url, NEVER))
    postgresql.register("x")
    await postgresql.start()
    await postgresql.nudge("x", "op_1")
    await postgresql.until(lambda: len(postgresql.runs) == 1)

    async def seen() -> bool:
        return bool(await postgresql.scalar("SELECT max(seen_at) FROM workers"))

    await postgresql.until(seen)
    await proxy.cut()
    await postgresql.nudge("x", "op_2")
    await postgresql.execute("UPDATE workers SET seen_at = 0")
    await postgresql.until(lambda: "queue_lost" in [line["event"] for line in logged])
    for _ in range(2):
        # Upkeep prunes after it records its presence: pruned twice means one whole round.
        await postgresql.execute(OLD_LINES)
        await postgresql.until(lambda: pruned(postgresql))
    assert await postgresql.scalar("SELECT max(seen_at) FROM workers") == 0
    assert len(postgresql.runs) == 1
    await proxy.listen()
    began = time.monotonic()
    await postgresql.until(lambda: len(postgresql.runs) == 2)

    assert time.monotonic() - began < 30


async def test_a_silent_connection_is_given_up(
    postgresql: Rig, postgresql_engine: EngineFactory, proxy: Proxy
) -> None:
    """An open connection without answers is replaced after the command timeout."""
    postgresql.replace(
        postgresql_engine(postgresql.database, proxy.url, NEVER, command_timeout=0.5)
    )
    postgresql.register("x")
    await postgresql.start()
    await postgresql.nudge("x", "op_1")
    await postgresql.until(lambda: len(postgresql.runs) == 1)

    proxy.swallow()
    proxy.reopen()
    await postgresql.nudge("x", "op_2")

    await postgresql.until(lambda: len(postgresql.runs) == 2)


async def test_tables_that_are_missing_are_waited_for(
    postgresql: Rig,
    postgresql_engine: EngineFactory,
    postgresql_url: str,
    logged: list[MutableMapping[str, Any]],
) -> None:
    """A worker that starts before the migration logs one warning, and works after it."""
    postgresql.replace(postgresql_engine(postgresql.database, postgresql_url, NEVER))
    postgresql.register("x")
    await postgresql.start()
    await postgresql.until(lambda: "queue_lost" in [line["event"] for line in logged])

    migrate.upgrade(postgresql_url, ManualClock())
    server = sa.create_engine(postgresql_url.replace("postgresql://", "postgresql+psycopg://"))
    with server.begin() as connection:
        queue_sql.nudge(connection, "x", "op_1")
    server.dispose()

    await postgresql.until(lambda: postgresql.runs == [("x", "op_1")])
    assert [line["event"] for line in logged].count("queue_lost") == 1


async def test_an_engine_that_only_nudges_sees_the_workers_of_others(postgresql: Rig) -> None:
    """`last_seen` of a process without a worker covers the workers of other processes."""
    assert isinstance(postgresql.engine, PostgresqlEngine)
    postgresql.register("x")
    await postgresql.due("x", "op_1")
    await postgresql.nudge("x", "op_1")
    await postgresql.engine.start(consume=False)
    started = await postgresql.engine.last_seen()

    await postgresql.beat("another", started + 5000)

    assert await postgresql.engine.last_seen() == started + 5000
    assert postgresql.runs == []
    await postgresql.engine.stop(1)


async def test_the_queues_log_is_pruned(postgresql: Rig) -> None:
    """Old rows of PgQueuer's log are deleted, new ones stay, and none contains a traceback."""

    async def handler(key: str) -> None:
        raise ArithmeticError("may contain a secret")

    await postgresql.execute(OLD_LINES)
    postgresql.register("x", handler)
    await postgresql.start()
    await postgresql.nudge("x", "op_1")

    async def logged() -> bool:
        return bool(
            await postgresql.scalar("SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'")
        )

    await postgresql.until(lambda: pruned(postgresql))
    await postgresql.until(logged)
    with_traceback = "SELECT count(*) FROM pgqueuer_log WHERE traceback IS NOT NULL"
    assert await postgresql.scalar(with_traceback) == 0
