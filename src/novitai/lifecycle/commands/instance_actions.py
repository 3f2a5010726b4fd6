# SPDX-License-Identifier: Apache-2.0
"""Accept verbs for instances, each in one commit, or refuse them with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import orjson
from sqlalchemy import Connection

from novitai.domain.actor import AUTOSTOP, LIMITS, Actor
from novitai.domain.billing import Cost
from novitai.domain.event import EventType
from novitai.domain.instance import Instance
from novitai.domain.instance_details import InstanceDetails
from novitai.domain.operation import Operation, OperationKind
from novitai.domain.progress import Progress
from novitai.domain.verbs import Verdict, judge
from novitai.domain.view import view
from novitai.errors import Conflict, NotFound
from novitai.lifecycle.commands.idempotency import Transaction
from novitai.lifecycle.core import Core
from novitai.lifecycle.limits.reviews import LimitReviews
from novitai.lifecycle.money import admission, key_limits, ledger
from novitai.lifecycle.operations.create import CreatePhase
from novitai.lifecycle.operations.delete import DeleteVerb
from novitai.lifecycle.operations.follow_ups import FollowUps
from novitai.lifecycle.operations.start import StartVerb
from novitai.lifecycle.operations.stop import StopVerb
from novitai.lifecycle.queries.ready_views import observed_at, unknown
from novitai.store.queries import attempts, coordination, instances, operations

_FIRST_PHASE: Final[Mapping[OperationKind, str]] = {
    OperationKind.START: StartVerb.first_phase,
    OperationKind.RESTART: StartVerb.first_phase,
    OperationKind.STOP: StopVerb.first_phase,
    OperationKind.DELETE: DeleteVerb.first_phase,
}


_ENDING: Final = frozenset({OperationKind.STOP, OperationKind.DELETE})
_WHY_SKIPPED: Final[Mapping[Verdict, str]] = {
    Verdict.ALREADY: "ALREADY_STOPPED",
    Verdict.BUSY: "OPERATION_IN_PROGRESS",
    Verdict.NOT_NOW: "INVALID_STATE",
}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The result of a request for a verb.

    Attributes:
        instance: The instance after the request.
        operation: The operation that was begun or already runs for this verb; None if the instance
            already had the wanted status.
        running: The unfinished operation of the instance, if it already had the wanted status.
        seen_at: When the instance was last seen, in Unix milliseconds, if it already had the
            wanted status.
        cost: The costs of the instance, if it already had the wanted status.
    """

    instance: Instance
    operation: Operation | None
    running: Operation | None = None
    seen_at: int | None = None
    cost: Cost | None = None

    def view(self) -> InstanceDetails:
        """Return the instance as the API shows it."""
        return view(self.instance, self.operation or self.running, self.seen_at, self.cost)


@dataclass(frozen=True, slots=True)
class Skipped:
    """An instance that `stop-all` did not stop, and the reason."""

    instance_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class StopAll:
    """The result of `stop-all`."""

    accepted: tuple[Accepted, ...]
    skipped: tuple[Skipped, ...]


