# SPDX-License-Identifier: Apache-2.0
"""The verbs *start* and *restart*: ask, then watch and probe until the instance serves.

Ports, SSH port and password may change at each start (upstream.md §5.1), so nothing that was
observed before the call counts.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

import orjson
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.event import EventType
from novitai.domain.operation import Operation, OperationKind, Outcome
from novitai.domain.status import Observation, is_gone, read_word
from novitai.lifecycle.operations.failure_policy import Failing, error_columns
from novitai.lifecycle.operations.runner import (
    Again,
    Announcement,
    Claimed,
    Done,
    Step,
    first_tried,
)
from novitai.lifecycle.operations.startup import (
    READINESS_DEADLINE,
    WATCH,
    Rising,
    TooLate,
    last_detour,
    noting_detours,
)
from novitai.lifecycle.operations.upstream_call import (
    LOOK_ANYWAY,
    LOOK_SOON,
    MAX_ASKS,
    Asked,
    WriteCall,
    as_before,
    ask,
    asked_at,
    asks,
    intend,
    is_unsure,
    without_effect,
)
from novitai.store.engine.database import Database
from novitai.store.queries import instances, operations
from novitai.upstream import errors as upstream

ASK: Final = "ask"


class StartVerb:
    """Takes the steps of a start or a restart, which differ in the call alone."""

    def __init__(
        self,
        database: Database,
        kind: OperationKind,
        call: WriteCall,
        rising: Rising,
        clock: Clock,
        failing: Failing,
    ) -> None:
        self._database = database
        self.kind = kind
        self._call = call
        self._rising = rising
        self._clock = clock
        self._failing = failing

    async def step(self, claimed: Claimed) -> Step:
        """Ask for it, or look how far it is."""
        instance, operation, now = claimed.instance, claimed.operation, self._clock.now()
        if instance.upstream_id is None or is_gone(instance):
            return Done(Outcome.FAILED, error=("INSTANCE_GONE", "It no longer exists at Novita"))
        if asked_at(operation) is None:
            return await self._ask(claimed)
        if not claimed.seen_since_acted:
            return self._wait(claimed)
        if instance.observed.error and instance.observed.error != operation.memory.get("told"):
            return self._failing.end(
                claimed.instance, "INSTANCE_FAILED", f"Novita reports: {instance.observed.error}"
            )
        claimed = noting_detours(_having_moved(claimed), now)
        if read_word(instance.observed.status) is Observation.EXITED:
            if not without_effect(claimed, now):
                return self._wait(claimed)
            if asks(operation) < MAX_ASKS:
                return await self._ask(claimed)
            return self._refused("START_FAILED", "It was asked to start and stayed stopped")
        if self.kind is OperationKind.RESTART and not _has_moved(claimed.operation):
            if not without_effect(claimed, now):
                return self._wait(claimed)  # the `running` that is listed may still be of before
            if is_unsure(operation):
                again = asks(operation) < MAX_ASKS
                return await self._ask(claimed) if again else self._not_taken(claimed)
        look = await self._rising.look(claimed, give_up_at=self._give_up_at(claimed))
        if isinstance(look, TooLate):
            return self._failing.end(claimed.instance, look.code, look.message)
        return look

    async def _ask(self, claimed: Claimed) -> Step:
        if claimed.is_late(self._give_up_at(claimed), self._clock.now()):
            return self._not_taken(claimed)
        intent = None
        if self.kind is OperationKind.RESTART:
            # A second restart would end what the first has just begun to serve.
            intent = intend(claimed, self._clock.now())
            await self._database.write(partial(_commit, claimed=claimed, intent=intent))
        try:
            asked = await ask(claimed, self._call, self._clock, intent=intent)
        except upstream.InsufficientResource as error:
            return self._refused("NO_CAPACITY", str(error), claimed)
        except upstream.Refused as error:
            return self._refused("UPSTREAM_REFUSED", str(error), claimed)
        return asked.then(WATCH, self._clock.now() + LOOK_SOON)

    def _wait(self, claimed: Claimed) -> Step:
        now, give_up_at = self._clock.now(), self._give_up_at(claimed)
        if claimed.is_late(give_up_at, now):
            if is_unsure(claimed.operation) and not _has_moved(claimed.operation):
                return self._not_taken(claimed)
            return self._failing.end(
                claimed.instance, "READINESS_TIMEOUT", "It was not seen running in time"
            )
        pause = LOOK_ANYWAY if claimed.seen_since_acted else LOOK_SOON
        at = now + LOOK_SOON if now >= give_up_at else min(give_up_at, now + pause)
        return Again(WATCH, at, memory=claimed.operation.memory)

    def _not_taken(self, claimed: Claimed) -> Done:
        message = "Novita did not take the call in time"
        return self._refused("UPSTREAM_UNAVAILABLE", message, claimed)

    def _refused(self, code: str, message: str, claimed: Claimed | None = None) -> Done:
        """Go back to where it was: nothing was lost, and the reason stands beside it.

        With `claimed`, nothing has changed since it was asked: what was ready still is.
        """
        ready = as_before(claimed.operation).get("ready_at") if claimed else None
        return Done(
            Outcome.FAILED,
            changes={"ready_at": ready, **error_columns(code, message, self._clock.now())},
            error=(code, message),
            settled_upstream=True,
            announcements=(
                Announcement(EventType.START_REFUSED, {"reason": code, "message": message}),
            ),
        )

    def _give_up_at(self, claimed: Claimed) -> int:
        since = first_tried(claimed.operation, self._clock.now())
        return max(since, last_detour(claimed.operation)) + READINESS_DEADLINE


def _commit(connection: Connection, claimed: Claimed, intent: Asked) -> None:
    """Write that a call is about to be made, if the operation is still ours."""
    instances.lock(connection, claimed.instance.id)
    operations.hold(
        connection,
        claimed.operation,
        attempts=intent.attempts,
        memory=orjson.dumps(intent.memory).decode(),
    )
    instances.update_columns(connection, claimed.instance.id, intent.changes)


def _having_moved(claimed: Claimed) -> Claimed:
    """Remember that the instance has been seen to do something else than run since the call.

    Where nothing is known of the call, any news of it counts: a restart may be over between two
    listings, and leave nothing but other ports.
    """
    operation = claimed.operation
    runs = read_word(claimed.instance.observed.status) is Observation.RUNNING
    if not claimed.changed_since_acted or (runs and not is_unsure(operation)):
        return claimed
    return replace(
        claimed, operation=replace(operation, memory={**operation.memory, "moved": True})
    )


def _has_moved(operation: Operation) -> bool:
    return operation.memory.get("moved") is True
