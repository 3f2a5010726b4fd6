# SPDX-License-Identifier: Apache-2.0
"""A machine whose clock is wrong does not begin to work, and says by how much it is."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from novitai.clock import SystemClock
from novitai.errors import StartupError
from novitai.lifecycle.maintenance import clock_check
from novitai.store.opening import open_database
from novitai.testing import ManualClock


class OffClock(SystemClock):
    """The machine's clock, set wrong."""

    def __init__(self, by: int) -> None:
        self.by = by

    def now(self) -> int:
        """Tell the wrong time."""
        return super().now() + self.by


@pytest.mark.postgresql
@pytest.mark.parametrize(("by", "words"), [(37_000, "37.0 s ahead"), (-5_000, "5.0 s behind")])
async def test_a_wrong_clock_is_refused(postgresql_database_url: str, by: int, words: str) -> None:
    """The message says how far and which way it is off, and what to do."""
    clock = OffClock(by)
    database = await open_database(postgresql_database_url, clock)
    try:
        with pytest.raises(StartupError, match=words) as refusal:
            await clock_check.insist(database, clock)
        assert "NTP" in str(refusal.value)
        with capture_logs() as lines:
            await clock_check.warn(database, clock)
        assert [line["log_level"] for line in lines] == ["error"]
    finally:
        await database.close()


@pytest.mark.postgresql
async def test_a_right_clock_is_not(postgresql_database_url: str) -> None:
    """Half a second between two machines does no harm."""
    clock = OffClock(500)
    database = await open_database(postgresql_database_url, clock)
    try:
        await clock_check.insist(database, clock)
        with capture_logs() as lines:
            await clock_check.warn(database, clock)
        assert not lines
    finally:
        await database.close()


async def test_the_embedded_store_has_no_other_clock(sqlite_database_url: str) -> None:
    """There is one process and one clock."""
    clock = ManualClock()
    database = await open_database(sqlite_database_url, clock)
    try:
        await clock_check.insist(database, clock)
    finally:
        await database.close()
