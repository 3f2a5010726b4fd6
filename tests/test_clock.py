# SPDX-License-Identifier: Apache-2.0
"""Clocks: time is injected, and points in time are Unix milliseconds."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.clock import SystemClock, iso, parse_iso
from novitai.testing import ManualClock


def test_times_are_written_with_milliseconds_and_z() -> None:
    """Times are ISO-8601 in UTC, in the API's format."""
    assert iso(1_697_843_200_000) == "2023-10-20T23:06:40.000Z"
    assert iso(1_697_843_200_007) == "2023-10-20T23:06:40.007Z"


@given(st.integers(0, 4_000_000_000_000))
def test_what_is_written_is_read(at: int) -> None:
    """Parsing a written time gives the same millisecond."""
    assert parse_iso(iso(at)) == at


def test_a_time_without_an_offset_is_refused() -> None:
    """A time without an offset is refused, because it depends on the machine's time zone."""
    with pytest.raises(ValueError, match="offset"):
        parse_iso("2023-10-20T23:06:40")


def test_the_system_clock_tells_the_machines_time() -> None:
    """The system clock returns Unix milliseconds."""
    assert abs(SystemClock().now() - time.time() * 1000) < 5_000


async def test_virtual_time_wakes_sleepers_in_order() -> None:
    """Each sleeper wakes at its own time, and the clock shows that time."""
    clock = ManualClock(start=0)
    woken: list[tuple[str, int]] = []

    async def sleep(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.now()))

    tasks = [asyncio.create_task(sleep(name, s)) for name, s in [("b", 2), ("a", 1), ("c", 9)]]
    await asyncio.sleep(0)
    await clock.advance(5)
    assert woken == [("a", 1000), ("b", 2000)]
    assert clock.now() == 5000
    await clock.advance(4)
    assert woken[-1] == ("c", 9000)
    await asyncio.gather(*tasks)
