# SPDX-License-Identifier: Apache-2.0
"""The limits of an instance as its user set them, and their effects so far.

`novitai.domain.limit_review` decides on them. The names of the stored keys never change, because
old and new processes read each other's rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from novitai.clock import END_OF_TIME
from novitai.domain.stored import integer as stored_integer

MINUTE: Final = 60_000
KEEP_AT_MOST: Final = 7 * 24 * 60
"""The minutes by which the stop of one run can be put off in all."""


def least(*given: int | None) -> int | None:
    """Return the smallest of the limits that are set; None if none is."""
    return min((one for one in given if one is not None), default=None)


class StopReason(StrEnum):
    """The limit or budget that ends a run, or the limit that deletes a stopped instance."""

    MAX_SPEND = "maxSpend"
    MAX_RUN_MINUTES = "maxRunMinutes"
    STOP_AT = "stopAt"
    BUDGET = "budget"
    AUTO_STOP = "autoStop"
    DELETE_AFTER_STOPPED = "deleteAfterStopped"
    KEY_LIMIT = "keyLimit"
    """The longest run that the key which created the instance allows."""


class LimitAction(StrEnum):
    """The effect of a limit that is reached."""

    STOP = "stop"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """The limits that a person has set on an instance.

    Attributes:
        max_spend: The most that the instance may cost in its whole life, in 1/100000 USD.
        max_run_minutes: The longest run, counted from its first billable moment.
        stop_at: When the instance must have stopped.
        on_limit: Whether one of these stops or deletes the instance.
        delete_after_stopped_minutes: How long the instance may be stopped before it is deleted.
    """

    max_spend: int | None = None
    max_run_minutes: int | None = None
    stop_at: int | None = None
    on_limit: LimitAction = LimitAction.STOP
    delete_after_stopped_minutes: int | None = None

    @property
    def ends_in_time(self) -> bool:
        """Whether any limit ends a run at a time, so that it can be put off."""
        return self.max_run_minutes is not None or self.stop_at is not None

    def kept(self, minutes: int) -> LimitSettings:
        """Return the limits after a stop was put off: `stop_at` moves, the length of a run not.

        A run is lengthened by `LimitMemory.extension_minutes`, which ends with it.
        """
        if self.stop_at is None:
            return self
        return replace(self, stop_at=min(self.stop_at + minutes * MINUTE, END_OF_TIME - 1))

    def without_stop_at(self) -> LimitSettings | None:
        """Return the limits without `stop_at`; None if none is left."""
        return replace(self, stop_at=None).or_none()

    def or_none(self) -> LimitSettings | None:
        """Return the limits; None if none is set."""
        return None if self == LimitSettings() else self


@dataclass(frozen=True, slots=True)
class LimitsChange:
    """A merge patch of `LimitSettings`: only the named fields change.

    Attributes:
        fields: The new values by field; None removes a limit, or restores `on_limit`.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)

    def applied(self, limits: LimitSettings | None) -> LimitSettings | None:
        """Return the limits after the change; None if none is left."""
        values: dict[str, Any] = {
            name: LimitAction.STOP if name == "on_limit" and value is None else value
            for name, value in self.fields.items()
        }
        changed = replace(limits or LimitSettings(), **values)
        return changed.or_none()


@dataclass(frozen=True, slots=True)
class InheritedLimits:
    """The limits that an instance has from the key that created it.

    They are stored with the instance, so they bind it as long as it exists.

    Attributes:
        max_hourly_price: The most that the whole instance may cost when it is bought or started,
            in 1/100000 USD per hour.
        max_run_minutes: The longest run; longer than the key's if an admin key has set it so.
        until: Until when a run may last in any case, because an admin key has set `stopAt` so.
    """

    max_hourly_price: int | None = None
    max_run_minutes: int | None = None
    until: int | None = None

    @property
    def longest_minutes(self) -> int | None:
        """The longest run in minutes, if it does not depend on when the run begins."""
        return None if self.until is not None else self.max_run_minutes

    def ends_at(self, began_at: int, extension_minutes: int) -> int | None:
        """Return when a run must have ended; None if it may last.

        Args:
            began_at: When it began.
            extension_minutes: By how much an admin key has put that off in this run.
        """
        if self.max_run_minutes is None:
            return None
        at = max(began_at + self.max_run_minutes * MINUTE, self.until or 0)
        return at + extension_minutes * MINUTE

    def or_none(self) -> InheritedLimits | None:
        """Return the limits; None if none is set."""
        return None if self == InheritedLimits() else self


