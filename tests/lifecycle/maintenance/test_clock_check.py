# SPDX-License-Identifier: Apache-2.0
"""A machine with a wrong clock does not start, and the error states the skew."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from novitai.clock import SystemClock
from novitai.errors import StartupError
from novitai.lifecycle.maintenance import clock_check
from novitai.store.opening import open_database
from novitai.testing import ManualClock


class OffClock(SystemClock):
    """A machine clock that is set wrong."""

    def __init__(self, by: int) -> None:
        self.by = by

    def now(self) -> int:
        """Return the wrong time."""
        return super().now() + self.by


@pytest.mark.postgresql
@pytest.mark.parametrize(("by", "words"), [(37_000, "37.0 s ahead"), (-5_000, "5.0 s behind")])
async def test_a_wrong_clock_is_refused(postgresql_database_url: str, by: int, words: str) -> None:
    """The message gives the skew, its direction and the remedy."""
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
    """Half a second of skew is tolerated."""
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
    """The embedded store has one process and one clock, so no skew."""
    clock = ManualClock()
    database = await open_database(sqlite_database_url, clock)
    try:
        await clock_check.insist(database, clock)
    finally:
        await database.close()