class InstanceActions:
    """Accepts verbs, cancels operations, and records the last use of instances."""

    def __init__(
        self,
        core: Core,
        follow_ups: FollowUps,
        limits: LimitReviews,
    ) -> None:
        self._database = core.database
        self._vault = core.vault
        self._clock = core.clock
        self._ids = core.ids
        self._jobs = core.jobs
        self._recorder = core.recorder
        self._follow_ups = follow_ups
        self._limits = limits

    def ask(
        self, kind: OperationKind, instance_id: str, *, actor: Actor, confirmed: bool = False
    ) -> Transaction[Accepted]:
        """Accept a verb that `actor` asks for an instance.

        If `confirmed`, its calls are sent even during a hold of the account.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
            Conflict: `INVALID_STATE`, `OPERATION_IN_PROGRESS`, `INSTANCE_RELEASED`,
                `INSTANCE_PROTECTED`, `LIMIT_REACHED`, `BUDGET_EXCEEDED`, `KEY_LIMIT_EXCEEDED`.
        """
        return partial(
            self._accept, kind=kind, instance_id=instance_id, actor=actor, confirmed=confirmed
        )

    def ask_by_name(self, kind: OperationKind, name: str, *, actor: Actor) -> Transaction[Accepted]:
        """Accept a verb for the only live instance with a name.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`: no live instance has the name.
            Conflict: `AMBIGUOUS_NAME`, with the IDs of its instances; or as for `ask`.
        """

        def accept(connection: Connection) -> Accepted:
            instance_id = _only_one_named(connection, name)
            return self._accept(connection, kind, instance_id, actor=actor)

        return accept

    def stop_all(self, *, actor: Actor) -> Transaction[StopAll]:
        """Accept a stop for every instance that can be stopped, in one commit."""
        return partial(self._accept_stop_all, actor=actor)

    def sync(self, *, actor: Actor) -> Transaction[str]:
        """Accept a sync of the account; the result is the operation's ID."""

        def accept(connection: Connection) -> str:
            waiting = operations.unfinished_of_kind(connection, OperationKind.SYNC)
            if waiting is not None and waiting.lease_until is None:
                return waiting.id  # it has not begun, so a second one would see no more
            operation = Operation.begin(
                self._ids.prefixed("op"),
                OperationKind.SYNC,
                None,
                "list",
                self._clock.now(),
                actor=actor,
            )
            operations.insert(connection, operation)
            self._jobs.nudge(connection, operation.kind.job, operation.id)
            return operation.id

        return accept

    def cancel(self, operation_id: str, *, actor: Actor) -> Transaction[Operation]:
        """Cancel an operation that has done nothing irreversible yet.

        Raises:
            NotFound: `OPERATION_NOT_FOUND`.
            Conflict: `INVALID_STATE`: it has ended, can no longer be cancelled, or is in a step.
        """
        return partial(self._cancel, operation_id=operation_id, actor=actor)

    def record_usage(self, instance_id: str, at: int | None) -> Transaction[None]:
        """Record when an instance was last used: at `at` (Unix milliseconds), or now.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
        """

        def write(connection: Connection) -> None:
            instance = _locked(connection, instance_id)
            used_at = self._clock.now() if at is None else at
            instances.update_columns(connection, instance.id, {"last_used_at": used_at})
            if instance.auto_stop is not None:
                used = instances.load_many(connection, [instance.id])[instance.id]
                self._limits.review(connection, used)

        return write

    async def credentials(self, instance_id: str) -> Mapping[str, object]:
        """Read the passwords and secret addresses of an instance, as last observed.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
        """

        def load(connection: Connection) -> bytes | None:
            if instances.load(connection, instance_id) is None:
                raise unknown(instance_id)
            return instances.load_credentials(connection, instance_id)

        sealed = await self._database.read(load)
        if sealed is None:
            return {}
        found: dict[str, object] = orjson.loads(self._vault.unseal("credentials", sealed))
        return {name: value for name, value in found.items() if value}

    def _accept(
        self,
        connection: Connection,
        kind: OperationKind,
        instance_id: str,
        *,
        actor: Actor,
        confirmed: bool = False,
    ) -> Accepted:
        instance = _locked(connection, instance_id)
        running = operations.running(connection, instance_id)
        verdict = judge(kind, instance, running)
        if verdict is Verdict.RELEASED:
            raise Conflict(
                f"Instance '{instance.id}' was released and is no longer managed",
                code="INSTANCE_RELEASED",
            )
        if instance.ended_by_absence and verdict is Verdict.GO:
            verdict = self._reopen(connection, instance)
        if verdict is Verdict.ALREADY:
            seen_at = observed_at(instance, coordination.listed_at(connection))
            cost = ledger.costs_of(connection, [instance])[instance.id]
            return Accepted(instance, None, running, seen_at, cost)
        if verdict is Verdict.UNDER_WAY:
            running = _joined(connection, running, actor)
            if confirmed and running is not None:
                progress = replace(running.progress, confirmed=True)
                operations.write_progress(connection, running.id, progress)
                operations.wake(connection, [running.id], now=self._clock.now())
                self._jobs.nudge(connection, running.kind.job, running.id)
            return Accepted(instance, running)
        if verdict is Verdict.BUSY and running is not None:
            raise Conflict(
                f"Instance '{instance.id}' is busy: a {running.kind.value} is running",
                code="OPERATION_IN_PROGRESS",
                details={"operationId": running.id, "kind": running.kind.value},
            )
        if verdict is Verdict.GO and kind is OperationKind.DELETE and instance.protected:
            raise _is_protected(instance)
        if verdict is Verdict.GO and kind is OperationKind.START:
            self._limits.insist_on_funds(connection, instance)
            key_limits.insist_on_price(instance)
        if verdict is not Verdict.GO:
            raise Conflict(
                f"Instance '{instance.id}' is {instance.status.value}: "
                f"{kind.value} is not possible",
                details={"status": instance.status.value},
            )
        if kind is OperationKind.START:
            wanted = admission.wanted_by(instance)
            admission.admit(connection, instance, wanted, self._clock.now())
        if running is not None:
            self._end(connection, instance, running, actor)
        return self._begin(connection, kind, [instance], actor, confirmed=confirmed)[0]

    @staticmethod
    def _reopen(connection: Connection, instance: Instance) -> Verdict:
        """Reopen a record that ended because its instance was absent, so that it can be deleted.

        If another record now owns the upstream instance, there is nothing to delete.
        """
        if instances.owner_of(connection, instance.upstream_id or "") is not None:
            return Verdict.ALREADY
        columns = {"terminated_at": None, **instances.NOT_MISSING}
        instances.update_columns(connection, instance.id, columns)
        return Verdict.GO

    def _begin(
        self,
        connection: Connection,
        kind: OperationKind,
        chosen: Sequence[Instance],
        actor: Actor,
        *,
        confirmed: bool = False,
    ) -> list[Accepted]:
        """Begin an operation on each of the chosen instances; none of them has one running."""
        ids = [instance.id for instance in chosen]
        now = self._clock.now()
        begun = {
            instance.id: Operation.begin(
                self._ids.prefixed("op"),
                kind,
                instance.id,
                _FIRST_PHASE[kind],
                now,
                actor=actor,
                progress=Progress.begun(instance, confirmed=confirmed),
            )
            for instance in chosen
        }
        operations.insert(connection, *begun.values())
        changes: dict[str, object] = {"updated_at": self._clock.now()}
        if kind is not OperationKind.DELETE:
            changes |= {"failed": False, **instances.NO_ERROR}
        instances.update_columns_of(connection, ids, changes)
        for operation in begun.values():
            self._jobs.nudge(connection, kind.job, operation.id)
        ended = [instance.id for instance in chosen if instance.status.ended]
        recorder = self._recorder.by(actor)
        for one in ended:
            recorder.revive(connection, one)
        now_so = recorder.refresh_statuses(connection, ids)
        for instance in list(now_so.values()):
            if kind is OperationKind.START:
                now_so[instance.id] = self._limits.started(connection, instance)
            elif kind in _ENDING and instance.stop_reason is not None:
                now_so[instance.id] = self._limits.overruled(connection, instance)
        return [Accepted(now_so[one], begun[one]) for one in ids]

    def _end(
        self,
        connection: Connection,
        instance: Instance,
        running: Operation,
        actor: Actor,
        *,
        only_if_idle: bool = False,
    ) -> bool:
        now = self._clock.now()
        ended = operations.cancel(connection, running, now=now, only_if_idle=only_if_idle)
        if not ended or running.kind.gives_way:
            return ended
        self._recorder.by(actor).append(
            connection,
            instance,
            None,
            EventType.OPERATION_CANCELLED,
            also={"cancelled": {"id": running.id, "kind": running.kind.value}},
        )
        return True

    def _accept_stop_all(self, connection: Connection, actor: Actor) -> StopAll:
        """Judge every live instance as `_accept` does, and begin all stops together."""
        ids = instances.live_ids(connection)
        live = instances.lock_many(connection, ids)
        running = operations.running_of(connection, ids)
        chosen: list[Instance] = []
        accepted: list[Accepted] = []
        skipped: list[Skipped] = []
        for instance in live.values():
            under_way = running.get(instance.id)
            verdict = judge(OperationKind.STOP, instance, under_way)
            if verdict is Verdict.GO:
                if under_way is not None:
                    self._end(connection, instance, under_way, actor)
                chosen.append(instance)
            elif verdict is Verdict.UNDER_WAY:
                accepted.append(Accepted(instance, _joined(connection, under_way, actor)))
            else:
                skipped.append(Skipped(instance.id, _WHY_SKIPPED[verdict]))
        if chosen:
            accepted += self._begin(connection, OperationKind.STOP, chosen, actor)
        return StopAll(tuple(accepted), tuple(skipped))

    def _cancel(self, connection: Connection, operation_id: str, actor: Actor) -> Operation:
        operation = operations.load(connection, operation_id)
        if operation is None:
            raise NotFound(f"Operation '{operation_id}' not found", code="OPERATION_NOT_FOUND")
        if operation.instance_id is not None:
            instance = _locked(connection, operation.instance_id)
            operation = operations.load(connection, operation_id) or operation
        if operation.instance_id is None or not self._can_cancel(connection, operation):
            raise Conflict(
                f"Operation '{operation_id}' can no longer be cancelled",
                details={"phase": operation.phase, "done": operation.done},
            )
        if not self._end(connection, instance, operation, actor, only_if_idle=True):
            raise Conflict(
                f"Operation '{operation_id}' cannot be cancelled now: a step of it is running",
                details={"phase": operation.phase, "done": operation.done},
            )
        changes = operation.progress.previous_columns()
        if operation.kind is OperationKind.CREATE:
            changes = {"terminated_at": self._clock.now()}
        if changes:
            instances.update_columns(connection, instance.id, changes)
        cancelled = self._recorder.by(actor).refresh_status(connection, instance.id)
        self._follow_ups.ensure(connection, cancelled)
        return operations.load(connection, operation_id) or operation

    def _can_cancel(self, connection: Connection, operation: Operation) -> bool:
        """Whether no call has been sent to Novita and no worker holds a lease to send one."""
        held = (operation.lease_until or 0) > self._clock.now()
        ours = {OperationKind.REAP, OperationKind.FOLLOW, OperationKind.DELETE}
        if operation.done or held or operation.kind in ours:
            return False
        if operation.kind is OperationKind.CREATE:
            known = attempts.of_instance(connection, operation.instance_id or "")
            return operation.phase == CreatePhase.PLACE and all(
                attempt.state.settled and attempt.upstream_id is None for attempt in known
            )
        call = operation.progress.call
        return call.asked_at is None and not call.unsure


