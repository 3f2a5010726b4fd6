# SPDX-License-Identifier: Apache-2.0
"""Jobs that each engine starts per second, and the time from a nudge to its handler.

The yardsticks are measured in the same minute on the same machine: bare asyncio tasks for the
embedded engine; for PostgreSQL, plain `INSERT`, `SELECT ... FOR UPDATE SKIP LOCKED` and `DELETE`
on one connection. Compare the ratios between machines, not the figures.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import sqlalchemy as sa

from benchmarks.bench import Bench
from benchmarks.report import Line, against
from benchmarks.stores import POSTGRESQL, postgresql_url
from novitai.clock import SystemClock
from novitai.ids import Ids
from novitai.jobs.embedded import EmbeddedEngine
from novitai.jobs.port import JobEngine, Transactions
from novitai.jobs.postgresql import PostgresqlEngine
from novitai.jobs.upkeep import Presence
from novitai.store import migrate

T = TypeVar("T")

_NUDGES: Final = 100
_REST_SECONDS: Final = 0.02
_LONGEST_SECONDS: Final = 60.0


def run(bench: Bench) -> Iterator[Line]:
    """Measure the embedded engine and, if a server is available, PostgreSQL."""
    many, rounds = bench.scale.jobs, bench.scale.few_rounds
    yield from _lines("embedded", [asyncio.run(_embedded(many)) for _ in range(rounds)])
    if bench.has_postgresql():
        found = [asyncio.run(_postgresql(many // 20)) for _ in range(rounds)]
        yield from _lines(POSTGRESQL, found)


@dataclass(frozen=True, slots=True)
class _Measured:
    """Starts per second and the median latency of a nudge in ms, of the engine and bare."""

    rate: float
    latency: float
    bare_rate: float
    bare_latency: float


def _lines(store: str, found: Sequence[_Measured]) -> Iterator[Line]:
    rate, latency, bare_rate, bare_latency = (
        statistics.median(getattr(each, name) for each in found)
        for name in ("rate", "latency", "bare_rate", "bare_latency")
    )
    rounds = len(found)
    yield against("jobs", "starts", store, rate, bare_rate, "/s", rounds=rounds)
    measure = "nudge to handler, median"
    yield against("jobs", measure, store, latency, bare_latency, "ms", rounds=rounds)


class _Inline:
    """Transactions without a database, to measure the engine alone."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []
        self._connection = sa.create_mock_engine("sqlite://", lambda *_: None)

    async def read(self, fn: Callable[[sa.Connection], T]) -> T:
        return await self.write(fn)

    async def write(self, fn: Callable[[sa.Connection], T]) -> T:
        result = fn(self._connection)  # type: ignore[arg-type]  # no SQL is run on it
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
        return result

    def after_commit(self, connection: sa.Connection, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)


