# SPDX-License-Identifier: Apache-2.0
"""The verbs *start* and *restart*: make the call, then watch and probe until it is ready.

Ports, SSH port and password may change at each start (upstream.md §5.1), so observations from
before the call are ignored.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from sqlalchemy import Connection

from novitai.crash_points import CrashPoint, reach
from novitai.domain.event import EventType
from novitai.domain.operation import OperationKind, Outcome
from novitai.domain.status import is_gone
from novitai.lifecycle.core import Core
from novitai.lifecycle.operations.failure_policy import FailurePolicy
from novitai.lifecycle.operations.goals import (
    LOOK_SOON,
    READINESS_DEADLINE,
    Ask,
    GiveUp,
    TurnBack,
    Wait,
    last_detour,
    note_detours,
    note_moved,
    started,
)
from novitai.lifecycle.operations.startup import WATCH, StartupWatcher
from novitai.lifecycle.operations.steps import Again, Announcement, Claimed, Done, Step
from novitai.lifecycle.operations.upstream_call import Asked, WriteCall, ask, intend
from novitai.store.queries import instances, operations
from novitai.upstream import errors as upstream


class StartVerb:
    """Runs the steps of a start or a restart."""

    first_phase: ClassVar[str] = "ask"

    def __init__(
        self,
        core: Core,
        kind: OperationKind,
        call: WriteCall,
        startup: StartupWatcher,
        failure: FailurePolicy,
    ) -> None:
        self._database = core.database
        self.kind = kind
        self._call = call
        self._startup = startup
        self._clock = core.clock
        self._failure = failure

    async def step(self, claimed: Claimed) -> Step:
        """Make the call, or check the progress of the start."""
        if claimed.instance.upstream_id is None or is_gone(claimed.instance):
            return Done(Outcome.FAILED, error=("INSTANCE_GONE", "It no longer exists at Novita"))
        now = self._clock.now()
        if claimed.call.asked_at is not None and claimed.seen_since_acted:
            claimed = note_detours(note_moved(claimed), now)
        give_up_at = self._give_up_at(claimed, now)
        decision = started(claimed, now, kind=self.kind, give_up_at=give_up_at)
        match decision:
            case Wait(at):
                return Again(WATCH, at, progress=claimed.progress)
            case Ask():
                return await self._ask(claimed)
            case TurnBack():
                return self._turned_back(claimed, decision)
            case GiveUp(code, message):
                return self._failure.end(claimed.instance, code, message)
        look = await self._startup.probe(claimed, give_up_at=give_up_at)
        if isinstance(look, GiveUp):
            return self._failure.end(claimed.instance, look.code, look.message)
        return look

    async def _ask(self, claimed: Claimed) -> Step:
        intent = None
        if self.kind is OperationKind.RESTART:
            # A second restart would interrupt the instance that the first has just brought up.
            intent = intend(claimed, self._clock.now())
            reach(CrashPoint.INTENT_COMMITTING, self.kind.value)
            await self._database.write(partial(_commit, claimed=claimed, intent=intent))
            reach(CrashPoint.INTENT_COMMITTED, self.kind.value)
        try:
            asked = await ask(claimed, self._call, self._clock, intent=intent)
        except upstream.InsufficientResource as error:
            return self._turned_back(claimed, TurnBack("NO_CAPACITY", str(error), unchanged=True))
        except upstream.Refused as error:
            refusal = TurnBack("UPSTREAM_REFUSED", str(error), unchanged=True)
            return self._turned_back(claimed, refusal)
        return asked.then(WATCH, self._clock.now() + LOOK_SOON)

    def _turned_back(self, claimed: Claimed, refusal: TurnBack) -> Done:
        """Return to the previous status, and record the refusal as the instance's error."""
        previous = claimed.progress.previous
        ready_at = previous.ready_at if previous and refusal.unchanged else None
        code, message = refusal.code, refusal.message
        error = instances.error_columns(code, message, self._clock.now())
        return Done(
            Outcome.FAILED,
            changes={"ready_at": ready_at, **error},
            error=(code, message),
            decided_upstream=True,
            announcements=(
                Announcement(EventType.START_REFUSED, {"reason": code, "message": message}),
            ),
        )

    @staticmethod
    def _give_up_at(claimed: Claimed, now: int) -> int:
        since = claimed.call.first_tried(now)
        return max(since, last_detour(claimed.operation)) + READINESS_DEADLINE


def _commit(connection: Connection, claimed: Claimed, intent: Asked) -> None:
    """Store the intended call, if the claim still holds."""
    instances.lock(connection, claimed.instance.id)
    operations.commit_call(connection, claimed.operation, intent.progress)
    instances.update_columns(connection, claimed.instance.id, intent.changes)
