# SPDX-License-Identifier: Apache-2.0
"""The state an operation keeps between its steps. Stored as JSON with the operation.

All times are Unix milliseconds. The names of the stored keys never change, because old and new
processes read each other's operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from novitai.domain.instance import Instance
from novitai.domain.stored import integer as stored_integer
from novitai.domain.stored import text as stored_text


@dataclass(frozen=True, slots=True)
class Call:
    """The calls an operation has made to start, stop, restart or delete its instance.

    Attributes:
        asked_at: When the last call was made; None before the first.
        asks: How many calls were made.
        accepted: Whether Novita accepted any of them, rather than answering "nothing to do".
        unsure: Whether the outcome of the last call is unknown.
        tried_at: When a call was first made, or first could not be sent. Deadlines count from it.
        stumbles: How many steps in a row ended in an upstream error.
    """

    asked_at: int | None = None
    asks: int = 0
    accepted: bool = False
    unsure: bool = False
    tried_at: int | None = None
    stumbles: int = 0

    def first_tried(self, now: int) -> int:
        """Return when a call was first tried; `now` if none was.

        Deadlines count from the first try, so the time an operation waits for its turn is free.
        """
        return now if self.tried_at is None else self.tried_at


@dataclass(frozen=True, slots=True)
class PreviousState:
    """The previous values of the instance columns that change when an operation is accepted."""

    ready_at: int | None = None
    failed: bool = False
    error_code: str | None = None
    error_message: str | None = None
    error_at: int | None = None

    @classmethod
    def of(cls, instance: Instance) -> PreviousState:
        """Copy the columns of an instance."""
        error = instance.error
        if error is None:
            return cls(instance.ready_at, instance.failed)
        return cls(instance.ready_at, instance.failed, error.code, error.message, error.at)

    def columns(self) -> dict[str, object]:
        """Return the values by column name, to be written back."""
        return {
            "ready_at": self.ready_at,
            "failed": self.failed,
            "error_code": self.error_code,
            "error_message": self.error_message,
            "error_at": self.error_at,
        }


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of an operation.

    Attributes:
        call: The calls it has made.
        previous: The instance's columns before the operation was accepted.
        known_error: Novita's `statusError` when the operation was accepted; it is not a failure of
            this operation.
        confirmed: Whether a person has confirmed that its calls are sent even during a hold.
        urgent: Whether a limit demands its stop, so its call is repeated sooner and to the end.
        moved: Whether the instance was seen to leave `running` since the call (restart).
        migrating_since: Since when the instance has been migrating.
        detour_at: When the instance was last seen in a status that suspends the deadlines, or the
            operation was last held back.
        not_found_at: When a look-up first did not find an instance that is no longer listed.
        rounds: How many rounds over all candidates found no capacity (create).
        short_since: Since when there has been no capacity (create).
        tried_before: How many attempts belong to earlier rounds (create).
    """

    call: Call = field(default_factory=Call)
    previous: PreviousState | None = None
    known_error: str | None = None
    confirmed: bool = False
    urgent: bool = False
    moved: bool = False
    migrating_since: int | None = None
    detour_at: int | None = None
    not_found_at: int | None = None
    rounds: int = 0
    short_since: int | None = None
    tried_before: int = 0

    @classmethod
    def begun(cls, instance: Instance, *, confirmed: bool = False) -> Progress:
        """Return the initial progress of an operation that will change an instance's columns."""
        return cls(
            previous=PreviousState.of(instance),
            known_error=instance.observed.error,
            confirmed=confirmed,
        )

    def previous_columns(self) -> dict[str, object]:
        """Return the instance's columns from before the operation; empty if not recorded."""
        return {} if self.previous is None else self.previous.columns()

    def held_back(self, now: int) -> Progress:
        """Restart the deadlines at `now`, because the operation was blocked until now."""
        call = self.call
        return replace(
            self,
            call=replace(
                call,
                asked_at=None if call.asked_at is None else now,
                tried_at=None if call.tried_at is None else now,
            ),
            migrating_since=None if self.migrating_since is None else now,
            detour_at=now,
        )

    def postponed(self, by: int, now: int) -> Progress:
        """Shift every time after a forward clock jump, so deadlines do not count the jump.

        Args:
            by: Milliseconds by which the clock jumped forward.
            now: The time after the jump; no time is moved beyond it.
        """
        return replace(self._with_times(lambda at: min(at + by, now)), detour_at=now)

    def pulled_back(self, latest: int, now: int) -> Progress:
        """Set every time that lies after `latest` to `now`."""
        return self._with_times(lambda at: now if at > latest else at)

    def _with_times(self, move: Callable[[int], int]) -> Progress:
        def moved(at: int | None) -> int | None:
            return None if at is None else move(at)

        call = self.call
        return replace(
            self,
            call=replace(call, asked_at=moved(call.asked_at), tried_at=moved(call.tried_at)),
            migrating_since=moved(self.migrating_since),
            detour_at=moved(self.detour_at),
            not_found_at=moved(self.not_found_at),
            short_since=moved(self.short_since),
        )


def to_json(progress: Progress) -> dict[str, object]:
    """Return the JSON object to store. Default values are left out."""
    call, previous = progress.call, progress.previous
    stored: dict[str, object] = {
        "asked_at": call.asked_at,
        "asks": call.asks,
        "accepted": call.accepted,
        "unsure": call.unsure,
        "tried_at": call.tried_at,
        "stumbles": call.stumbles,
        "before": None if previous is None else previous.columns(),
        "told": progress.known_error,
        "confirmed": progress.confirmed,
        "urgent": progress.urgent,
        "moved": progress.moved,
        "migrating_since": progress.migrating_since,
        "detour_at": progress.detour_at,
        "not_found_at": progress.not_found_at,
        "rounds": progress.rounds,
        "short_since": progress.short_since,
        "tried_before": progress.tried_before,
    }
    return {name: value for name, value in stored.items() if value not in (None, 0, False)}


def from_json(stored: Mapping[str, object]) -> Progress:
    """Read a stored JSON object. A value of the wrong type counts as absent."""
    before = stored.get("before")
    return Progress(
        call=Call(
            asked_at=stored_integer(stored, "asked_at"),
            asks=stored_integer(stored, "asks") or 0,
            accepted=stored.get("accepted") is True,
            unsure=stored.get("unsure") is True,
            tried_at=stored_integer(stored, "tried_at"),
            stumbles=stored_integer(stored, "stumbles") or 0,
        ),
        previous=_previous(before) if isinstance(before, Mapping) else None,
        known_error=stored_text(stored, "told"),
        confirmed=stored.get("confirmed") is True,
        urgent=stored.get("urgent") is True,
        moved=stored.get("moved") is True,
        migrating_since=stored_integer(stored, "migrating_since"),
        detour_at=stored_integer(stored, "detour_at"),
        not_found_at=stored_integer(stored, "not_found_at"),
        rounds=stored_integer(stored, "rounds") or 0,
        short_since=stored_integer(stored, "short_since"),
        tried_before=stored_integer(stored, "tried_before") or 0,
    )


def _previous(stored: Mapping[str, object]) -> PreviousState:
    return PreviousState(
        ready_at=stored_integer(stored, "ready_at"),
        failed=stored.get("failed") is True,
        error_code=stored_text(stored, "error_code"),
        error_message=stored_text(stored, "error_message"),
        error_at=stored_integer(stored, "error_at"),
    )
