# SPDX-License-Identifier: Apache-2.0
"""Writes and reads per second of the embedded store, and the 99th percentile of write times.

The yardstick is a bare SQLite connection without threads, which commits each write separately.
Compare the ratios between machines, not the figures.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, insert, select

from benchmarks.report import Result
from novitai.clock import SystemClock
from novitai.store.opening import open_database
from novitai.store.tables import installation

_WRITERS: Final = 32
_WRITES: Final = 3_200
_YARDSTICK_WRITES: Final = 300
_READS: Final = 5_000
_ROWS: Final = 5
"""Rows per transaction: as many as accepting a create writes."""


def run() -> list[Result]:
    """Measure in a new database file."""
    with tempfile.TemporaryDirectory() as folder:
        bare_writes, bare_reads = _bare(Path(folder) / "bare.db")
        writes, slowest_ms, reads = asyncio.run(_ours(Path(folder) / "ours.db"))
    return [
        Result(f"store: writes, {_WRITERS} at once", writes, bare_writes, "1/s"),
        Result("store: slowest write of a hundred", slowest_ms, 1000 / bare_writes, "ms"),
        Result("store: reads of one row, one by one", reads, bare_reads, "1/s"),
    ]


async def _ours(path: Path) -> tuple[float, float, float]:
    database = await open_database(f"sqlite:///{path}", SystemClock())
    try:
        waits: list[float] = []

        async def write(number: int) -> None:
            began = time.perf_counter()
            await database.write(_rows(number))
            waits.append(time.perf_counter() - began)

        async def writer(first: int) -> None:
            for number in range(first, _WRITES, _WRITERS):
                await write(number)

        async def all_writers() -> None:
            await asyncio.gather(*(writer(first) for first in range(_WRITERS)))

        async def read() -> None:
            for _ in range(_READS):
                await database.read(_one)

        writes = _WRITES / await _seconds(all_writers)
        reads = _READS / await _seconds(read)
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


def _bare(path: Path) -> tuple[float, float]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE installation (name TEXT PRIMARY KEY, value TEXT)")
        began = time.perf_counter()
        for number in range(_YARDSTICK_WRITES):
            connection.execute("BEGIN IMMEDIATE")
            for row in range(_ROWS):
                values = (f"{number}-{row}", "x" * 200)
                connection.execute("INSERT INTO installation VALUES (?, ?)", values)
            connection.execute("COMMIT")
        writes = _YARDSTICK_WRITES / (time.perf_counter() - began)
        began = time.perf_counter()
        for _ in range(_READS):
            connection.execute("SELECT value FROM installation WHERE name = ?", ("0-0",)).fetchone()
        return writes, _READS / (time.perf_counter() - began)
