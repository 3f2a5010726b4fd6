# SPDX-License-Identifier: Apache-2.0
"""Decide when an idle instance is stopped. Pure; all times are Unix milliseconds of our clock.

An instance is idle from the latest of: its start, its last use, GPU use at or above the line, a
`keep`, and a change of the setting. Time for which the use of the GPUs is not known counts as use,
so an instance is stopped only if every signal was known to be idle. A signal that stays unknown is
told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from novitai.clock import iso
from novitai.domain.event import EventType
from novitai.domain.idle import AutoStop, AutoStopState, IdleMemory, IdleSignal
from novitai.domain.limit_review import LimitEvent
from novitai.domain.limits import MINUTE

GAP: Final = 2 * MINUTE
"""The longest time between two values of GPU use that is not unknown."""
LOST_AFTER: Final = 30 * MINUTE
"""How long a signal must be missing before it is told."""
LOST_AGAIN: Final = 24 * 60 * MINUTE
"""The time between two events about the same missing signal."""


@dataclass(frozen=True, slots=True)
class GpuUse:
    """The highest use of any single GPU at a moment, in percent."""

    at: int
    percent: float


@dataclass(frozen=True, slots=True)
class IdleFacts:
    """The input of `watch_idle`.

    Attributes:
        now: The time.
        began_at: When the run began; None unless the instance is in a run.
        last_used_at: When its user last said that it was used.
        samples: Whether GPU use can be asked for now: it runs, and nothing ends it.
        ends: Whether a stop or deletion is running.
    """

    now: int
    began_at: int | None = None
    last_used_at: int | None = None
    samples: bool = True
    ends: bool = False


@dataclass(frozen=True, slots=True)
class IdleWatch:
    """The result of `watch_idle`.

    Attributes:
        memory: The memory to store.
        state: The state to show.
        stops_at: When the idle instance is stopped; None while that is not known.
        sample_at: When to ask for GPU use; None if it is not to be asked for.
        look_at: When to decide again; None if only a change can matter.
        events: The events to append.
    """

    memory: IdleMemory
    state: AutoStopState = AutoStopState.ARMED
    stops_at: int | None = None
    sample_at: int | None = None
    look_at: int | None = None
    events: tuple[LimitEvent, ...] = ()


def idle_since(auto_stop: AutoStop, memory: IdleMemory, facts: IdleFacts) -> int:
    """Return from when on an instance in a run counts as idle."""
    since = [(facts.began_at or 0) + memory.kept_ahead * MINUTE, memory.set_at, memory.kept_from]
    if IdleSignal.LAST_USED in auto_stop.signals:
        since.append(min(facts.last_used_at or 0, facts.now))
    if auto_stop.watches_gpu:
        since.append(memory.busy_at)
    return max(since)


def watch_idle(auto_stop: AutoStop, memory: IdleMemory, facts: IdleFacts) -> IdleWatch:
    """Decide on the stop of an idle instance, and when to sample and to decide again."""
    if facts.began_at is None:
        return IdleWatch(memory)
    now, since = facts.now, idle_since(auto_stop, memory, facts)
    stops_at = since + auto_stop.idle
    sample_at = _sample_at(auto_stop, memory, facts, stops_at)
    events: list[LimitEvent] = []
    missing_since = memory.missing_since if auto_stop.watches_gpu else None
    lost_at = None if missing_since is None else missing_since + LOST_AFTER
    if lost_at is not None and now >= lost_at and not facts.ends:
        told_at = memory.lost_told_at
        if told_at is None or not told_at <= now < told_at + LOST_AGAIN:
            told_at = now
            data = {"signal": IdleSignal.GPU.value, "missingSince": iso(missing_since or now)}
            events.append(LimitEvent(EventType.AUTOSTOP_SIGNAL_LOST, data))
        memory = replace(memory, lost_told_at=told_at)
        state, look_at = AutoStopState.SIGNAL_LOST, told_at + LOST_AGAIN
        return IdleWatch(memory, state, None, sample_at, look_at, tuple(events))
    looks = [] if lost_at is None or lost_at <= now else [lost_at]
    if now >= stops_at and not _is_known(auto_stop, memory, facts):
        state = AutoStopState.ARMED
        return IdleWatch(memory, state, None, sample_at, min(looks, default=None))
    warns_at = stops_at - auto_stop.warn
    warns = warns_at <= now
    if warns and auto_stop.warn and now < stops_at and memory.warned_for != stops_at:
        memory = replace(memory, warned_for=stops_at)
        data = {"at": iso(stops_at), "idleSince": iso(since), "action": auto_stop.action.value}
        events.append(LimitEvent(EventType.AUTOSTOP_WARNING, data))
    looks += [at for at in (warns_at, stops_at) if at > now]
    return IdleWatch(
        memory,
        AutoStopState.WARNING if warns else AutoStopState.ARMED,
        stops_at,
        sample_at,
        min(looks, default=None),
        tuple(events),
    )


def after_sample(
    auto_stop: AutoStop,
    memory: IdleMemory,
    found: Iterable[GpuUse],
    *,
    since: int,
    now: int,
) -> IdleMemory:
    """Return the memory after GPU use was asked for.

    Args:
        auto_stop: The setting.
        memory: The memory before.
        found: The values since `known_until`, in the order of time; none if the call failed.
        since: When the run or the setting began; nothing is known about the time before.
        now: The time.
    """
    known, busy = max(memory.known_until, since), memory.busy_at
    for use in found:
        if not known < use.at <= now:
            continue
        if use.at - known > GAP or use.percent >= auto_stop.gpu_below_percent:
            busy = max(busy, use.at)
        known = use.at
    if now - known <= GAP:
        missing_since, told_at = None, None
    else:
        missing_since, told_at = memory.missing_since or now, memory.lost_told_at
    return replace(
        memory,
        busy_at=busy,
        known_until=known,
        missing_since=missing_since,
        lost_told_at=told_at,
    )


def highest_use(gpus: Sequence[Mapping[int, float]], gpu_num: int) -> list[GpuUse]:
    """Return the highest use of any single GPU, at each moment at which all of them are known.

    Args:
        gpus: For each GPU, its use in percent by time.
        gpu_num: The number of GPUs of the instance; with fewer series, nothing is known.
    """
    if not gpus or len(gpus) < gpu_num:
        return []
    times = set(gpus[0]).intersection(*gpus[1:])
    return [GpuUse(at, max(series[at] for series in gpus)) for at in sorted(times)]


def _is_known(auto_stop: AutoStop, memory: IdleMemory, facts: IdleFacts) -> bool:
    """Whether every signal is known up to now. A stop that has begun is not held back."""
    return not auto_stop.watches_gpu or facts.ends or facts.now - memory.known_until <= GAP


def _sample_at(
    auto_stop: AutoStop, memory: IdleMemory, facts: IdleFacts, stops_at: int
) -> int | None:
    """Return the next sample: after the pause, or later at the stop if that comes soon after."""
    if not auto_stop.watches_gpu or not facts.samples:
        return None
    last = max(memory.sampled_at, facts.began_at or 0, memory.set_at)
    earliest = last + auto_stop.sample_pause
    return stops_at if earliest < stops_at < earliest + auto_stop.sample_pause else earliest
