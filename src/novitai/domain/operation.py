# SPDX-License-Identifier: Apache-2.0
"""Operations (verbs in progress) and attempts (the create calls of an operation)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from novitai.domain.actor import Actor
from novitai.domain.progress import Progress

LISTED_SLACK: Final = 2_000
"""Milliseconds by which two of our own times may be out of order after a clock jump."""


class OperationKind(StrEnum):
    """The verbs. The job type of each is `<kind>_instance` (`create_instance`, ...).

    Clients cannot request two of them: `REAP` stops or deletes an instance that failed, `FOLLOW`
    tracks a start that was begun outside novitai. `SYNC` is a requested listing, of no instance.
    """

    CREATE = "create"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    DELETE = "delete"
    REAP = "reap"
    FOLLOW = "follow"
    SYNC = "sync"

    @property
    def job(self) -> str:
        """The job type of this verb in metrics and logs."""
        return "sync_requested" if self is OperationKind.SYNC else f"{self.value}_instance"

    @property
    def brings_down(self) -> bool:
        """Whether it ends a run: it stops or deletes the instance."""
        return self in {OperationKind.STOP, OperationKind.DELETE, OperationKind.REAP}

    @property
    def gives_way(self) -> bool:
        """Whether any verb that a user requests replaces it."""
        return self is OperationKind.FOLLOW


class Outcome(StrEnum):
    """How an operation ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """The known outcome of one create call.

    `SENT` and `UNKNOWN` are settled by a listing, never by a second call. `SENT` is written before
    the call is sent, so it survives a crash; `UNKNOWN` means that the call ended without an answer
    that shows its outcome.
    """

    SENT = "sent"
    UNKNOWN = "unknown"
    BOUGHT = "bought"
    REFUSED = "refused"
    NOT_SENT = "not_sent"
    ABSENT = "absent"
    SURPLUS = "surplus"

    @property
    def settled(self) -> bool:
        """Whether the outcome is known."""
        return self not in {AttemptState.SENT, AttemptState.UNKNOWN}

    @property
    def may_have_bought(self) -> bool:
        """Whether the call may have bought an instance, judged by its own answer only."""
        return self not in {AttemptState.REFUSED, AttemptState.NOT_SENT}


@dataclass(frozen=True, slots=True)
class Operation:
    """A verb in progress: a small state machine, one step at a time. Times in Unix milliseconds.

    `token` is the fence: each claim raises it, and a write with an old token changes nothing.
    `wake` counts nudges, so that a nudge during a step is not lost. `actor` began it; None for
    operations from before actors were stored.
    """

    id: str
    kind: OperationKind
    instance_id: str | None
    phase: str
    created_at: int
    updated_at: int
    token: int = 0
    wake: int = 0
    attempts: int = 0
    done: bool = False
    outcome: Outcome | None = None
    lease_until: int | None = None
    deadline_at: int | None = None
    next_step_at: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    progress: Progress = field(default_factory=Progress)
    actor: Actor | None = None

    @classmethod
    def begin(
        cls,
        operation_id: str,
        kind: OperationKind,
        instance_id: str | None,
        phase: str,
        now: int,
        *,
        actor: Actor,
        deadline_at: int | None = None,
        progress: Progress | None = None,
    ) -> Operation:
        """Return a new operation that is due at once.

        Args:
            operation_id: A new ID.
            kind: The verb.
            instance_id: The instance it acts on; None for `SYNC`.
            phase: The verb's first phase.
            now: Unix milliseconds.
            actor: Who begins it.
            deadline_at: Unix milliseconds by which it must have ended, if the verb has a deadline.
            progress: Its initial progress.
        """
        return cls(
            id=operation_id,
            kind=kind,
            instance_id=instance_id,
            phase=phase,
            created_at=now,
            updated_at=now,
            deadline_at=deadline_at,
            next_step_at=now,
            progress=progress or Progress(),
            actor=actor,
        )

    @property
    def error(self) -> tuple[str, str] | None:
        """The code and the message of its error; None if it has none."""
        return None if self.error_code is None else (self.error_code, self.error_message or "")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One create call: stored before it is sent, updated with its outcome.

    Attributes:
        price: In Novita's unit, 1/100000 USD per GPU-hour.
        ended_at: When the request ended; None if unknown, as after a crash.
        reason: Novita's reason for a refusal.
        message: Novita's message for a refusal.
        unseen_count: How many complete listings since then did not show the instance.
        unseen_since: When the first of those listings began.
        key_digest: The digest of the upstream key of the call.
        clock_offset: Milliseconds by which Novita's clock was ahead of ours; None if unknown.
    """

    id: str
    operation_id: str
    instance_id: str
    upstream_name: str
    product_id: str
    cluster_id: str
    region: str
    price: int
    state: AttemptState
    created_at: int
    send_by: int
    ended_at: int | None = None
    upstream_id: str | None = None
    reason: str | None = None
    message: str | None = None
    unseen_count: int = 0
    unseen_since: int | None = None
    image: str = ""
    key_digest: str = ""
    clock_offset: int | None = None


def was_there_before(first_listed: int | None, began_at: int) -> bool:
    """Return whether an instance was listed before an attempt began, so it is of another origin.

    The name alone proves nothing: two instances can have the same name. Both times are Unix
    milliseconds.
    """
    return first_listed is not None and first_listed + LISTED_SLACK < began_at
