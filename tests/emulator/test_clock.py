# SPDX-License-Identifier: Apache-2.0
"""The virtual clock."""

from __future__ import annotations

import math

import pytest

from novitai.emulator.clock import EmulatorClock


class Source:
    def __init__(self) -> None:
        self.seconds = 50.0

    def __call__(self) -> float:
        return self.seconds


def test_virtual_time_runs_speed_times_faster() -> None:
    """At speed 60, a real second is a virtual minute."""
    source = Source()
    clock = EmulatorClock(60, source=source, epoch=1000)
    source.seconds += 2
    assert clock.now() == pytest.approx(1120)


def test_changing_the_speed_does_not_jump() -> None:
    """A change of speed does not move the current virtual time."""
    source = Source()
    clock = EmulatorClock(10, source=source, epoch=0)
    source.seconds += 3
    before = clock.now()
    clock.set_speed(0.5)
    assert clock.now() == pytest.approx(before)
    source.seconds += 4
    assert clock.now() == pytest.approx(before + 2)


def test_time_can_be_advanced_but_never_turned_back() -> None:
    """An advance adds to the virtual time at any speed; a negative advance is an error."""
    clock = EmulatorClock(100, source=Source(), epoch=0)
    clock.advance(7200)
    assert clock.now() == pytest.approx(7200)
    with pytest.raises(ValueError, match="0 or more"):
        clock.advance(-1)


def test_real_waiting_time_shrinks_with_the_speed() -> None:
    """600 virtual seconds are 10 real seconds at speed 60."""
    clock = EmulatorClock(60, source=Source(), epoch=0)
    assert clock.real_until(600) == pytest.approx(10)
    assert clock.real_until(-5) == 0


@pytest.mark.parametrize("speed", [0, -1, math.inf, math.nan])
def test_a_speed_that_makes_no_sense_is_refused(speed: float) -> None:
    """Zero, negative, infinite and NaN speeds are errors."""
    with pytest.raises(ValueError, match="above 0"):
        EmulatorClock(speed)
