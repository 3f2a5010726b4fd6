# SPDX-License-Identifier: Apache-2.0
"""What a verb is given and what it returns: one claimed operation, and the result of one step."""

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

LEASE_SECONDS: Final = 15.0
LEASE_MS: Final = int(LEASE_SECONDS * 1000)
"""How long a claim lasts unless it is renewed."""
IDENTITY_UNCONFIRMED: Final = "IDENTITY_UNCONFIRMED"
"""The error of an operation that waits until the upstream id is known to be the record's own."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a step works on: rows as they were when the operation was claimed.

    Attributes:
        operation: The operation, with the token of this claim.
        instance: Its instance.
        attempts: The instance's attempts, oldest first.
        looked: When the account was last listed.
        account: What is remembered of the account.
        window: Until when write calls may leave: as long as the claim lasts.
    """

    operation: Operation
    instance: Instance
    attempts: tuple[Attempt, ...]
    looked: Looked = field(default_factory=Looked)
    account: AccountState = field(default_factory=AccountState)
    window: SendWindow = field(default_factory=lambda: SendWindow(0, 0.0))

    def is_late(self, deadline: int, now: int) -> bool:
        """Whether a deadline has passed, and the account has been looked at since.

        After a downtime, an outage or a jump of the clock, what was observed before the deadline
        says nothing of what became of it. So the last listing must have begun after it.
        """
        return now >= deadline and (self.looked.whole_at or 0) > deadline

    @property
    def progress(self) -> Progress:
        """What the operation remembers."""
        return self.operation.progress

    @property
    def call(self) -> Call:
        """The calls that the operation has made."""
        return self.operation.progress.call

    def remembering(self, progress: Progress) -> Claimed:
        """Copy it with other progress, which a step then returns."""
        return replace(self, operation=replace(self.operation, progress=progress))

    @property
    def is_confirmed(self) -> bool:
        """Whether a person has said that its calls leave even while the account is held."""
        return self.operation.progress.confirmed

    @property
    def seen_since_acted(self) -> bool:
        """Whether what was observed is of after our last call, and not of before.

        Either the row changed in a listing since then, or a complete one held it as it was.
        """
        observed = self.instance.observed
        seen_at = observed.at or 0
        if not observed.missing_count:
            seen_at = max(seen_at, self.looked.complete_at or 0)
        return seen_at > (self.instance.acted_at or 0)

    @property
    def changed_since_acted(self) -> bool:
        """Whether a listing brought news of the row since our last call."""
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
        progress: What the operation remembers from now on; None keeps what it remembered.
        error: The code and message that the operation shows; None shows none.
        announcements: Events to append.
        attempts: How often upstream has been asked, if the step asked.
        adopts: The attempt whose purchase the changes adopt. They are dropped unless that attempt
            is still the one that counts.
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
        also: Facts to put beside the view into the event of a status that changes.
        next_operation: The operation that takes over in the same commit.
        decided_upstream: Whether upstream itself gave the result. Later news does not change it.
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
    """A call was not made: it is not known whether the upstream id is the record's own."""


class Verb(Protocol):
    """One kind of operation. A new verb is one class of this shape and one route."""

    kind: OperationKind

    async def step(self, claimed: Claimed) -> Step:
        """Take one step: look, call upstream if needed, and return the result.

        An `UpstreamError` that is raised means that nothing came of the step; the runner takes the
        same step again later.
        """
        ...
