# SPDX-License-Identifier: Apache-2.0
"""The auto-stop setting of an instance, and what is known about its use.

`novitai.domain.autostop` decides on them. The names of the stored keys never change, because old
and new processes read each other's rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from novitai.domain.limits import MINUTE, LimitAction
from novitai.domain.stored import integer as stored_integer

SHORTEST_IDLE: Final = 5
LONGEST_IDLE: Final = 10_080
"""The bounds of `idleMinutes`."""
SAMPLES_PER_IDLE: Final = 5
"""GPU use is asked for at most this many times in `idleMinutes`."""


class IdleSignal(StrEnum):
    """The signs of use that auto-stop watches."""

    LAST_USED = "lastUsed"
    GPU = "gpu"


class AutoStopState(StrEnum):
    """Whether an idle instance is stopped soon, later, or not at all for lack of a signal."""

    ARMED = "armed"
    WARNING = "warning"
    SIGNAL_LOST = "signalLost"


@dataclass(frozen=True, slots=True)
class AutoStop:
    """The setting of an instance.

    Attributes:
        idle_minutes: How long it must be idle.
        signals: The signs of use.
        gpu_below_percent: GPU use below this counts as idle.
        action: Whether it is stopped or deleted.
        warn_minutes: How long before that a warning is told; at most half of `idle_minutes` counts.
    """

    idle_minutes: int
    signals: tuple[IdleSignal, ...] = (IdleSignal.LAST_USED, IdleSignal.GPU)
    gpu_below_percent: float = 5
    action: LimitAction = LimitAction.STOP
    warn_minutes: int = 5

    @property
    def watches_gpu(self) -> bool:
        """Whether GPU use is a sign of use."""
        return IdleSignal.GPU in self.signals

    @property
    def idle(self) -> int:
        """How long it must be idle, in milliseconds."""
        return self.idle_minutes * MINUTE

    @property
    def sample_pause(self) -> int:
        """The shortest time between two samples of GPU use, in milliseconds."""
        return self.idle // SAMPLES_PER_IDLE

    @property
    def warn(self) -> int:
        """How long before the stop the warning is told, in milliseconds."""
        return min(self.warn_minutes * MINUTE, self.idle // 2)


@dataclass(frozen=True, slots=True)
class AutoStopChange:
    """A merge patch of the setting: only the named fields change; None restores a default."""

    fields: Mapping[str, Any] = field(default_factory=dict)

    def applied(self, before: AutoStop | None) -> AutoStop | None:
        """Return the setting after the change; None if it would have no `idle_minutes`."""
        minutes = self.fields.get("idle_minutes", before.idle_minutes if before else None)
        if not isinstance(minutes, int):
            return None
        defaults = AutoStop(minutes)
        values = {
            name: getattr(defaults, name) if value is None else value
            for name, value in self.fields.items()
            if name != "idle_minutes"
        }
        kept = replace(before, idle_minutes=minutes) if before else defaults
        return replace(kept, **values)


@dataclass(frozen=True, slots=True)
class IdleMemory:
    """The known use of an instance in this run. Stored as JSON.

    Attributes:
        set_at: When the setting was last changed.
        kept_from: From when on a `keep` lets it count as idle.
        kept_ahead: The minutes of the run, from its begin, that a `keep` before it does not count.
        busy_at: When its GPUs were last in use, or may have been.
        known_until: Until when GPU use is known.
        sampled_at: When GPU use was last asked for.
        missing_since: When GPU use was first asked for without an answer that is new enough.
        lost_told_at: When the missing signal was last told.
        warned_for: The stop of which the last warning told.
    """

    set_at: int = 0
    kept_from: int = 0
    kept_ahead: int = 0
    busy_at: int = 0
    known_until: int = 0
    sampled_at: int = 0
    missing_since: int | None = None
    lost_told_at: int | None = None
    warned_for: int | None = None

    def for_new_run(self) -> IdleMemory:
        """Return the memory with which a run begins: nothing of the run before it is left."""
        return IdleMemory(set_at=self.set_at, sampled_at=self.sampled_at)

    def for_begun_run(self) -> IdleMemory:
        """Return the memory with which a run begins for which it was armed already."""
        return replace(self.for_new_run(), kept_ahead=self.kept_ahead)

    def for_change(self, now: int) -> IdleMemory:
        """Return the memory after the setting was changed: it counts from now."""
        return replace(self.for_new_run(), set_at=now)

    def for_keep(self, minutes: int, idle_since: int | None, now: int) -> IdleMemory:
        """Return the memory after the stop was put off by some minutes, and at least from now.

        Args:
            minutes: By how much.
            idle_since: From when on the instance counts as idle; None if its run has not begun.
            now: Unix milliseconds.
        """
        if idle_since is None:
            return replace(self, kept_ahead=self.kept_ahead + minutes)
        return replace(self, kept_from=max(idle_since + minutes * MINUTE, now))

    def pulled_back(self, latest: int, now: int) -> IdleMemory:
        """Set every time that lies after `latest` to `now`, after the clock went back."""

        def past(at: int) -> int:
            return now if at > latest else at

        return replace(
            self,
            set_at=past(self.set_at),
            busy_at=past(self.busy_at),
            known_until=past(self.known_until),
            sampled_at=past(self.sampled_at),
            missing_since=None if self.missing_since is None else past(self.missing_since),
        )


def setting_to_json(auto_stop: AutoStop) -> dict[str, object]:
    """Return the JSON object to store."""
    return {
        "idle_minutes": auto_stop.idle_minutes,
        "signals": [one.value for one in auto_stop.signals],
        "gpu_below_percent": auto_stop.gpu_below_percent,
        "action": auto_stop.action.value,
        "warn_minutes": auto_stop.warn_minutes,
    }


def setting_from_json(stored: Mapping[str, object]) -> AutoStop:
    """Read a stored JSON object. A value of the wrong type counts as its default."""
    named, percent = stored.get("signals"), stored.get("gpu_below_percent")
    names = named if isinstance(named, list) else list(IdleSignal)
    minutes = stored_integer(stored, "idle_minutes")
    warn = stored_integer(stored, "warn_minutes")
    deletes = stored.get("action") == LimitAction.DELETE.value
    return AutoStop(
        idle_minutes=LONGEST_IDLE if minutes is None else minutes,
        signals=tuple(one for one in IdleSignal if one.value in names),
        gpu_below_percent=percent if isinstance(percent, int | float) else 5,
        action=LimitAction.DELETE if deletes else LimitAction.STOP,
        warn_minutes=5 if warn is None else warn,
    )


def idle_memory_to_json(memory: IdleMemory) -> dict[str, object]:
    """Return the JSON object to store. Default values are left out."""
    stored: dict[str, object] = {
        "set_at": memory.set_at,
        "kept_from": memory.kept_from,
        "kept_ahead": memory.kept_ahead,
        "busy_at": memory.busy_at,
        "known_until": memory.known_until,
        "sampled_at": memory.sampled_at,
        "missing_since": memory.missing_since,
        "lost_told_at": memory.lost_told_at,
        "warned_for": memory.warned_for,
    }
    return {name: value for name, value in stored.items() if value not in (None, 0)}


def idle_memory_from_json(stored: Mapping[str, object]) -> IdleMemory:
    """Read a stored JSON object. A value of the wrong type counts as absent."""
    return IdleMemory(
        set_at=stored_integer(stored, "set_at") or 0,
        kept_from=stored_integer(stored, "kept_from") or 0,
        kept_ahead=stored_integer(stored, "kept_ahead") or 0,
        busy_at=stored_integer(stored, "busy_at") or 0,
        known_until=stored_integer(stored, "known_until") or 0,
        sampled_at=stored_integer(stored, "sampled_at") or 0,
        missing_since=stored_integer(stored, "missing_since"),
        lost_told_at=stored_integer(stored, "lost_told_at"),
        warned_for=stored_integer(stored, "warned_for"),
    )
