# SPDX-License-Identifier: Apache-2.0
"""Run operations step by step: claim, run one step, apply the result, schedule the next step.

Network calls happen between two transactions. The second one is fenced by the token of the first,
so a worker that has lost its lease changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from novitai.crash_points import CrashPoint, reach
from novitai.domain.actor import AUTOSTOP, LIMITS
from novitai.domain.instance import Instance
from novitai.domain.operation import (
    AttemptState,
    Operation,
    OperationKind,
    was_there_before,
)
from novitai.jobs.waiting import keeping, within
from novitai.lifecycle.core import Core
from novitai.lifecycle.operations.follow_ups import FollowUps
from novitai.lifecycle.operations.late_calls import LateCalls
from novitai.lifecycle.operations.steps import (
    IDENTITY_UNCONFIRMED,
    LEASE_MS,
    LEASE_SECONDS,
    Again,
    Claimed,
    Done,
    IdentityUnconfirmed,
    Step,
    Verb,
)
from novitai.lifecycle.renewal import renew_every
from novitai.store.engine.errors import StoreError
from novitai.store.queries import account, attempts, coordination, instances, operations
from novitai.store.queries.leases import Fenced
from novitai.upstream.errors import (
    BreakerOpen,
    KeyRefused,
    RateLimited,
    UpstreamError,
    may_have_worked,
)
from novitai.upstream.window import SendWindow

ACCOUNT_HELD: Final = "ACCOUNT_HELD"
"""The error of an operation that waits because the account is on hold."""
_LOOK_FIRST: Final = 250
_LOOK_FIRST_WITHIN: Final = 60_000
"""Milliseconds after which a stop or a delete no longer waits for the first listing."""
_ENDS_BILLING: Final = frozenset({OperationKind.STOP, OperationKind.DELETE})
_NOT_LISTED: Final = ("UPSTREAM_UNAVAILABLE", "Novita has not listed the account yet")
_LOOK_WHILE_HELD: Final = 10_000
_CALLS_OF_A_STEP: Final = 10
"""The most calls one step makes in sequence: a placement reads clusters and products, each with
three tries, then makes the create call."""
_WAITING_SECONDS: Final = 60.0
"""Seconds added to the deadline of a step for waits, such as for the limiter."""
_OVERDUE_PAUSE: Final = 5.0
_RENEW_AFTER: Final = LEASE_SECONDS / 3
_RENEW_AGAIN_AFTER: Final = 1.0
_KEY_REFUSED_PAUSE: Final = 30.0
_LONGEST_PAUSE: Final = 60.0
_LONGEST_URGENT_PAUSE: Final = 10.0
"""The same for a stop that a limit demands."""

_log = structlog.get_logger(__name__)


class Runner:
    """Runs the steps of all verbs for the job engine."""

    def __init__(
        self,
        core: Core,
        follow_ups: FollowUps,
        late_calls: LateCalls,
        *,
        call_timeout: float = 15.0,
    ) -> None:
        # A step is cancelled at this deadline and retried later.
        self._step_seconds = _WAITING_SECONDS + _CALLS_OF_A_STEP * call_timeout
        self._late_calls = late_calls
        self._database = core.database
        self._clock = core.clock
        self._ids = core.ids
        self._jobs = core.jobs
        self._recorder = core.recorder
        self._follow_ups = follow_ups
        self._look_since = 0
        self._claims: dict[str, Claimed] = {}
        self.fenced_writes = 0

    def look_again(self) -> None:
        """Run no step before the next listing of the account.

        Call this when the process starts and after a clock jump.
        """
        self._look_since = self._clock.now()

    def hold_back(self) -> None:
        """Stop the write calls of running steps, because a hold has begun since their claim.

        Calls that a person has confirmed are still sent.
        """
        for claimed in self._claims.values():
            if not claimed.is_confirmed:
                claimed.window.closed = True

    def register(self, verb: Verb, *, concurrency: int) -> None:
        """Register a verb with the job engine, so that `run` gets its operations."""

        async def handle(operation_id: str) -> int | None:
            return await self.run(verb, operation_id)

        def due(connection: Connection, now: int, limit: int) -> list[str]:
            return operations.due(connection, verb.kind, now, limit)

        self._jobs.register(verb.kind.job, handle, due=due, concurrency=concurrency)

    async def run(self, verb: Verb, operation_id: str) -> int | None:
        """Run one step of an operation, if it can be claimed.

        Returns:
            When the next step is due, in Unix milliseconds; None if the operation has ended or
            another worker has claimed it.
        """
        claimed = await self._database.write(
            lambda connection: self._claim(connection, operation_id)
        )
        if claimed is None:
            return None
        self._claims[operation_id] = claimed
        kind = verb.kind.value
        reach(CrashPoint.STEP_CLAIMED, kind)
        try:
            try:
                async with (
                    keeping(self._renewing(claimed)),
                    within(self._step_seconds, self._clock),
                ):
                    step = self._held(claimed) or await self._step(verb, claimed)
            except TimeoutError:
                return await self._end_overdue(claimed.operation)
            reach(CrashPoint.STEP_DECIDED, kind)
            due = await self._database.write(
                lambda connection: self._apply(connection, claimed, step)
            )
            reach(CrashPoint.STEP_APPLIED, kind)
        except Fenced:
            self.fenced_writes += 1
            _log.info("fenced", operation=operation_id, token=claimed.operation.token)
            if claimed.window.sent:
                await self._note_late_call(verb, claimed)
            return None
        except asyncio.CancelledError:
            await asyncio.shield(self._release(claimed.operation, 0))
            raise
        except Exception:  # release the lease, then raise: the engine counts the failure
            with contextlib.suppress(StoreError):
                await self._release(claimed.operation, self._ids.jitter(5))
            raise
        else:
            return due
        finally:
            if self._claims.get(operation_id) is claimed:
                del self._claims[operation_id]

    def _claim(self, connection: Connection, operation_id: str) -> Claimed | None:
        now = self._clock.now()
        window = SendWindow.lasting(self._clock, LEASE_MS)
        until = now + LEASE_MS
        operation = operations.claim(connection, operation_id, now=now, until=until)
        if operation is None:
            return None
        instance_id = operation.instance_id or ""
        # Read the time of the listing before the row. If a sync commits in between, an old row must
        # not appear newer than it is.
        looked = coordination.looked(connection)
        instance = instances.load(connection, instance_id)
        if instance is None:
            raise LookupError(f"the instance of operation {operation_id} has no row")
        return Claimed(
            operation,
            instance,
            tuple(attempts.of_instance(connection, instance_id)),
            looked,
            account.load_state(connection),
            window,
        )

    def _held(self, claimed: Claimed) -> Again | None:
        """Return a postponement if no step may run now, else None.

        After a start of the process or a clock jump, the records may be outdated, so the account
        must be listed first. While the account is on hold, no call is made and no deadline expires.
        """
        operation, now = claimed.operation, self._clock.now()
        if (claimed.looked.whole_at or 0) < self._look_since:
            waited = now - self._look_since
            # If listings keep failing, a user must still be able to stop or delete an instance.
            # A limit acts only on what was seen after it fell due.
            by_limit = operation.actor in {LIMITS, AUTOSTOP}
            users = operation.kind in _ENDS_BILLING and not by_limit
            if not users or waited < _LOOK_FIRST_WITHIN:
                error = operation.error
                if waited >= _LOOK_FIRST_WITHIN:
                    error = error or _NOT_LISTED
                pause = min(_LOOK_WHILE_HELD, _LOOK_FIRST + max(0, waited) // 4)
                return Again(operation.phase, now + pause, error=error)
        if claimed.account.blocked and not claimed.is_confirmed:
            message = "The account is on hold: see GET /api/account"
            return Again(
                operation.phase,
                now + _LOOK_WHILE_HELD,
                progress=operation.progress.held_back(now),
                error=(ACCOUNT_HELD, message),
            )
        return None

    async def _note_late_call(self, verb: Verb, claimed: Claimed) -> None:
        """Record a call that was sent after its claim had ended, so its effect gets corrected."""
        instance_id = claimed.instance.id
        _log.warning(
            "late_call",
            instance_id=instance_id,
            upstream_id=claimed.instance.upstream_id,
            kind=verb.kind.value,
        )

        note = partial(self._late_calls.note, instance_id=instance_id, kind=verb.kind)
        reach(CrashPoint.LATE_CALL_NOTING, verb.kind.value)
        with contextlib.suppress(StoreError):
            await self._database.write(note)
        reach(CrashPoint.LATE_CALL_NOTED, verb.kind.value)

    async def _step(self, verb: Verb, claimed: Claimed) -> Step:
        try:
            return await verb.step(claimed)
        except UpstreamError as error:
            return self._stumble(claimed, error)
        except IdentityUnconfirmed:
            return self._wait_for_identity(claimed)

    def _wait_for_identity(self, claimed: Claimed) -> Again:
        """Wait until a listing or a person confirms which record the instance belongs to."""
        operation, now = claimed.operation, self._clock.now()
        message = "It is not confirmed yet that the upstream instance belongs to this record"
        return Again(
            operation.phase,
            now + _LOOK_WHILE_HELD,
            progress=operation.progress.held_back(now),
            error=(IDENTITY_UNCONFIRMED, message),
        )

    def _stumble(self, claimed: Claimed, error: UpstreamError) -> Again:
        """Stay in the phase and retry after an exponential back-off."""
        operation = claimed.operation
        call = operation.progress.call
        stumbles = call.stumbles + 1
        pause = min(_LONGEST_PAUSE, 0.5 * 2 ** min(stumbles, 10))
        if isinstance(error, BreakerOpen | RateLimited) and error.retry_after:
            pause = min(_LONGEST_PAUSE, error.retry_after)
        elif isinstance(error, KeyRefused):
            pause = _KEY_REFUSED_PAUSE
        if operation.progress.urgent:
            pause = min(pause, _LONGEST_URGENT_PAUSE)
        _log.warning(
            "step_stumbled",
            operation=operation.id,
            instance_id=claimed.instance.id,
            kind=operation.kind.value,
            phase=operation.phase,
            error=str(error),
            pause=round(pause, 1),
        )
        now = self._clock.now()
        return Again(
            phase=operation.phase,
            at=now + int(self._ids.jitter(pause) * 1000),
            progress=replace(
                operation.progress,
                call=replace(
                    call,
                    stumbles=stumbles,
                    tried_at=call.first_tried(now),
                    unsure=call.unsure or may_have_worked(error),
                ),
            ),
            error=("UPSTREAM_UNAVAILABLE", str(error)),
        )

    def _apply(self, connection: Connection, claimed: Claimed, step: Step) -> int | None:
        now = self._clock.now()
        operation, instance_id = claimed.operation, claimed.instance.id
        instances.lock(connection, instance_id)
        if self._is_outdated(connection, claimed, step) or self._claims_another(
            connection, claimed, step
        ):
            step = Again(operation.phase, now)
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
                progress=operation.progress if step.progress is None else step.progress,
                error=step.error,
                attempts=step.attempts,
            )
        if step.changes:
            instances.update_columns(connection, instance_id, {**step.changes, "updated_at": now})
        if isinstance(step, Done) and step.next_operation is not None:
            operations.insert(connection, step.next_operation)
            self._jobs.nudge(connection, step.next_operation.kind.job, step.next_operation.id)
        also = step.also if isinstance(step, Done) else {}
        recorder = self._recorder.by(operation.actor)
        instance = recorder.refresh_status(connection, instance_id, also=also)
        self._follow_ups.ensure(connection, instance)
        for announcement in step.announcements:
            recorder.append(
                connection,
                instance,
                None if isinstance(step, Done) else operation,
                announcement.type,
                also=announcement.data,
            )
        return due

    def _is_outdated(self, connection: Connection, claimed: Claimed, step: Step) -> bool:
        """Return whether the input of a step changed while it ran; then the step is repeated."""
        if isinstance(step, Done):
            return not step.decided_upstream and self._has_news(connection, claimed)
        if step.adopts is None:
            return False
        instance = instances.load(connection, claimed.instance.id)
        if instance is not None and instance.upstream_id is not None and not instance.unconfirmed:
            return True  # a person assigned another instance during the call
        return attempts.winner(connection, claimed.instance.id) != step.adopts

    @staticmethod
    def _has_news(connection: Connection, claimed: Claimed) -> bool:
        """Return whether the observed state or the attempts have changed since the claim."""
        instance = instances.load(connection, claimed.instance.id)
        if instance is None:
            return True
        known = [(one.id, one.state) for one in claimed.attempts]
        now = [(one.id, one.state) for one in attempts.of_instance(connection, instance.id)]
        return now != known or _said(instance) != _said(claimed.instance)

    @staticmethod
    def _claims_another(connection: Connection, claimed: Claimed, step: Step) -> bool:
        """Return whether a create call was answered with the ID of a foreign instance.

        The instance belongs to another record, or was listed before the attempt began. Then the ID
        is dropped from the attempt, and a listing settles it by the marker. An ID that a listing
        found by the marker is accepted even if it was listed before.
        """
        upstream_id = step.changes.get("upstream_id")
        if not isinstance(upstream_id, str):
            return False
        owner = instances.owner_of(connection, upstream_id)
        adopts = step.adopts if isinstance(step, Again) else None
        attempt = next((one for one in claimed.attempts if one.id == adopts), None)
        known = account.listed_of(connection, [upstream_id]).get(upstream_id)
        began_at = attempts.began_at(connection, adopts or "")
        before = (
            known is not None
            and began_at is not None
            and was_there_before(known.first_listed_at, began_at)
        )
        marked = attempt is not None and attempt.state is AttemptState.BOUGHT
        if owner in {None, claimed.instance.id} and (not before or marked):
            return False
        _log.warning(
            "identity_doubted",
            instance_id=claimed.instance.id,
            upstream_id=upstream_id,
            owner=owner,
        )
        attempts.doubt(connection, claimed.instance.id, upstream_id)
        return True

    async def _end_overdue(self, operation: Operation) -> int:
        """Release the lease of a step that was cancelled at its deadline."""
        _log.error(
            "step_overdue",
            operation=operation.id,
            kind=operation.kind.value,
            phase=operation.phase,
            seconds=self._step_seconds,
        )
        return await self._release(operation, self._ids.jitter(_OVERDUE_PAUSE))

    async def _release(self, operation: Operation, pause: float) -> int:
        at = self._clock.now() + int(pause * 1000)
        await self._database.write(
            lambda connection: operations.release(connection, operation, next_step_at=at)
        )
        return at

    def _renewing(self, claimed: Claimed) -> Coroutine[None, None, None]:
        renew = partial(self._renew, claimed)
        return renew_every(_RENEW_AFTER, renew, self._clock, retry_after=_RENEW_AGAIN_AFTER)

    async def _renew(self, claimed: Claimed) -> bool:
        """Renew the lease of a claim, and with it the window for its calls.

        Returns:
            False if the lease was released or another worker has claimed the operation.
        """
        operation, window = claimed.operation, SendWindow.lasting(self._clock, LEASE_MS)

        def extend(connection: Connection) -> bool | None:
            if not operations.renew(connection, operation, until=window.until):
                return None
            return account.load_state(connection).blocked

        blocked = await self._database.write(extend)
        if blocked is None:
            return False
        if blocked and not claimed.is_confirmed:
            claimed.window.closed = True
        claimed.window.until = window.until
        claimed.window.until_boottime = window.until_boottime
        return True


def _said(instance: Instance) -> tuple[object, ...]:
    """Return the observed fields that step results depend on."""
    seen = instance.observed
    listed = not seen.missing_count
    return seen.status, seen.error, seen.gone, listed, seen.port_mappings