@dataclass(frozen=True, slots=True)
class LimitMemory:
    """The effects of the limits of an instance so far. Stored as JSON.

    Attributes:
        set_at: When a limit was last changed. A limit does not fall due before.
        delete_set_at: When `delete_after_stopped_minutes` was last changed.
        kept_minutes: By how much the stop of this run was put off in all.
        extension_minutes: By how much `max_run_minutes` is moved in this run.
        key_extension_minutes: By how much an admin key has moved the inherited one in this run.
        near: The limits that this run was said to be near to.
        reached: The limit that has fallen due in this run or stop.
        begun_at: When the last verb for it was begun.
        unenforced_told_at: When it was last told that this limit is not enforced.
        purge_told: The moment of the purge that was announced.
        budget_spent_at: When a budget that stops this run was found spent; None if none is.
    """

    set_at: int = 0
    delete_set_at: int = 0
    kept_minutes: int = 0
    extension_minutes: int = 0
    key_extension_minutes: int = 0
    near: tuple[str, ...] = ()
    reached: StopReason | None = None
    begun_at: int | None = None
    unenforced_told_at: int | None = None
    purge_told: int | None = None
    budget_spent_at: int | None = None

    def for_new_run(self) -> LimitMemory:
        """Return the memory with which a run begins: nothing of the run before it is left."""
        return LimitMemory(set_at=self.set_at, delete_set_at=self.delete_set_at)

    def for_begun_run(self) -> LimitMemory:
        """Return the memory with which a run begins for which it was armed already.

        What was put off while the instance was coming up belongs to this run.
        """
        return replace(
            self.for_new_run(),
            kept_minutes=self.kept_minutes,
            extension_minutes=self.extension_minutes,
            budget_spent_at=self.budget_spent_at,
        )

    def overruled(self) -> LimitMemory:
        """Return the memory after a person has ended the run: no limit is the reason."""
        return replace(self, reached=None, begun_at=None)

    def for_budget(self, spent_at: int | None, *, runs: bool) -> LimitMemory:
        """Return the memory after a budget of the instance was found spent, or has room again.

        Args:
            spent_at: When it was found spent; None if no such budget is.
            runs: Whether the instance is in a run.
        """
        changed = replace(self, budget_spent_at=spent_at)
        if not runs or self.reached is not StopReason.BUDGET:
            return changed
        return replace(changed, reached=None, begun_at=None)

    def pulled_back(self, latest: int, now: int) -> LimitMemory:
        """Set every time that lies after `latest` to `now`, after the clock went back."""

        def past(at: int) -> int:
            return now if at > latest else at

        return replace(self, set_at=past(self.set_at), delete_set_at=past(self.delete_set_at))

    def for_change(
        self, before: LimitSettings | None, after: LimitSettings | None, now: int
    ) -> LimitMemory:
        """Return the memory after the limits were changed: each new setting counts from now."""
        old, new = before or LimitSettings(), after or LimitSettings()
        fresh = replace(self, set_at=now, near=(), reached=None, begun_at=None)
        if old.max_run_minutes != new.max_run_minutes:
            fresh = replace(fresh, extension_minutes=0)
        if old.delete_after_stopped_minutes != new.delete_after_stopped_minutes:
            fresh = replace(fresh, delete_set_at=now)
        return replace(fresh, unenforced_told_at=None)

    def for_keep(self, minutes: int) -> LimitMemory:
        """Return the memory after the stop of the run was put off."""
        return replace(
            self,
            kept_minutes=self.kept_minutes + minutes,
            extension_minutes=self.extension_minutes + minutes,
            near=(),
            reached=None,
            begun_at=None,
            unenforced_told_at=None,
        )

    def for_key_extension(self, minutes: int) -> LimitMemory:
        """Return the memory after the end of the run by the inherited limits was put off."""
        return replace(self, key_extension_minutes=self.key_extension_minutes + minutes)


