# SPDX-License-Identifier: Apache-2.0
"""The yardstick of creates: durable commits of one row, per second.

PostgreSQL gets them over many connections at once. SQLite has one writer at a time and is fastest
with one connection. Run as a process: `python -m benchmarks.commits URL CONNECTIONS SECONDS`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from contextlib import closing

import asyncpg

_VALUE = "x" * 200


def sqlite_rate(path: str, seconds: float) -> float:
    """Commit rows one after the other, synchronous=FULL; return the commits per second."""
    count = 0
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS commits (id INTEGER PRIMARY KEY, text TEXT)")
        began = time.perf_counter()
        while time.perf_counter() < began + seconds:
            connection.execute("INSERT INTO commits (text) VALUES (?)", (_VALUE,))
            count += 1
        return count / (time.perf_counter() - began)


async def postgresql_rate(url: str, connections: int, seconds: float) -> float:
    """Commit rows over several connections at once; return the commits per second."""
    first = await asyncpg.connect(url)
    await first.execute(
        "CREATE TABLE IF NOT EXISTS commits (id BIGSERIAL PRIMARY KEY, content TEXT)"
    )
    others = [await asyncpg.connect(url) for _ in range(connections - 1)]

    async def commit(connection: asyncpg.Connection) -> int:
        insert = await connection.prepare("INSERT INTO commits (content) VALUES ($1)")
        count = 0
        while time.perf_counter() < began + seconds:
            await insert.fetch(_VALUE)
            count += 1
        return count

    began = time.perf_counter()
    done = sum(await asyncio.gather(*(commit(one) for one in [first, *others])))
    rate = done / (time.perf_counter() - began)
    for one in [first, *others]:
        await one.close()
    return rate


if __name__ == "__main__":
    where, many, lasting = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    if where.startswith("sqlite:///"):
        print(sqlite_rate(where.removeprefix("sqlite:///") + ".commits", lasting))
    else:
        import uvloop

        print(uvloop.run(postgresql_rate(where, many, lasting)))
