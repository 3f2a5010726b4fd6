# SPDX-License-Identifier: Apache-2.0
"""A ping checks that the database accepts writes; frequent pings do not cost more writes."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from novitai.store.engine import sqlite
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StorageFull, StoreBusy, StoreUnavailable
from novitai.store.engine.write_check import TRUST_SECONDS, WriteCheck
from novitai.store.opening import open_database
from novitai.testing import ManualClock


class Writes:
    """A database that accepts writes or does not, and counts them."""

    def __init__(self, clock: ManualClock) -> None:
        self.check = WriteCheck(clock, self.write)
        self.trouble: StorageFull | None = None
        self.count = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def write(self) -> None:
        """Write one row."""
        self.count += 1
        await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        self.check.succeeded()


@pytest.fixture
def writes(clock: ManualClock) -> Writes:
    """A database to which nothing was written yet."""
    return Writes(clock)


async def test_a_write_that_succeeded_is_trusted_for_a_moment(
    writes: Writes, clock: ManualClock
) -> None:
    """A thousand checks within two seconds write one row."""
    for _ in range(1000):
        await writes.check.insist()
    assert writes.count == 1
    await clock.advance(TRUST_SECONDS)
    await writes.check.insist()
    assert writes.count == 2


async def test_questions_at_once_share_one_write(writes: Writes) -> None:
    """Concurrent checks share one probe, and all get its outcome even if one is cancelled."""
    writes.gate.clear()
    questions = [asyncio.create_task(writes.check.insist()) for _ in range(50)]
    await asyncio.sleep(0)
    questions[0].cancel()
    await asyncio.sleep(0)
    writes.gate.set()
    outcomes = await asyncio.gather(*questions, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [None] * 49
    assert writes.count == 1


async def test_a_failed_write_is_told_at_once_and_never_trusted(writes: Writes) -> None:
    """After a failed write each check probes again, so that a recovery is noticed at once."""
    await writes.check.insist()
    writes.check.failed(StoreUnavailable("another caller's write"))
    writes.trouble = StorageFull("no space")
    for _ in range(2):
        with pytest.raises(StorageFull):
            await writes.check.insist()
    writes.trouble = None
    await writes.check.insist()


async def test_a_ping_fails_where_nothing_can_be_written(
    sqlite_database_url: str, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ping fails while another program holds the write lock, although reads succeed."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 1)
    database = await open_database(sqlite_database_url, clock)
    with contextlib.closing(sqlite3.connect(tmp_path / "novitai.db")) as other:
        other.execute("BEGIN IMMEDIATE").close()
        with pytest.raises(StoreBusy):
            await database.ping()
    await database.ping()
    await database.close()


async def test_a_ping_writes_on_every_store(database: Database) -> None:
    """A ping succeeds on both stores, also twice in a row."""
    await database.ping()
    await database.ping()