def inherited_to_json(limits: InheritedLimits) -> dict[str, object]:
    """Return the JSON object to store."""
    return {
        "max_hourly_price": limits.max_hourly_price,
        "max_run_minutes": limits.max_run_minutes,
        "until": limits.until,
    }


def inherited_from_json(stored: Mapping[str, object]) -> InheritedLimits:
    """Read a stored JSON object. A value of the wrong type counts as absent."""
    return InheritedLimits(
        max_hourly_price=stored_integer(stored, "max_hourly_price"),
        max_run_minutes=stored_integer(stored, "max_run_minutes"),
        until=stored_integer(stored, "until"),
    )


def limits_to_json(limits: LimitSettings) -> dict[str, object]:
    """Return the JSON object to store."""
    return {
        "max_spend": limits.max_spend,
        "max_run_minutes": limits.max_run_minutes,
        "stop_at": limits.stop_at,
        "on_limit": limits.on_limit.value,
        "delete_after_stopped_minutes": limits.delete_after_stopped_minutes,
    }


def limits_from_json(stored: Mapping[str, object]) -> LimitSettings:
    """Read a stored JSON object. A value of the wrong type counts as absent."""
    deletes = stored.get("on_limit") == LimitAction.DELETE.value
    return LimitSettings(
        max_spend=stored_integer(stored, "max_spend"),
        max_run_minutes=stored_integer(stored, "max_run_minutes"),
        stop_at=stored_integer(stored, "stop_at"),
        on_limit=LimitAction.DELETE if deletes else LimitAction.STOP,
        delete_after_stopped_minutes=stored_integer(stored, "delete_after_stopped_minutes"),
    )


def memory_to_json(memory: LimitMemory) -> dict[str, object]:
    """Return the JSON object to store. Default values are left out."""
    stored: dict[str, object] = {
        "set_at": memory.set_at,
        "delete_set_at": memory.delete_set_at,
        "kept_minutes": memory.kept_minutes,
        "extension_minutes": memory.extension_minutes,
        "key_extension_minutes": memory.key_extension_minutes,
        "near": list(memory.near),
        "reached": None if memory.reached is None else memory.reached.value,
        "begun_at": memory.begun_at,
        "unenforced_told_at": memory.unenforced_told_at,
        "purge_told": memory.purge_told,
        "budget_spent_at": memory.budget_spent_at,
    }
    return {name: value for name, value in stored.items() if value not in (None, 0, [])}


def memory_from_json(stored: Mapping[str, object]) -> LimitMemory:
    """Read a stored JSON object. A value of the wrong type counts as absent."""
    near, reached = stored.get("near"), stored.get("reached")
    return LimitMemory(
        set_at=stored_integer(stored, "set_at") or 0,
        delete_set_at=stored_integer(stored, "delete_set_at") or 0,
        kept_minutes=stored_integer(stored, "kept_minutes") or 0,
        extension_minutes=stored_integer(stored, "extension_minutes") or 0,
        key_extension_minutes=stored_integer(stored, "key_extension_minutes") or 0,
        near=tuple(str(one) for one in near) if isinstance(near, list) else (),
        reached=next((one for one in StopReason if one.value == reached), None),
        begun_at=stored_integer(stored, "begun_at"),
        unenforced_told_at=stored_integer(stored, "unenforced_told_at"),
        purge_told=stored_integer(stored, "purge_told"),
        budget_spent_at=stored_integer(stored, "budget_spent_at"),
    )
