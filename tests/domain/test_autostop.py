# SPDX-License-Identifier: Apache-2.0
"""Tables of the decisions about idle instances."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.domain.autostop import (
    LOST_AFTER,
    LOST_AGAIN,
    GpuUse,
    IdleFacts,
    IdleWatch,
    after_sample,
    highest_use,
    idle_since,
    watch_idle,
)
from novitai.domain.event import EventType
from novitai.domain.idle import (
    AutoStop,
    AutoStopChange,
    AutoStopState,
    IdleMemory,
    IdleSignal,
    idle_memory_from_json,
    idle_memory_to_json,
    setting_from_json,
    setting_to_json,
)
from novitai.domain.limits import MINUTE, LimitAction

BEGAN = 1_760_000_000_000
SETTING = AutoStop(60)
USED_ONLY = replace(SETTING, signals=(IdleSignal.LAST_USED,))
GPU_ONLY = replace(SETTING, signals=(IdleSignal.GPU,))
WARNING, LOST = EventType.AUTOSTOP_WARNING, EventType.AUTOSTOP_SIGNAL_LOST


def at(minutes: float) -> int:
    """Return the moment so many minutes after the start."""
    return BEGAN + int(minutes * MINUTE)


def watched(
    now: float, memory: IdleMemory | None = None, setting: AutoStop = SETTING, **facts: Any
) -> IdleWatch:
    """Decide so many minutes after the start, by default with GPUs known idle up to now."""
    known = IdleMemory(known_until=at(now)) if memory is None else memory
    return watch_idle(setting, known, IdleFacts(**{"now": at(now), "began_at": BEGAN, **facts}))


def types(watch: IdleWatch) -> list[EventType]:
    """List the types of the events."""
    return [event.type for event in watch.events]


def sampled(*uses: tuple[float, float], now: float, memory: IdleMemory | None = None) -> IdleMemory:
    """Return the memory after a sample with values at so many minutes after the start."""
    found = [GpuUse(at(minutes), percent) for minutes, percent in uses]
    before = IdleMemory() if memory is None else memory
    return after_sample(SETTING, before, found, since=BEGAN, now=at(now))


@pytest.mark.parametrize(
    ("memory", "last_used", "setting", "since"),
    [
        ({}, None, SETTING, 0),
        ({}, 10, SETTING, 10),
        ({}, 10, GPU_ONLY, 0),
        ({}, 99, SETTING, 30),
        ({"busy_at": at(11)}, 10, SETTING, 11),
        ({"busy_at": at(11)}, 10, USED_ONLY, 10),
        ({"kept_from": at(12), "busy_at": at(11)}, 10, SETTING, 12),
        ({"set_at": at(13), "kept_from": at(12)}, 10, SETTING, 13),
        ({"set_at": at(-5), "busy_at": at(-6)}, -7, SETTING, 0),
    ],
)
def test_since_when_an_instance_is_idle(
    memory: dict[str, Any], last_used: float | None, setting: AutoStop, since: float
) -> None:
    """The latest of start, last use, GPU use, `keep` and change counts; a time to come is now."""
    used = None if last_used is None else at(last_used)
    facts = IdleFacts(at(30), BEGAN, used)
    assert idle_since(setting, IdleMemory(**memory), facts) == at(since)


@pytest.mark.parametrize(
    ("now", "state", "stops_at"),
    [
        (0, "armed", 60),
        (54.9, "armed", 60),
        (55, "warning", 60),
        (60, "warning", 60),
        (70, "warning", 60),
    ],
)
def test_the_state_and_the_stop(now: float, state: str, stops_at: float) -> None:
    """The warning begins `warnMinutes` before the stop, and a stop that is due stays due."""
    found = watched(now)
    assert (found.state, found.stops_at) == (AutoStopState(state), at(stops_at))


def test_without_a_run_nothing_is_planned() -> None:
    """A stopped instance is neither sampled nor stopped."""
    assert watched(90, began_at=None) == IdleWatch(IdleMemory(known_until=at(90)))


def test_the_warning_is_told_once_for_each_stop() -> None:
    """It is told again only if the stop was put off, and never after the stop is due."""
    first = watched(55)
    assert types(first) == [WARNING]
    assert types(watched(56, first.memory)) == []
    used = watched(57, first.memory, USED_ONLY, last_used_at=at(56))
    assert (used.state, used.stops_at) == (AutoStopState.ARMED, at(116))
    assert types(watched(111, used.memory, USED_ONLY, last_used_at=at(56))) == [WARNING]
    assert types(watched(60)) == []
    assert types(watched(59, setting=replace(SETTING, warn_minutes=0))) == []


def test_a_short_idle_time_has_a_short_warning() -> None:
    """At most half of `idleMinutes` counts, so an instance is not warned from its start on."""
    setting = replace(SETTING, idle_minutes=5)
    assert watched(2.4, setting=setting).state is AutoStopState.ARMED
    assert watched(2.5, setting=setting).state is AutoStopState.WARNING


@pytest.mark.parametrize(
    ("known", "now", "due"),
    [(60, 60, True), (58, 60, True), (57.99, 60, False), (58, 61, False), (0, 60, False)],
)
def test_what_is_unknown_counts_as_use(known: float, now: float, due: bool) -> None:
    """Without GPU use up to two minutes ago nothing is stopped; without that signal it is."""
    memory = IdleMemory(known_until=at(known))
    assert (watched(now, memory).stops_at is not None) is due
    assert watched(now, memory, USED_ONLY).stops_at == at(60)
    # A stop that has begun is not given up.
    assert watched(now, memory, ends=True).stops_at == at(60)


@pytest.mark.parametrize(
    ("uses", "busy", "known"),
    [
        ([], 0, 0),
        ([(1, 0), (2, 4.99)], 0, 2),
        ([(1, 0), (2, 5), (3, 0)], 2, 3),
        ([(1, 0), (2, 50)], 2, 2),
        ([(2, 0)], 0, 2),
        ([(2.01, 0)], 2.01, 2.01),
        ([(1, 0), (3, 0)], 0, 3),
        ([(1, 0), (3.01, 0), (4, 0)], 3.01, 4),
        ([(-1, 90), (0, 90), (1, 0)], 0, 1),
        ([(1, 0), (5, 90)], 0, 1),
    ],
)
def test_what_a_sample_tells(uses: list[tuple[float, float]], busy: float, known: float) -> None:
    """Use at the line and the end of a gap of over 2 minutes count; other times are ignored."""
    memory = sampled(*uses, now=4)
    assert (memory.busy_at, memory.known_until) == (at(busy) if busy else 0, at(known))


def test_a_signal_is_lost_after_half_an_hour() -> None:
    """It is told then, again each day while it is missing, and no more once it is back."""
    memory = sampled((1, 0), now=2)
    assert memory.missing_since is None
    memory = sampled(now=10, memory=memory)
    memory = sampled((1, 0), now=20, memory=memory)
    assert memory.missing_since == at(10)
    assert LOST_AFTER == 30 * MINUTE
    assert watched(39.9, memory).look_at == at(40)
    lost = watched(40, memory)
    assert (lost.state, lost.stops_at) == (AutoStopState.SIGNAL_LOST, None)
    assert types(lost) == [LOST]
    assert types(watched(1000, lost.memory)) == []
    day = 40 + LOST_AGAIN / MINUTE
    assert lost.look_at == at(day)
    assert types(watched(day, lost.memory)) == [LOST]
    assert watched(40, memory, USED_ONLY).state is AutoStopState.ARMED
    back = sampled((44, 0), now=45, memory=lost.memory)
    assert (back.missing_since, back.lost_told_at) == (None, None)
    found = watched(45, back)
    assert (found.state, found.stops_at) == (AutoStopState.ARMED, at(104))


@pytest.mark.parametrize(
    ("sampled_at", "due"), [(0, 12), (20, 32), (36, 48), (40, 60), (48, 60), (60, 72)]
)
def test_when_samples_are_taken(sampled_at: float, due: float) -> None:
    """At most five times in `idleMinutes`, and just when the stop is due if that comes next."""
    memory = IdleMemory(known_until=at(59), sampled_at=at(sampled_at))
    assert watched(59, memory).sample_at == at(due)
    assert watched(59, memory, USED_ONLY).sample_at is None
    assert watched(59, memory, samples=False).sample_at is None


def test_a_keep_puts_the_stop_off_by_its_minutes() -> None:
    """The stop moves by the minutes, and the instance is idle from the keep at the earliest."""
    memory = IdleMemory()
    assert memory.for_keep(30, at(0), at(10)).kept_from == at(30)
    assert memory.for_keep(30, at(0), at(50)).kept_from == at(50)


def test_nothing_of_a_run_is_left_in_the_next() -> None:
    """Neither a keep nor use nor a warning of the run before counts; the pause of samples does."""
    memory = IdleMemory(1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert memory.for_new_run() == IdleMemory(set_at=1, sampled_at=6)
    assert memory.for_begun_run() == IdleMemory(set_at=1, kept_ahead=3, sampled_at=6)
    assert memory.for_change(9) == IdleMemory(set_at=9, sampled_at=6)


def test_the_highest_gpu_decides() -> None:
    """Of eight GPUs one that works is enough; a moment without one of them is unknown."""
    idle = {at(1): 0.0, at(2): 0.0}
    works = {at(1): 3.0, at(2): 90.0}
    assert highest_use([idle] * 7 + [works], 8) == [GpuUse(at(1), 3), GpuUse(at(2), 90)]
    assert highest_use([idle] * 7 + [{at(1): 3.0}], 8) == [GpuUse(at(1), 3)]
    assert highest_use([idle] * 7, 8) == []
    assert highest_use([], 1) == []


def test_a_patch_keeps_what_it_does_not_name() -> None:
    """None restores a default; without `idleMinutes` there is no setting."""
    changed = AutoStopChange({"idle_minutes": 90, "action": LimitAction.DELETE}).applied(None)
    assert changed == AutoStop(90, action=LimitAction.DELETE)
    assert AutoStopChange({"warn_minutes": 7, "action": None}).applied(changed) == AutoStop(
        90, warn_minutes=7
    )
    assert AutoStopChange({"warn_minutes": 7}).applied(None) is None
    assert AutoStopChange({}).applied(changed) == changed


def test_after_the_clock_went_back_no_time_lies_ahead() -> None:
    """A time to come would count as use for as long as the clock was ahead."""
    memory = IdleMemory(at(9), at(9), 9, at(9), at(9), at(9), at(9), at(9), at(9))
    back = memory.pulled_back(at(0), at(0))
    assert (back.set_at, back.busy_at, back.known_until) == (at(0), at(0), at(0))
    assert (back.sampled_at, back.missing_since) == (at(0), at(0))
    assert back.kept_from == at(9)


numbers = st.integers(0, 2**53)
maybe = st.none() | st.integers(1, 2**53)


@given(
    st.builds(IdleMemory, *[numbers] * 6, maybe, maybe, maybe),
    st.builds(
        AutoStop,
        st.integers(5, 10_080),
        st.sampled_from([tuple(IdleSignal), (IdleSignal.GPU,), (IdleSignal.LAST_USED,)]),
        st.floats(1, 100),
        st.sampled_from(LimitAction),
        st.integers(0, 100),
    ),
)
def test_what_is_stored_is_read_back(memory: IdleMemory, setting: AutoStop) -> None:
    """Nothing is lost in the database."""
    assert idle_memory_from_json(idle_memory_to_json(memory)) == memory
    assert setting_from_json(setting_to_json(setting)) == setting