def _joined(connection: Connection, running: Operation | None, actor: Actor) -> Operation | None:
    """Return the running operation that an actor wants too.

    One that a limit began becomes the actor's, so that the limit no longer withdraws it.
    """
    if running is None or running.actor not in {LIMITS, AUTOSTOP}:
        return running
    operations.write_actor(connection, running.id, actor)
    return replace(running, actor=actor)


def _is_protected(instance: Instance) -> Conflict:
    return Conflict(
        f"Instance '{instance.id}' is protected: {instance.protected_reason}",
        code="INSTANCE_PROTECTED",
        details={"reason": instance.protected_reason},
    )


def _locked(connection: Connection, instance_id: str) -> Instance:
    instance = instances.lock(connection, instance_id)
    if instance is None:
        raise unknown(instance_id)
    return instance


def _only_one_named(connection: Connection, name: str) -> str:
    wanted = instances.Filter(name=name)
    found = instances.page(connection, wanted, after=None, limit=100)
    if not found:
        raise NotFound(f"No live instance is named '{name}'", code="INSTANCE_NOT_FOUND")
    if len(found) > 1:
        raise Conflict(
            f"{len(found)} live instances are named '{name}': use an ID",
            code="AMBIGUOUS_NAME",
            details={"instanceIds": [one.id for one in found]},
        )
    return found[0].id
