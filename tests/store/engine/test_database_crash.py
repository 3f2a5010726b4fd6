# SPDX-License-Identifier: Apache-2.0
"""An acknowledged write survives kill -9."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from sqlalchemy import Connection, select

from novitai.store.opening import open_database
from novitai.store.tables import installation, leases
from novitai.testing import ManualClock

WRITER = """
import asyncio, os, sys
from sqlalchemy import insert
from novitai.clock import SystemClock
from novitai.store.opening import open_database
from novitai.store.tables import installation, leases

async def main():
    database = await open_database(sys.argv[1], SystemClock())

    def store(name):
        def fn(connection):
            connection.execute(insert(installation).values(name=name, value="x" * 200))
            connection.execute(insert(leases).values(name=name, holder="h", until=0))
        return fn

    async def write_for_ever(writer):
        number = 0
        while True:
            name = f"{writer}-{number}"
            await database.write(store(name))
            os.write(1, f"{name}\\n".encode())
            number += 1

    await asyncio.gather(*(write_for_ever(writer) for writer in range(32)))

asyncio.run(main())
"""


def write_and_kill(url: str, acknowledged_before: int) -> list[str]:
    """Start the writers, kill them after some acknowledgements, and return those printed."""
    child = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child:
        lines = [child.stdout.readline() for _ in range(acknowledged_before)]
        child.kill()
        lines += child.stdout
    # The last line may be incomplete; its write counts as not acknowledged.
    return [line.strip() for line in lines if line.endswith("\n")]


@pytest.mark.parametrize("acknowledged_before", [1, 100, 500])
async def test_kill(database_url: str, clock: ManualClock, acknowledged_before: int) -> None:
    """If 32 concurrent writers are killed, no acknowledged write is lost or partially stored."""
    acknowledged = await asyncio.to_thread(write_and_kill, database_url, acknowledged_before)
    assert len(acknowledged) >= acknowledged_before

    database = await open_database(database_url, clock)
    try:
        stored, halves = await database.read(_names)
    finally:
        await database.close()
    assert set(acknowledged) <= stored
    assert stored == halves


def _names(connection: Connection) -> tuple[set[str], set[str]]:
    return (
        set(connection.scalars(select(installation.c.name))) - {"schema"},
        set(connection.scalars(select(leases.c.name))),
    )
