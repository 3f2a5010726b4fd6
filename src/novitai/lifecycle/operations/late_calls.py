# SPDX-License-Identifier: Apache-2.0
"""Late calls: write calls sent after their claim had ended, and the correction of their effects.

Between the last check and the sending, a worker can stall. If its start call is sent after the user
has stopped the instance, the instance runs and bills again. The worker detects this when its result
is fenced, and records the late call here. When a listing shows the effect, the opposite verb is
begun, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection

from novitai.domain.actor import CORRECTION
from novitai.domain.event import EventType
from novitai.domain.instance import Instance
from novitai.domain.operation import Operation, OperationKind
from novitai.domain.status import Observation, read_word
from novitai.lifecycle.core import Core
from novitai.lifecycle.operations.start import StartVerb
from novitai.lifecycle.operations.stop import StopVerb
from novitai.store.queries import instances, operations

EFFECT_WITHIN: Final = 900_000
"""Milliseconds after a late call within which an observed status may be its effect."""
_UP: Final = frozenset({Observation.RUNNING, Observation.STARTING, Observation.PULLING})
_DOWN: Final = frozenset({Observation.STOPPING, Observation.EXITED})
_STARTS: Final = frozenset({OperationKind.START, OperationKind.RESTART})
_STOPS: Final = frozenset({OperationKind.STOP, OperationKind.REAP})
_WANT_RUNNING: Final = frozenset({OperationKind.CREATE, OperationKind.START, OperationKind.RESTART})


class LateCalls:
    """Records late calls and corrects their effects."""

    def __init__(self, core: Core) -> None:
        self._clock = core.clock
        self._ids = core.ids
        self._jobs = core.jobs
        self._recorder = core.recorder.by(CORRECTION)

    def note(self, connection: Connection, instance_id: str, kind: OperationKind) -> None:
        """Record a late call, and correct its effect if that has already been observed.

        Args:
            connection: A write transaction.
            instance_id: The instance of the call.
            kind: The kind of the operation that made it.
        """
        instance = instances.lock(connection, instance_id)
        if instance is None or instance.status.ended:
            return
        columns = {"late_call": kind.value, "late_call_at": self._clock.now()}
        instances.update_columns(connection, instance_id, columns)
        self.put_right(connection, instance)

    def put_right(self, connection: Connection, instance: Instance) -> bool:
        """Begin the opposite verb of a late call, if the last observation shows its effect.

        The caller holds the instance's lock. The desired state is the result of the last operation
        that succeeded.

        Returns:
            Whether an operation was begun.
        """
        late = instances.late_call(connection, instance.id)
        if late is None:
            return False
        kind, at = OperationKind(late[0]), late[1]
        running = operations.running(connection, instance.id)
        if running is not None and not running.kind.gives_way:
            return False
        wanted = operations.last_succeeded(connection, instance.id)
        opposite = _opposite(kind, wanted, read_word(instance.observed.status))
        if self._clock.now() - at > EFFECT_WITHIN:
            instances.update_columns(connection, instance.id, _FORGOTTEN)
            return False
        if opposite is None:
            return False
        if opposite is OperationKind.START and instance.failed:
            # A failed instance is started only by a client's request.
            instances.update_columns(connection, instance.id, _FORGOTTEN)
            return False
        if running is not None:
            operations.cancel(connection, running, now=self._clock.now())
        self._begin(connection, instance, opposite)
        return True

    def _begin(self, connection: Connection, instance: Instance, kind: OperationKind) -> None:
        phase = StopVerb.first_phase if kind is OperationKind.STOP else StartVerb.first_phase
        operation = Operation.begin(
            self._ids.prefixed("op"),
            kind,
            instance.id,
            phase,
            self._clock.now(),
            actor=CORRECTION,
        )
        operations.insert(connection, operation)
        instances.update_columns(connection, instance.id, _FORGOTTEN)
        told = self._recorder.refresh_status(connection, instance.id)
        self._recorder.append(
            connection,
            told,
            operation,
            EventType.DRIFT,
            also={
                "drift": {"cause": "late_call", "to": instance.observed.status},
                "correction": kind.value,
            },
        )
        self._jobs.nudge(connection, kind.job, operation.id)


_FORGOTTEN: Final[Mapping[str, object]] = {"late_call": None, "late_call_at": None}


def _opposite(
    late: OperationKind, wanted: OperationKind | None, seen: Observation
) -> OperationKind | None:
    """Return the verb that undoes a late call; None if there is nothing to undo.

    A late delete cannot be undone.
    """
    if late in _STARTS and wanted is OperationKind.STOP and seen in _UP:
        return OperationKind.STOP
    if late in _STOPS and wanted in _WANT_RUNNING and seen in _DOWN:
        return OperationKind.START
    return None
