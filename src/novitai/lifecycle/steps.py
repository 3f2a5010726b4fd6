# SPDX-License-Identifier: Apache-2.0
"""How an operation moves: claim it, take one step, apply the result, say when to look again.

Load → act → apply. Network calls happen between two transactions; the second names the token that
the first was given, so that a worker which lost its lease changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.event import EventType
from novitai.domain.instance import Instance
from novitai.domain.operation import Attempt, Operation, OperationKind, Outcome
from novitai.ids import Ids
from novitai.jobs.port import JobEngine
from novitai.jobs.waiting import keeping
from novitai.lifecycle.following import Follower
from novitai.lifecycle.recording import Recorder
from novitai.store import attempts, coordination, instances, operations
from novitai.store.database import Database
from novitai.store.errors import StoreError
from novitai.store.operations import Fenced
from novitai.upstream.errors import (
    BreakerOpen,
    KeyRefused,
    RateLimited,
    UpstreamError,
    may_have_worked,
)

LEASE_SECONDS: Final = 15.0
_RENEW_AFTER: Final = LEASE_SECONDS / 3
_RENEW_AGAIN_AFTER: Final = 1.0
_KEY_REFUSED_PAUSE: Final = 30.0
_LONGEST_PAUSE: Final = 60.0

_log = structlog.get_logger("novitai.lifecycle")


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a step works on: rows as they were when the operation was claimed.

    `listed_at` is when the last complete listing of the account began, in Unix milliseconds.
    """

    operation: Operation
    instance: Instance
    attempts: tuple[Attempt, ...]
    listed_at: int | None = None

    @property
    def seen_since_acted(self) -> bool:
        """Whether what was observed is of after our last call, and not of before.

        Either the row changed in a listing since then, or a complete one held it as it was.
        """
        observed = self.instance.observed
        seen_at = observed.at or 0
        if not observed.missing_count:
            seen_at = max(seen_at, self.listed_at or 0)
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
    """The operation goes on: in `phase`, at `at` (Unix milliseconds) or when something wakes it.

    `changes` are columns of the instance that operations own; `memory` replaces the operation's;
    `attempts` is how often upstream has been asked, where the step asked; `adopts` is the attempt
    whose purchase the changes adopt, which they do only while it is the one that counts.
    """

    phase: str
    at: int
    changes: Mapping[str, object] = field(default_factory=dict)
    memory: Mapping[str, object] = field(default_factory=dict)
    error: tuple[str, str] | None = None
    announcements: tuple[Announcement, ...] = ()
    attempts: int | None = None
    adopts: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The operation has ended; `follow` is the operation that takes over in the same commit.

    `settled_upstream` says that upstream itself gave the result: news cannot make it another.
    """

    outcome: Outcome
    changes: Mapping[str, object] = field(default_factory=dict)
    error: tuple[str, str] | None = None
    announcements: tuple[Announcement, ...] = ()
    also: Mapping[str, object] = field(default_factory=dict)
    follow: Operation | None = None
    settled_upstream: bool = False


Step = Again | Done


def first_tried(operation: Operation, now: int) -> int:
    """Tell when its call was first made, or first could not be, in Unix milliseconds.

    Deadlines count from then: a thousand that wait their turn are not late. `now` if it is first.
    """
    at = operation.memory.get("tried_at")
    return at if isinstance(at, int) else now


class Verb(Protocol):
    """One kind of operation. Adding a verb is one class of this shape and one route."""

    kind: OperationKind

    async def step(self, claimed: Claimed) -> Step:
        """Take one step: look, call upstream if need be, and say what came of it.

        An `UpstreamError` that is raised means: nothing came of it, try the same step later.
        """
        ...


class Runner:
    """Takes steps for the job engine; the same for every verb."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ids: Ids,
        jobs: JobEngine,
        recorder: Recorder,
        follower: Follower,
    ) -> None:
        self._database = database
        self._clock = clock
        self._ids = ids
        self._jobs = jobs
        self._recorder = recorder
        self._follower = follower
        self.fenced_writes = 0

    def register(self, verb: Verb, *, concurrency: int) -> None:
        """Have the job engine bring this verb's operations here."""

        async def handle(operation_id: str) -> int | None:
            return await self.run(verb, operation_id)

        def due(connection: Connection, now: int, limit: int) -> list[str]:
            return operations.due(connection, verb.kind, now, limit)

        self._jobs.register(verb.kind.job, handle, due=due, concurrency=concurrency)

    async def run(self, verb: Verb, operation_id: str) -> int | None:
        """Take one step of an operation, if nobody else is at it.

        Returns:
            When to look again, in Unix milliseconds; None if it is done or somebody else's.
        """
        claimed = await self._database.write(
            lambda connection: self._claim(connection, operation_id)
        )
        if claimed is None:
            return None
        try:
            async with keeping(self._renew(claimed.operation)):
                step = await self._step(verb, claimed)
            return await self._database.write(
                lambda connection: self._apply(connection, claimed, step)
            )
        except Fenced:
            self.fenced_writes += 1
            _log.info("fenced", operation=operation_id, token=claimed.operation.token)
            return None
        except asyncio.CancelledError:
            await asyncio.shield(self._release(claimed.operation, 0))
            raise
        except Exception:  # the lease is given back, then it is raised on: the engine counts it
            with contextlib.suppress(StoreError):
                await self._release(claimed.operation, self._ids.jitter(5))
            raise

    def _claim(self, connection: Connection, operation_id: str) -> Claimed | None:
        now = self._clock.now()
        until = now + int(LEASE_SECONDS * 1000)
        operation = operations.claim(connection, operation_id, now=now, until=until)
        if operation is None:
            return None
        instance_id = operation.instance_id or ""
        # The listing first: a sync that commits in between must not make an old row look new.
        listed_at = coordination.listed_at(connection)
        instance = instances.load(connection, instance_id)
        if instance is None:
            raise LookupError(f"{operation_id} belongs to no instance that has a row")
        return Claimed(
            operation,
            instance,
            tuple(attempts.of_instance(connection, instance_id)),
            listed_at,
        )

    async def _step(self, verb: Verb, claimed: Claimed) -> Step:
        try:
            return await verb.step(claimed)
        except UpstreamError as error:
            return self._stumble(claimed, error)

    def _stumble(self, claimed: Claimed, error: UpstreamError) -> Again:
        """Stay where we are, and try again after a pause that doubles."""
        operation = claimed.operation
        count = operation.memory.get("stumbles", 0)
        stumbles = count + 1 if isinstance(count, int) else 1
        pause = min(_LONGEST_PAUSE, 0.5 * 2 ** min(stumbles, 10))
        if isinstance(error, BreakerOpen | RateLimited) and error.retry_after:
            pause = min(_LONGEST_PAUSE, error.retry_after)
        elif isinstance(error, KeyRefused):
            pause = _KEY_REFUSED_PAUSE
        _log.warning(
            "step stumbled",
            operation=operation.id,
            kind=operation.kind.value,
            phase=operation.phase,
            error=str(error),
            pause=round(pause, 1),
        )
        now = self._clock.now()
        return Again(
            phase=operation.phase,
            at=now + int(self._ids.jitter(pause) * 1000),
            memory={
                **operation.memory,
                "stumbles": stumbles,
                "tried_at": first_tried(operation, now),
                "unsure": operation.memory.get("unsure") is True or may_have_worked(error),
            },
            error=("UPSTREAM_UNAVAILABLE", str(error)),
        )

    def _apply(self, connection: Connection, claimed: Claimed, step: Step) -> int | None:
        now = self._clock.now()
        operation, instance_id = claimed.operation, claimed.instance.id
        instances.lock(connection, instance_id)
        if self._is_outdated(connection, claimed, step) or self._claims_another(
            connection, claimed, step
        ):
            step = Again(operation.phase, now, memory=operation.memory)
        due: int | None = None
        if isinstance(step, Done):
            operations.finish(
                connection, operation, outcome=step.outcome, now=now, error=step.error
            )
        else:
            due = operations.apply(
                connection,
                operation,
                phase=step.phase,
                now=now,
                next_step_at=step.at,
                memory=step.memory,
                error=step.error,
                attempts=step.attempts,
            )
        if step.changes:
            instances.update_columns(connection, instance_id, {**step.changes, "updated_at": now})
        if isinstance(step, Done) and step.follow is not None:
            operations.insert(connection, step.follow)
            self._jobs.nudge(connection, step.follow.kind.job, step.follow.id)
        also = step.also if isinstance(step, Done) else {}
        instance = self._recorder.settle(connection, instance_id, also=also)
        self._follower.ensure(connection, instance)
        for announcement in step.announcements:
            self._recorder.append(
                connection,
                instance,
                None if isinstance(step, Done) else operation,
                announcement.type,
                also=announcement.data,
            )
        return due

    def _is_outdated(self, connection: Connection, claimed: Claimed, step: Step) -> bool:
        """Whether what a result rests on has changed while the step ran: then it is taken anew."""
        if isinstance(step, Done):
            return not step.settled_upstream and self._has_news(connection, claimed)
        if step.adopts is None:
            return False
        return attempts.winner(connection, claimed.instance.id) != step.adopts

    @staticmethod
    def _has_news(connection: Connection, claimed: Claimed) -> bool:
        """Whether upstream, or what was learnt of a purchase, says something else by now."""
        instance = instances.load(connection, claimed.instance.id)
        if instance is None:
            return True
        known = [(one.id, one.state) for one in claimed.attempts]
        now = [(one.id, one.state) for one in attempts.of_instance(connection, instance.id)]
        return now != known or _said(instance) != _said(claimed.instance)

    @staticmethod
    def _claims_another(connection: Connection, claimed: Claimed, step: Step) -> bool:
        """Whether a purchase was answered with the id of another record's instance.

        That cannot be true: it is unlearnt, and listing for the marker has to tell.
        """
        upstream_id = step.changes.get("upstream_id")
        if not isinstance(upstream_id, str):
            return False
        owner = instances.owner_of(connection, upstream_id)
        if owner in {None, claimed.instance.id}:
            return False
        _log.error("an id that is taken", operation=claimed.operation.id, owner=owner)
        attempts.doubt(connection, claimed.instance.id, upstream_id)
        return True

    async def _release(self, operation: Operation, pause: float) -> None:
        at = self._clock.now() + int(pause * 1000)
        await self._database.write(
            lambda connection: operations.release(connection, operation, next_step_at=at)
        )

    async def _renew(self, operation: Operation) -> None:
        """Keep the lease while a step takes long."""
        pause = _RENEW_AFTER
        while True:
            await self._clock.sleep(pause)
            until = self._clock.now() + int(LEASE_SECONDS * 1000)

            def extend(connection: Connection, until: int = until) -> None:
                operations.hold(connection, operation, lease_until=until)

            try:
                await self._database.write(extend)
                pause = _RENEW_AFTER
            except StoreError:
                pause = _RENEW_AGAIN_AFTER  # one hiccup must not cost the lease


def _said(instance: Instance) -> tuple[object, ...]:
    """Tell what upstream said of an instance, as far as results rest on it."""
    seen = instance.observed
    listed = not seen.missing_count
    return seen.status, seen.error, seen.gone, listed, seen.port_mappings