class _Threaded:
    """Transactions on threads, like those of the store on PostgreSQL."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(4)

    async def read(self, fn: Callable[[sa.Connection], T]) -> T:
        return await self.write(fn)

    async def write(self, fn: Callable[[sa.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, fn)

    def after_commit(self, connection: sa.Connection, callback: Callable[[], None]) -> None:
        raise NotImplementedError

    def _run(self, fn: Callable[[sa.Connection], T]) -> T:
        with self._engine.begin() as connection:
            return fn(connection)


class _Counter:
    """A handler that counts its runs and signals the last expected one."""

    def __init__(self) -> None:
        self._waiting: asyncio.Future[None] | None = None
        self._left = 0

    async def __call__(self, key: str) -> None:
        self._left -= 1
        if self._left == 0 and self._waiting is not None:
            self._waiting.set_result(None)

    def expect(self, runs: int) -> asyncio.Future[None]:
        """Return a future that is done after this many runs."""
        self._left = runs
        self._waiting = asyncio.get_running_loop().create_future()
        return self._waiting


async def _embedded(many: int) -> _Measured:
    database = _Inline()
    engine = EmbeddedEngine(database, SystemClock(), Ids(), capacity=many)
    rate, latency = await _measure(engine, database, many)
    counter = _Counter()
    done = counter.expect(many)
    began = time.perf_counter()
    tasks = [asyncio.create_task(counter(str(number))) for number in range(many)]
    await done
    bare = len(tasks) / (time.perf_counter() - began)
    bare_latency = []
    for number in range(_NUDGES):
        await asyncio.sleep(_REST_SECONDS)
        done = counter.expect(1)
        began = time.perf_counter()
        task = asyncio.create_task(counter(str(number)))
        await done
        bare_latency.append(time.perf_counter() - began)
        await task
    return _Measured(rate, latency, bare, _median_ms(bare_latency))


async def _postgresql(many: int) -> _Measured:
    with postgresql_url() as url:
        return await _over(url, many)


async def _over(url: str, many: int) -> _Measured:
    engine = sa.create_engine(_psycopg(url))
    migrate.upgrade(url, SystemClock())
    presence = Presence(_note_nobody, lambda _: None)
    database = _Threaded(engine)
    jobs = PostgresqlEngine(database, url, SystemClock(), Ids(), presence=presence)
    rate, latency = await _measure(jobs, database, many)
    plain = await asyncio.to_thread(_plain_queue, engine, max(10, many // 5))
    engine.dispose()
    return _Measured(rate, latency, 1 / statistics.fmean(plain), _median_ms(plain))


def _plain_queue(engine: sa.Engine, many: int) -> list[float]:
    """Insert and take one row at a time; return the seconds of each round."""
    take = sa.text("SELECT id FROM pgqueuer WHERE status = 'queued' LIMIT 1 FOR UPDATE SKIP LOCKED")
    put = sa.text(
        "INSERT INTO pgqueuer (priority, entrypoint, payload, status)"
        " VALUES (0, 'plain', 'x', 'queued')"
    )
    drop = sa.text("DELETE FROM pgqueuer WHERE id = :id")
    seconds = []
    with engine.connect() as connection:
        for _ in range(many):
            began = time.perf_counter()
            connection.execute(put)
            connection.commit()
            connection.execute(drop, {"id": connection.execute(take).scalar_one()})
            connection.commit()
            seconds.append(time.perf_counter() - began)
    return seconds


async def _measure(engine: JobEngine, database: Transactions, jobs: int) -> tuple[float, float]:
    """Return the starts per second from a full queue, and the median latency of a nudge in ms."""
    counter = _Counter()
    engine.register("bench", counter, due=_nothing, concurrency=50)
    if isinstance(engine, PostgresqlEngine):
        await database.write(_nudges(engine, jobs))
    done = counter.expect(jobs)
    began = time.perf_counter()
    await engine.start()
    if not isinstance(engine, PostgresqlEngine):
        await database.write(_nudges(engine, jobs))
    await asyncio.wait_for(done, _LONGEST_SECONDS)
    rate = jobs / (time.perf_counter() - began)
    latencies = []
    for _ in range(_NUDGES):
        await asyncio.sleep(_REST_SECONDS)
        done = counter.expect(1)
        began = time.perf_counter()
        await database.write(_nudges(engine, 1))
        await asyncio.wait_for(done, _LONGEST_SECONDS)
        latencies.append(time.perf_counter() - began)
    await engine.stop(1)
    return rate, _median_ms(latencies)


def _nudges(engine: JobEngine, many: int) -> Callable[[sa.Connection], None]:
    def fn(connection: sa.Connection) -> None:
        for number in range(many):
            engine.nudge(connection, "bench", f"op_{number}")

    return fn


def _nothing(connection: sa.Connection, now: int, limit: int) -> Sequence[str]:
    return []


def _note_nobody(
    connection: sa.Connection, worker_id: str, /, *, started_at: int, now: int
) -> None:
    """Do not record workers."""


def _median_ms(seconds: list[float]) -> float:
    return 1000 * statistics.median(seconds)


def _psycopg(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)
