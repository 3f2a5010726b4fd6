# SPDX-License-Identifier: Apache-2.0
"""The interface of verbs: the claimed operation they get, and the step result they return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from novitai.domain.account import AccountState
from novitai.domain.event import EventType
from novitai.domain.instance import Instance
from novitai.domain.operation import Attempt, Operation, OperationKind, Outcome
from novitai.domain.progress import Call, Progress
from novitai.errors import NovitaiError
from novitai.store.queries.coordination import Looked
from novitai.upstream.window import SendWindow

LEASE_SECONDS: Final = 8.0
LEASE_MS: Final = int(LEASE_SECONDS * 1000)
"""How long a lease lasts unless it is renewed: with a sweep after it, the work of a process that
died goes on within ten seconds."""
IDENTITY_UNCONFIRMED: Final = "IDENTITY_UNCONFIRMED"
"""The error of an operation that waits until its record's upstream ID is confirmed."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The input of a step: the rows as of the claim of the operation.

    Attributes:
        operation: The operation, with the token of this claim.
        instance: Its instance.
        attempts: The instance's attempts, oldest first.
        looked: When the account was last listed.
        account: The stored state of the account.
        window: Limits write calls to the time of the lease.
    """

    operation: Operation
    instance: Instance
    attempts: tuple[Attempt, ...]
    looked: Looked = field(default_factory=Looked)
    account: AccountState = field(default_factory=AccountState)
    window: SendWindow = field(default_factory=lambda: SendWindow(0, 0.0))

    def is_late(self, deadline: int, now: int) -> bool:
        """Return whether a deadline has passed and the account was listed after it.

        After a downtime, an outage or a clock jump, older observations do not show whether the goal
        was reached in time. So the last listing must have begun after the deadline.
        """
        return now >= deadline and (self.looked.whole_at or 0) > deadline

    @property
    def progress(self) -> Progress:
        """The operation's progress."""
        return self.operation.progress

    @property
    def call(self) -> Call:
        """The calls the operation has made."""
        return self.operation.progress.call

    def remembering(self, progress: Progress) -> Claimed:
        """Return a copy with other progress."""
        return replace(self, operation=replace(self.operation, progress=progress))

    @property
    def is_confirmed(self) -> bool:
        """Whether a person has confirmed that its calls are sent even during a hold."""
        return self.operation.progress.confirmed

    @property
    def seen_since_acted(self) -> bool:
        """Whether the observed state is newer than our last call.

        Either a listing since then changed the row, or a complete listing since then confirmed it.
        """
        observed = self.instance.observed
        seen_at = observed.at or 0
        if not observed.missing_count:
            seen_at = max(seen_at, self.looked.complete_at or 0)
        return seen_at > (self.instance.acted_at or 0)

    @property
    def changed_since_acted(self) -> bool:
        """Whether a listing has changed the row since our last call."""
        return (self.instance.observed.at or 0) > (self.instance.acted_at or 0)


@dataclass(frozen=True, slots=True)
class Announcement:
    """An event to append with the result of a step."""

    type: EventType
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Again:
    """The operation goes on.

    Attributes:
        phase: The phase it is in from now on.
        at: When to take the next step, in Unix milliseconds, unless something wakes it earlier.
        changes: Columns of the instance that operations own.
        progress: The new progress; None leaves it unchanged.
        error: The code and message of the operation's error; None if it has none.
        announcements: Events to append.
        attempts: How many times the call has been made, if the step made it.
        adopts: The ID of the attempt whose purchase `changes` assigns to the instance. The result
            is dropped unless that attempt is still the winner.
    """

    phase: str
    at: int
    changes: Mapping[str, object] = field(default_factory=dict)
    progress: Progress | None = None
    error: tuple[str, str] | None = None
    announcements: tuple[Announcement, ...] = ()
    attempts: int | None = None
    adopts: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The operation has ended.

    Attributes:
        outcome: How it ended.
        changes: Columns of the instance that operations own.
        error: The code and message of a failure.
        announcements: Events to append.
        also: Fields to add to the view in the event of a status change.
        next_operation: The next operation, stored in the same commit.
        decided_upstream: Whether the result is an answer of Novita, which later observations do not
            change.
    """

    outcome: Outcome
    changes: Mapping[str, object] = field(default_factory=dict)
    error: tuple[str, str] | None = None
    announcements: tuple[Announcement, ...] = ()
    also: Mapping[str, object] = field(default_factory=dict)
    next_operation: Operation | None = None
    decided_upstream: bool = False


Step = Again | Done


class IdentityUnconfirmed(NovitaiError):
    """A call was not made, because the upstream ID is not confirmed to belong to the record."""


class Verb(Protocol):
    """One kind of operation. CONTRIBUTING.md lists the steps that add a verb."""

    kind: OperationKind

    async def step(self, claimed: Claimed) -> Step:
        """Run one step: decide, call Novita if needed, and return the result.

        If the step raises `UpstreamError`, it had no result; the runner retries it later.
        """
        ...
