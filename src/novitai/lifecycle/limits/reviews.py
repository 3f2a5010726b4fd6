# SPDX-License-Identifier: Apache-2.0
"""Review the limits of instances: begin the stop or the deletion that a limit demands.

Every review is one transaction: it locks the instance, decides by `domain/limit_review.py`, and
stores when to look again in the row. So any living worker acts on a due row, after a crash too, and
two workers never act on the same one. Nothing here calls Novita; the verbs do the stopping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from novitai.domain.actor import AUTOSTOP, LIMITS, Actor
from novitai.domain.autostop import IdleFacts, IdleWatch, idle_since, watch_idle
from novitai.domain.billing import UNIT, usd_up
from novitai.domain.event import EventType
from novitai.domain.idle import AutoStop
from novitai.domain.instance import Instance, Observed
from novitai.domain.limit_review import (
    LEAD_SAMPLES,
    Review,
    Situation,
    last_shown,
    review,
    stop_lead,
    withdraws,
)
from novitai.domain.limits import (
    InheritedLimits,
    LimitAction,
    LimitMemory,
    LimitSettings,
    StopReason,
)
from novitai.domain.operation import Operation, OperationKind
from novitai.domain.product import usd
from novitai.domain.progress import Call, Progress
from novitai.domain.spending import Spending
from novitai.domain.status import Observation, read_word
from novitai.errors import Conflict
from novitai.lifecycle.core import Core
from novitai.lifecycle.money import key_limits
from novitai.lifecycle.operations.delete import DeleteVerb
from novitai.lifecycle.operations.follow_ups import FollowUps
from novitai.lifecycle.operations.stop import StopVerb
from novitai.store.engine.errors import StoreError
from novitai.store.queries import (
    account,
    autostop,
    billing,
    coordination,
    instances,
    limits,
    operations,
)
from novitai.store.queries.coordination import Looked

_log = structlog.get_logger(__name__)

JOB: Final = "review_limits"
CONCURRENCY: Final = 4
_STARTS: Final = frozenset({OperationKind.CREATE, OperationKind.START, OperationKind.RESTART})
_ARMING: Final = frozenset({OperationKind.CREATE, OperationKind.START})
"""The verbs that arm the limits of the run that they begin."""
_DELETES: Final = frozenset({OperationKind.DELETE, OperationKind.REAP})
_OURS: Final = frozenset({LIMITS, AUTOSTOP})
"""The actors of the verbs that limits begin."""
_OF_AUTOSTOP: Final = frozenset(
    {
        EventType.AUTOSTOP_WARNING,
        EventType.AUTOSTOP_FIRED,
        EventType.AUTOSTOP_FAILED,
        EventType.AUTOSTOP_SIGNAL_LOST,
    }
)


@dataclass(frozen=True, slots=True)
class _Common:
    """What all reviews of a moment have in common."""

    now: int
    looked: Looked
    blocked: bool
    lead: int


class LimitReviews:
    """Reviews instances when they are due and whenever something about them has changed."""

    def __init__(self, core: Core, follow_ups: FollowUps) -> None:
        self._follow_ups = follow_ups
        self._database = core.database
        self._clock = core.clock
        self._ids = core.ids
        self._jobs = core.jobs
        self._recorder = core.recorder

    def register(self) -> None:
        """Register the review of due rows with the job engine."""
        self._jobs.register(JOB, self.run, due=limits.due, concurrency=CONCURRENCY)

    async def run(self, instance_id: str) -> int | None:
        """Review an instance if it is due.

        Returns:
            When to review it again, in Unix milliseconds; None if only a change can matter.
        """
        return await self._database.write(partial(self._run, instance_id=instance_id))

    async def sweep(self) -> None:
        """Review each instance whose stored plan differs from its situation: the backstop."""
        for instance_id in await self._database.read(self._outdated):
            try:
                await self._database.write(partial(self._review_locked, instance_id=instance_id))
            except StoreError:
                raise
            except Exception:  # one record must not keep the others from their limits
                _log.exception("limit_review_failed", instance_id=instance_id)

    def review(self, connection: Connection, instance: Instance) -> Instance:
        """Review an instance that has changed; return it as it is now.

        The caller holds its lock.
        """
        return self._decide(connection, instance)

    def created(self, connection: Connection, instance: Instance) -> Instance:
        """Arm the limits of a new record, whose create has been stored already."""
        if instance.auto_stop is not None:
            instance = self.change_auto_stop(connection, instance, instance.auto_stop)
        if instance.limits is None:
            return instance
        return self.change(connection, instance, instance.limits)

    def key_ends_at(self, connection: Connection, instance: Instance) -> int | None:
        """Return when the key that created an instance has its present run end, if it does."""
        inherited, began_at = instance.inherited, instance.observed.run_began_at
        if inherited is None or began_at is None:
            return None
        memory = limits.memory(connection, instance.id)
        return inherited.ends_at(began_at, memory.key_extension_minutes)

    def inherit(
        self, connection: Connection, instance: Instance, wanted: InheritedLimits | None
    ) -> None:
        """Replace the limits that an instance has from its key; the caller reviews it."""
        columns = {"inherited_limits": instances.dump_inherited(wanted)}
        instances.update_columns(connection, instance.id, columns)

    def change(
        self, connection: Connection, instance: Instance, wanted: LimitSettings | None
    ) -> Instance:
        """Replace the limits of an instance and review it; the caller holds its lock."""
        now = self._clock.now()
        memory = limits.memory(connection, instance.id)
        before = instance.limits if memory.set_at else None
        memory = memory.for_change(before, wanted, now)
        self._store(connection, instance, wanted, memory)
        return self.review(connection, _reloaded(connection, instance.id))

    def change_auto_stop(
        self, connection: Connection, instance: Instance, wanted: AutoStop | None
    ) -> Instance:
        """Replace the auto-stop setting and review the instance; the caller holds its lock."""
        memory = autostop.memory(connection, instance.id).for_change(self._clock.now())
        autostop.store_memory(connection, instance.id, memory)
        columns = {"auto_stop": instances.dump_auto_stop(wanted)}
        instances.update_columns(connection, instance.id, columns)
        return self.review(connection, _reloaded(connection, instance.id))

    def keep(
        self, connection: Connection, instance: Instance, minutes: int, *, may_exceed: bool
    ) -> Instance:
        """Put the stop of the run off and review the instance; the caller holds its lock.

        If the key that created it would now end the run first, that is put off as well.

        Args:
            connection: A write transaction.
            instance: The instance.
            minutes: By how much.
            may_exceed: Whether it may go beyond the limits of that key.

        Raises:
            Conflict: `KEY_LIMIT_EXCEEDED`.
        """
        memory = limits.memory(connection, instance.id).for_keep(minutes)
        wanted = instance.limits.kept(minutes) if instance.limits else None
        self._store(connection, instance, wanted, memory)
        if instance.auto_stop is not None:
            idle = autostop.memory(connection, instance.id)
            facts = _idle_facts(instance, None, self._clock.now())
            begun = facts.began_at is not None
            since = idle_since(instance.auto_stop, idle, facts) if begun else None
            idle = idle.for_keep(minutes, since, facts.now)
            autostop.store_memory(connection, instance.id, idle)
        kept = self.review(connection, _reloaded(connection, instance.id))
        if kept.stop_reason is not StopReason.KEY_LIMIT:
            return kept
        if not may_exceed:
            raise key_limits.beyond(instance)
        memory = limits.memory(connection, instance.id).for_key_extension(minutes)
        self._store(connection, kept, kept.limits, memory)
        return self.review(connection, _reloaded(connection, instance.id))

    def insist_on_funds(self, connection: Connection, instance: Instance) -> None:
        """Refuse the start of an instance that has spent its `maxSpend`.

        Raises:
            Conflict: `LIMIT_REACHED`.
        """
        spending = _spending(connection, [instance]).get(instance.id)
        most = None if instance.limits is None else instance.limits.max_spend
        if spending is None or most is None:
            return
        spent = spending.at(self._clock.now())
        if spent >= most * UNIT:
            raise Conflict(
                f"Instance '{instance.id}' has spent its maxSpend of {usd(most)} USD",
                code="LIMIT_REACHED",
                details={
                    "limit": StopReason.MAX_SPEND.value,
                    "maxSpend": usd(most),
                    "accruedAtMost": usd_up(spent),
                },
            )

    def budget_spent(self, connection: Connection, instance: Instance, *, spent: bool) -> None:
        """Note whether a budget that stops an instance is spent, and review the instance.

        The caller holds its lock. Nothing is done if that is known already.
        """
        now, memory = self._clock.now(), limits.memory(connection, instance.id)
        at = memory.budget_spent_at
        if spent if at is not None and at <= now else not spent and at is None:
            return
        runs = instance.observed.run_began_at is not None
        memory = memory.for_budget(now if spent else None, runs=runs)
        self._store(connection, instance, instance.limits, memory)
        self.review(connection, _reloaded(connection, instance.id))

    def overruled(self, connection: Connection, instance: Instance) -> Instance:
        """Forget which limit ended the run, because a person ends it; the caller holds the lock."""
        memory = limits.memory(connection, instance.id).overruled()
        self._store(connection, instance, instance.limits, memory)
        return self.review(connection, _reloaded(connection, instance.id))

    def started(self, connection: Connection, instance: Instance) -> Instance:
        """Arm the limits again for a start that was accepted; the caller holds the lock.

        A `stop_at` that has passed belongs to an earlier run.
        """
        memory = limits.memory(connection, instance.id)
        unlimited = instance.limits is None and instance.auto_stop is None
        unlimited = unlimited and instance.inherited is None
        if unlimited and memory.budget_spent_at is None and memory.reached is None:
            return instance
        wanted = instance.limits
        stop_at = None if wanted is None else wanted.stop_at
        if wanted is not None and stop_at is not None and stop_at <= self._clock.now():
            wanted = wanted.without_stop_at()
        self._arm(connection, instance, wanted, memory.for_new_run())
        return self.review(connection, _reloaded(connection, instance.id))

    def observed(self, connection: Connection, before: Instance, seen: Observed) -> None:
        """Review an instance of which a listing showed a change; the caller holds its lock."""
        watched = before.limits is not None or before.auto_stop is not None
        watched = watched or before.inherited is not None
        watched = watched or before.stop_reason is not None  # a budget needs no setting
        if not watched and before.observed.purge_at is None and seen.purge_at is None:
            return
        began_at = seen.run_began_at
        if began_at is not None and began_at != before.observed.run_began_at:
            self._begin_run(connection, before, began_at)
        self.review(connection, _reloaded(connection, before.id))

    def _begin_run(self, connection: Connection, instance: Instance, began_at: int) -> None:
        """Forget the run before. A `stop_at` from before a start at Novita has passed with it."""
        running = operations.running(connection, instance.id)
        kind = None if running is None else running.kind
        wanted = instance.limits
        stop_at = None if wanted is None else wanted.stop_at
        passed = stop_at is not None and stop_at <= began_at
        if wanted is not None and kind not in _STARTS and passed:
            wanted = wanted.without_stop_at()
        memory = limits.memory(connection, instance.id)
        armed = kind in _ARMING
        memory = memory.for_begun_run() if armed else memory.for_new_run()
        self._arm(connection, instance, wanted, memory, armed=armed)

    def _arm(
        self,
        connection: Connection,
        instance: Instance,
        wanted: LimitSettings | None,
        memory: LimitMemory,
        *,
        armed: bool = False,
    ) -> None:
        """Store the limits of a run, and forget the use in the run before.

        `armed`: the verb that brings the instance up has done this already.
        """
        self._store(connection, instance, wanted, memory)
        if instance.auto_stop is not None:
            idle = autostop.memory(connection, instance.id)
            idle = idle.for_begun_run() if armed else idle.for_new_run()
            autostop.store_memory(connection, instance.id, idle)

    def _store(
        self,
        connection: Connection,
        instance: Instance,
        wanted: LimitSettings | None,
        memory: LimitMemory,
    ) -> None:
        columns = {
            "limits": instances.dump_limits(wanted),
            "limit_memory": limits.dump_memory(memory),
        }
        instances.update_columns(connection, instance.id, columns)

    def _run(self, connection: Connection, instance_id: str) -> int | None:
        instance = instances.lock(connection, instance_id)
        due_at = limits.due_at(connection, instance_id)
        if instance is None or due_at is None or due_at > self._clock.now():
            return due_at
        self._decide(connection, instance)
        return limits.due_at(connection, instance_id)

    def _review_locked(self, connection: Connection, instance_id: str) -> None:
        instance = instances.lock(connection, instance_id)
        if instance is not None:
            self._decide(connection, instance)

    def _outdated(self, connection: Connection) -> list[str]:
        ids = limits.watched(connection)
        found = instances.load_many(connection, ids)
        running = operations.running_of(connection, ids)
        common = self._common(connection)
        spending = _spending(connection, list(found.values()))
        outdated = []
        for one in ids:
            plan = _plan(connection, found[one], running.get(one), common, spending.get(one))
            idle, decided = plan
            changed = _columns(idle, decided, running.get(one)) != limits.stored(connection, one)
            if changed or decided.begin is not None or decided.hasten:
                outdated.append(one)
        return outdated

    def _common(self, connection: Connection) -> _Common:
        return _Common(
            now=self._clock.now(),
            looked=coordination.looked(connection),
            blocked=account.load_state(connection).blocked,
            lead=stop_lead(limits.stop_durations(connection, LEAD_SAMPLES)),
        )

    def _decide(self, connection: Connection, instance: Instance) -> Instance:
        """Review an instance and carry the result out; return it as it is now."""
        running = operations.running(connection, instance.id)
        spending = _spending(connection, [instance]).get(instance.id)
        common = self._common(connection)
        if running is not None and _may_be_withdrawn(instance, running):
            memory, idle = (
                limits.memory(connection, instance.id),
                _idle(connection, instance, common),
            )
            situation = _situation(instance, None, memory, idle, common, spending)
            if withdraws(situation, running.kind):
                instance = self._withdraw(connection, instance, running, memory)
                # An instance that is on its way again is followed, and that gives way to a verb.
                running = operations.running(connection, instance.id)
        idle, decided = _plan(connection, instance, running, common, spending)
        columns, before = _columns(idle, decided, running), limits.stored(connection, instance.id)
        if columns != before:
            instances.update_columns(connection, instance.id, columns)
            instance = _reloaded(connection, instance.id)
        if columns["review_due_at"] != before["review_due_at"]:
            self._jobs.nudge(connection, JOB, instance.id)
        for one in (*idle.events, *decided.events):
            recorder = self._recorder.by(AUTOSTOP if one.type in _OF_AUTOSTOP else LIMITS)
            recorder.append(connection, instance, running, one.type, also=one.data)
        if decided.begin is not None:
            deadline = decided.deadline
            idle_stop = deadline is not None and deadline.reason is StopReason.AUTO_STOP
            actor = AUTOSTOP if idle_stop else LIMITS
            return self._begin(connection, instance, running, decided.begin, actor)
        if decided.hasten and running is not None and not running.progress.urgent:
            urgent = replace(running.progress, urgent=True)
            operations.write_progress(connection, running.id, urgent)
            self._wake(connection, running)
        return instance

    def _withdraw(
        self, connection: Connection, instance: Instance, running: Operation, memory: LimitMemory
    ) -> Instance:
        """End a verb of the limits that they no longer ask for, before it has had an effect."""
        self._cancel(connection, instance, running, running.actor or LIMITS)
        memory = replace(memory, reached=None, begun_at=None)
        columns: dict[str, object] = {
            **running.progress.previous_columns(),
            "updated_at": self._clock.now(),
            "limit_memory": limits.dump_memory(memory),
        }
        instances.update_columns(connection, instance.id, columns)
        recorder = self._recorder.by(running.actor or LIMITS)
        if running.kind is OperationKind.DELETE:
            back = recorder.revive(connection, instance.id)
        else:
            back = recorder.refresh_status(connection, instance.id)
        self._follow_ups.ensure(connection, back)
        return back

    def _cancel(
        self, connection: Connection, instance: Instance, running: Operation, actor: Actor
    ) -> None:
        operations.cancel(connection, running, now=self._clock.now())
        if not running.kind.gives_way:
            self._recorder.by(actor).append(
                connection,
                instance,
                None,
                EventType.OPERATION_CANCELLED,
                also={"cancelled": {"id": running.id, "kind": running.kind.value}},
            )

    def _begin(
        self,
        connection: Connection,
        instance: Instance,
        running: Operation | None,
        kind: OperationKind,
        actor: Actor,
    ) -> Instance:
        """Begin the verb of a limit in place of the running operation."""
        now = self._clock.now()
        if running is not None:
            self._cancel(connection, instance, running, actor)
        phase = StopVerb.first_phase if kind is OperationKind.STOP else DeleteVerb.first_phase
        progress = replace(Progress.begun(instance), urgent=True)
        operation = Operation.begin(
            self._ids.prefixed("op"),
            kind,
            instance.id,
            phase,
            now,
            actor=actor,
            progress=progress,
        )
        operations.insert(connection, operation)
        changes: dict[str, object] = {"updated_at": now}
        if read_word(instance.observed.status) is Observation.RUNNING:
            changes["ever_ran"] = True
        instances.update_columns(connection, instance.id, changes)
        self._jobs.nudge(connection, kind.job, operation.id)
        return self._recorder.by(actor).refresh_status(connection, instance.id)

    def _wake(self, connection: Connection, operation: Operation) -> None:
        operations.wake(connection, [operation.id], now=self._clock.now())
        self._jobs.nudge(connection, operation.kind.job, operation.id)


def _plan(
    connection: Connection,
    instance: Instance,
    running: Operation | None,
    common: _Common,
    spending: Spending | None,
) -> tuple[IdleWatch, Review]:
    """Decide what auto-stop and the limits of an instance do now; nothing is written."""
    known = autostop.memory(connection, instance.id)
    idle = IdleWatch(known)
    if instance.auto_stop is not None and not instance.status.ended:
        idle = watch_idle(instance.auto_stop, known, _idle_facts(instance, running, common.now))
    memory = limits.memory(connection, instance.id)
    return idle, review(_situation(instance, running, memory, idle, common, spending))


def _idle(connection: Connection, instance: Instance, common: _Common) -> IdleWatch:
    """Watch whether an instance is idle, as if no verb ran."""
    known = autostop.memory(connection, instance.id)
    if instance.auto_stop is None or instance.status.ended:
        return IdleWatch(known)
    return watch_idle(instance.auto_stop, known, _idle_facts(instance, None, common.now))


def _may_be_withdrawn(instance: Instance, running: Operation) -> bool:
    """Whether a limit began this verb, and Novita has not accepted a call of it.

    The delete of a record without an instance has ended its create, and no listing would show what
    the record is now.
    """
    begun = running.actor in _OURS and running.kind.brings_down
    return begun and not running.progress.call.accepted and instance.upstream_id is not None


def _idle_facts(instance: Instance, running: Operation | None, now: int) -> IdleFacts:
    seen = instance.observed
    ends = running is not None and running.kind.brings_down
    return IdleFacts(
        now=now,
        began_at=seen.run_began_at,
        last_used_at=instance.last_used_at,
        samples=read_word(seen.status) is Observation.RUNNING and not ends,
        ends=ends,
    )


def _spending(connection: Connection, records: Sequence[Instance]) -> dict[str, Spending]:
    """Load what the records with a limit of their cost may cost, by ID."""
    limited = [one.id for one in records if one.limits and one.limits.max_spend is not None]
    if not limited:
        return {}
    books = billing.books_of(connection, limited)
    return {one: Spending.of(books.get(one, ())) for one in limited}


def _situation(
    instance: Instance,
    running: Operation | None,
    memory: LimitMemory,
    idle: IdleWatch,
    common: _Common,
    spending: Spending | None,
) -> Situation:
    seen, call = instance.observed, running.progress.call if running else None
    return Situation(
        now=common.now,
        limits=instance.limits,
        inherited=instance.inherited,
        memory=memory,
        ended=instance.status.ended,
        protected=instance.protected,
        ever_ran=instance.ever_ran,
        word=seen.status,
        seen_at=last_shown(instance, common.looked.whole_at or 0),
        began_at=seen.run_began_at,
        exited_at=seen.exited_at,
        purge_at=seen.purge_at,
        running=None if running is None else running.kind,
        asked_at=_asked_at(call) if call else None,
        blocked=common.blocked,
        lead=common.lead,
        idle_at=idle.stops_at,
        idle_action=instance.auto_stop.action if instance.auto_stop else LimitAction.STOP,
        spending=spending,
    )


def _asked_at(call: Call) -> int | None:
    """Return when a call was first made that may have had an effect; None if none was."""
    return call.tried_at if call.asked_at is not None or call.unsure else None


def _columns(idle: IdleWatch, decided: Review, running: Operation | None) -> dict[str, object]:
    """Return the columns that a review writes."""
    looks = [at for at in (idle.look_at, decided.due_at) if at is not None]
    deadline, memory = decided.deadline, decided.memory
    if running is not None and running.kind in _DELETES and running.actor not in _OURS:
        deadline = None  # what deletes it now comes first
    reason = deadline.reason if deadline is not None else memory.reached
    return {
        "limit_memory": limits.dump_memory(memory),
        "stops_at": None if deadline is None else deadline.at,
        "stop_reason": None if reason is None else reason.value,
        "unenforced": decided.unenforced,
        "limit_fired_at": decided.fired_at,
        "review_due_at": min(looks, default=None),
        "auto_stop_memory": autostop.dump_memory(idle.memory),
        "auto_stop_state": idle.state.value,
        "auto_stops_at": idle.stops_at,
        "sample_due_at": idle.sample_at,
    }


def _reloaded(connection: Connection, instance_id: str) -> Instance:
    return instances.load_many(connection, [instance_id])[instance_id]
