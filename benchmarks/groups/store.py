# SPDX-License-Identifier: Apache-2.0
"""Writes and reads per second of the embedded store, and the 99th percentile of write times.

The yardstick is a bare SQLite connection without threads, which commits each write separately.
Compare the ratios between machines, not the figures.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, insert, select

from benchmarks.bench import Bench
from benchmarks.report import Line, against
from benchmarks.stores import SQLITE
from novitai.clock import SystemClock
from novitai.store.opening import open_database
from novitai.store.tables import installation

_WRITERS: Final = 32

_ROWS: Final = 5
"""Rows per transaction: as many as accepting a create writes."""


def run(bench: Bench) -> Iterator[Line]:
    """Measure in new database files; the medians of the rounds count."""
    many = max(_WRITERS, bench.scale.jobs // 6)
    rounds = []
    for _ in range(bench.scale.few_rounds):
        with bench.house() as house:
            bare = _bare(house.folder / "bare.db", many)
            rounds.append((bare, asyncio.run(_ours(house.folder / "ours.db", many))))
    writes, slowest, reads = ([ours[place] for _, ours in rounds] for place in range(3))
    bare_writes, bare_reads = ([bare[place] for bare, _ in rounds] for place in range(2))
    each_ms = [1000 / rate for rate in bare_writes]
    yield _line(f"writes, {_WRITERS} at once", writes, bare_writes, "/s")
    yield _line("99th percentile of a write", slowest, each_ms, "ms")
    yield _line("reads of one row, one by one", reads, bare_reads, "/s")


def _line(measure: str, ours: list[float], bare: list[float], unit: str) -> Line:
    middle = statistics.median
    return against("store", measure, SQLITE, middle(ours), middle(bare), unit, rounds=len(ours))


async def _ours(path: Path, many: int) -> tuple[float, float, float]:
    database = await open_database(f"sqlite:///{path}", SystemClock())
    try:
        waits: list[float] = []

        async def write(number: int) -> None:
            began = time.perf_counter()
            await database.write(_rows(number))
            waits.append(time.perf_counter() - began)

        async def writer(first: int) -> None:
            for number in range(first, many, _WRITERS):
                await write(number)

        async def all_writers() -> None:
            await asyncio.gather(*(writer(first) for first in range(_WRITERS)))

        async def read() -> None:
            for _ in range(many):
                await database.read(_one)

        writes = many / await _seconds(all_writers)
        reads = many / await _seconds(read)
        return writes, 1000 * sorted(waits)[len(waits) * 99 // 100], reads
    finally:
        await database.close()


async def _seconds(work: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def _rows(number: int) -> Callable[[Connection], None]:
    def fn(connection: Connection) -> None:
        for row in range(_ROWS):
            connection.execute(insert(installation).values(name=f"{number}-{row}", value="x" * 200))

    return fn


def _one(connection: Connection) -> str | None:
    return connection.scalar(select(installation.c.value).where(installation.c.name == "0-0"))


def _bare(path: Path, many: int) -> tuple[float, float]:
    alone = max(10, many // 10)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE installation (name TEXT PRIMARY KEY, value TEXT)")
        began = time.perf_counter()
        for number in range(alone):
            connection.execute("BEGIN IMMEDIATE")
            for row in range(_ROWS):
                values = (f"{number}-{row}", "x" * 200)
                connection.execute("INSERT INTO installation VALUES (?, ?)", values)
            connection.execute("COMMIT")
        writes = alone / (time.perf_counter() - began)
        began = time.perf_counter()
        for _ in range(many):
            connection.execute("SELECT value FROM installation WHERE name = ?", ("0-0",)).fetchone()
        return writes, many / (time.perf_counter() - began)
