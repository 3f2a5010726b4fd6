# SPDX-License-Identifier: Apache-2.0
"""What an operation and an attempt are: a verb in progress, and one create call within it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from novitai.domain.progress import Progress

LISTED_SLACK: Final = 2_000
"""Milliseconds by which the order of two of our own times may be wrong after a clock jump."""


class OperationKind(StrEnum):
    """The verbs. The job type of each is `<kind>_instance` (`create_instance`, ...).

    Three are ours: `REAP` ends the billing of an instance that failed, `FOLLOW` sees through what
    was begun behind our back, `SYNC` is a listing that somebody asked for and has no instance.
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
        """The job type under which metrics and logs know this verb."""
        return "sync_requested" if self is OperationKind.SYNC else f"{self.value}_instance"

    @property
    def gives_way(self) -> bool:
        """Whether whatever a user asks for replaces it."""
        return self is OperationKind.FOLLOW


class Outcome(StrEnum):
    """How an operation ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """What is known of one create call.

    `SENT` and `UNKNOWN` are settled by listing, never by posting again. `SENT` is written before
    the call leaves, so a crash finds it; `UNKNOWN` when the call's end was seen and said nothing.
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
        """Whether it is known if something was bought."""
        return self not in {AttemptState.SENT, AttemptState.UNKNOWN}

    @property
    def may_have_bought(self) -> bool:
        """Whether the call may have bought something, as far as its own end tells."""
        return self not in {AttemptState.REFUSED, AttemptState.NOT_SENT}


@dataclass(frozen=True, slots=True)
class Operation:
    """A verb in progress: a small state machine, one step at a time. Times in Unix milliseconds.

    `token` fences: whoever claims the operation raises it, and a write with an old token changes
    nothing. `wake` counts nudges, so that one that comes while a step runs is not lost.
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

    @classmethod
    def begin(
        cls,
        operation_id: str,
        kind: OperationKind,
        instance_id: str | None,
        phase: str,
        now: int,
        *,
        deadline_at: int | None = None,
        progress: Progress | None = None,
    ) -> Operation:
        """Make a new operation that is due at once.

        Args:
            operation_id: A fresh id.
            kind: The verb.
            instance_id: The instance it acts on; None for a listing that somebody asked for.
            phase: The verb's first phase.
            now: Unix milliseconds.
            deadline_at: Unix milliseconds by which it must have ended, if the verb has a deadline.
            progress: What it remembers from the start.
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
        )

    @property
    def error(self) -> tuple[str, str] | None:
        """The code and the message of the error it shows; None where it shows none."""
        return None if self.error_code is None else (self.error_code, self.error_message or "")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One create call: written before it leaves, and what was learnt of it afterwards.

    `price` is Novita's unit, 1/100000 USD per GPU-hour. `ended_at` is when the request ended; not
    known after a crash. `unseen_count` counts the complete listings without it since then, the
    first of which began at `unseen_since`. `reason` and `message` are Novita's own, of a refusal.
    `key_digest` tells the upstream key it was sent with; `clock_offset` how many milliseconds
    upstream's clock was ahead of ours then, None where that was not known.
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
    """Tell whether an instance was listed before an attempt began, so the attempt did not make it.

    Its name proves nothing: anybody can give an instance the name of another. Both times are Unix
    milliseconds.
    """
    return first_listed is not None and first_listed + LISTED_SLACK < began_at
