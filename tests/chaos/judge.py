# SPDX-License-Identifier: Apache-2.0
"""The promises that every life is checked against, read from the store and from the emulator."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import Connection, func, select

from novitai.domain.event import Event, EventType, of_status
from novitai.domain.instance import TRANSITIONS, Instance, InstanceStatus, Origin
from novitai.domain.marker import read_marker
from novitai.domain.webhook import WEBHOOK_EVENTS
from novitai.emulator.calls import caller_label
from novitai.emulator.instances import GONE, Status, phase
from novitai.emulator.instances import Instance as UpstreamInstance
from novitai.settings import FailedInstancePolicy
from novitai.store import tables
from novitai.store.queries import attempts, events, instances, operations

if TYPE_CHECKING:
    from tests.chaos.fleet import Fleet

CALLER: Final = caller_label("sk-of-the-tests")
_WRITES: Final = frozenset({"start", "stop", "restart", "delete"})
_STATUS_OF: Final = {of_status(status): status for status in InstanceStatus}
_BACK: Final = frozenset({InstanceStatus.TERMINATED})


class Violation(Exception):
    """A promise was broken."""


@dataclass
class Judge:
    """Checks the promises after every second and at rest.

    Attributes:
        fleet: The processes, their store and the emulator.
        hides: Whether the fault hides purchases for so long that a second one is allowed.
        stalls: Whether a process stalls and goes on later.
        records: The IDs of the instances that requests were answered with.
        acknowledged: The IDs of the operations that requests were answered with.
        adopted: The upstream IDs that may be called although we did not buy them.
        expected: The statuses in which an instance may come to rest.
    """

    fleet: Fleet
    hides: bool = False
    stalls: bool = False
    records: set[str] = field(default_factory=set)
    acknowledged: set[str | None] = field(default_factory=set)
    adopted: set[str] = field(default_factory=set)
    expected: dict[str, set[InstanceStatus]] = field(default_factory=dict)
    _theirs: dict[str, tuple[object, ...]] = field(default_factory=dict)
    _seen_calls: int = 0
    _bought: Counter[str] = field(default_factory=Counter)

    # Facts

    def status(self, instance_id: str) -> InstanceStatus | None:
        """Return the status of a record."""
        found = self.fleet.store.query(lambda c: instances.load(c, instance_id))
        return found.status if found else None

    def upstream_id(self, instance_id: str) -> str:
        """Return the upstream ID of a record."""
        found = self.fleet.store.query(lambda c: instances.load(c, instance_id))
        if found is None or found.upstream_id is None:
            raise Violation(f"{instance_id} has no upstream instance")
        return found.upstream_id

    def listed(self, upstream_id: str) -> bool:
        """Return whether an unmanaged instance can be adopted."""
        column = tables.unmanaged_instances.c.upstream_id
        query = select(column).where(column == upstream_id)
        return self.fleet.store.query(lambda c: c.execute(query).first()) is not None

    def unfinished(self) -> list[str]:
        """List what keeps everything from rest."""
        return self.fleet.store.query(_unfinished)

    def strangers(self, upstream_ids: Collection[str]) -> None:
        """Remember foreign instances as they are now."""
        found = [row for row in self.fleet.upstream.ever() if row.id in upstream_ids]
        self._theirs = {row.id: self._face(row) for row in found}

    # Promises

    def look(self) -> None:
        """Check what must hold at every moment.

        Raises:
            Violation: it does not.
        """
        rows = self._rows()
        made = [row for row in rows if row.created_by == CALLER]
        owners = self.fleet.store.query(_owners_of_attempts) if made else {}
        living: dict[str, list[str]] = defaultdict(list)
        for row in made:
            marker = read_marker(row.name)
            if marker is None or marker.attempt_id not in owners:
                raise Violation(f"bought without a stored attempt: {row.name}")
            if self._lives(row):
                living[owners[marker.attempt_id]].append(row.id)
        doubles = {one: ids for one, ids in living.items() if len(ids) > 1}
        if doubles and not self.hides:
            raise Violation(f"two live instances for one record: {doubles}")
        for row in rows:
            if row.id in self._theirs and self._theirs[row.id] != self._face(row):
                raise Violation(f"a foreign instance was touched: {row.id}")
        self._look_at_calls({row.id for row in made})

    def conclude(self) -> None:
        """Check what must hold at rest.

        Raises:
            Violation: it does not.
        """
        self.look()
        if self.fleet.overlaps:
            raise Violation(
                f"two processes listed the account at once, {self.fleet.overlaps} times"
            )
        self.fleet.store.query(self._conclude)

    def story(self) -> list[str]:
        """Tell what happened, to explain a violation."""
        lines = [
            f"{call.virtual_at - 1_760_000_000:8.1f} {call.method} {call.path} {call.status} "
            f"{(call.body or {}).get('instanceId', '') if isinstance(call.body, dict) else ''} "
            f"{' '.join(call.faults)}"
            for call in self.fleet.upstream.calls.find()
            if call.method == "POST"
        ]
        lines += [f"{row.id} {row.name} {self._status(row)}" for row in self._rows()]
        return lines + self.fleet.store.query(_told)

    def _rows(self) -> list[UpstreamInstance]:
        self.fleet.upstream.settle()
        return list(self.fleet.upstream.ever())

    def _status(self, row: UpstreamInstance) -> Status:
        return phase(row, self.fleet.upstream.clock.now()).status

    def _lives(self, row: UpstreamInstance) -> bool:
        return self._status(row) not in GONE

    def _face(self, row: UpstreamInstance) -> tuple[object, ...]:
        return row.name, self._status(row), row.starts

    def _look_at_calls(self, ours: set[str]) -> None:
        for call in self.fleet.upstream.calls.find(method="POST", after=self._seen_calls):
            self._seen_calls = call.seq
            if call.caller != CALLER or not isinstance(call.body, dict):
                continue
            verb = call.path.rpartition("/")[2]
            if verb == "create":
                name = str(call.body.get("name"))
                self._bought[name] += 1
                if self._bought[name] > 1:
                    raise Violation(f"one attempt was sent twice: {name}")
            elif verb in _WRITES:
                target = call.body.get("instanceId")
                if target not in ours and target not in self.adopted:
                    raise Violation(f"a call to a stranger: {call.path} {target}")

    def _conclude(self, connection: Connection) -> None:
        everything = connection.execute(select(tables.instances.c.id)).scalars().all()
        if set(everything) != self.records:
            raise Violation(f"acknowledged {self.records}, but stored {everything}")
        found = instances.load_many(connection, everything)
        rows = {row.id: row for row in self._rows()}
        owned = {one.upstream_id for one in found.values() if not one.status.ended}
        for row in rows.values():
            if row.created_by == CALLER and self._lives(row) and row.id not in owned:
                raise Violation(f"it bills and has no record: {row.id} {row.name}")
        for one in found.values():
            self._check_rest(one, rows.get(one.upstream_id or ""))
            self._check_events(connection, one)
        for operation_id in self.acknowledged - {None}:
            operation = operations.load(connection, str(operation_id))
            if operation is None or not operation.done:
                raise Violation(f"an accepted operation is not done: {operation_id}")
        unsettled = attempts.unsettled(connection)
        if unsettled:
            raise Violation(f"attempts are not settled: {unsettled}")
        leased = select(func.count()).where(
            tables.operations.c.done.is_(False), tables.operations.c.lease_until.is_not(None)
        )
        if connection.execute(leased).scalar_one():
            raise Violation("a lease is left")

    def _check_rest(self, instance: Instance, row: UpstreamInstance | None) -> None:
        expected = self.expected.get(instance.id)
        if expected is not None and instance.status not in expected:
            raise Violation(
                f"{instance.id} rests as {instance.status}, not as {sorted(expected)}: "
                f"{instance.error}"
            )
        seen = self._status(row) if row and self._lives(row) else None
        wanted = self._wanted(instance)
        if wanted is not None and seen not in wanted:
            raise Violation(f"{instance.id} is {instance.status}, but Novita shows {seen}")

    def _wanted(self, instance: Instance) -> set[Status | None] | None:
        match instance.status:
            case InstanceStatus.RUNNING:
                return {Status.RUNNING}
            case InstanceStatus.STOPPED:
                return {Status.EXITED}
            case InstanceStatus.TERMINATED:
                return {None}
            case InstanceStatus.FAILED:
                keeps = self.fleet.settings.failed_instance_policy is FailedInstancePolicy.KEEP
                return None if keeps or instance.origin is Origin.ADOPTED else {Status.EXITED, None}
        raise Violation(f"{instance.id} is not at rest: {instance.status}")

    def _check_events(self, connection: Connection, instance: Instance) -> None:
        log = events.of_instance(connection, instance.id)
        statuses = [_STATUS_OF[event.type] for event in log if event.type in _STATUS_OF]
        for before, after in itertools.pairwise(statuses):
            if after not in TRANSITIONS[before] and before not in _BACK:
                raise Violation(f"{instance.id} went from {before} to {after}")
        if statuses and statuses[-1] is not instance.status:
            raise Violation(f"{instance.id} is {instance.status}, last told as {statuses[-1]}")
        if instance.webhook_url is not None:
            self._check_messages(connection, instance, log)

    def _check_messages(self, connection: Connection, instance: Instance, log: list[Event]) -> None:
        due = [event.id for event in log if event.type in set(WEBHOOK_EVENTS)]
        sent = connection.execute(
            select(tables.deliveries.c.id, tables.events.c.id, tables.deliveries.c.status)
            .join(tables.events, tables.events.c.sequence == tables.deliveries.c.event_sequence)
            .where(tables.deliveries.c.instance_id == instance.id)
            .order_by(tables.deliveries.c.event_sequence)
        ).all()
        if [row[1] for row in sent] != due:
            raise Violation(f"{instance.id}: events {due}, but messages for {sent}")
        if any(row[2] != "delivered" for row in sent):
            raise Violation(f"{instance.id}: not all delivered: {sent}")
        wanted = [row[0] for row in sent]
        known = set(wanted)
        got = [one for one, _ in self.fleet.receiver.got if one in known]
        if self.stalls:
            # A process that stalls between its last look at its lease and the first byte sends a
            # message again when it goes on, perhaps after later ones.
            got = list(dict.fromkeys(got))
        # A message may come again, but only until the next one has come.
        if [one for one, _ in itertools.groupby(got)] != wanted:
            raise Violation(f"{instance.id}: messages out of order: {got}, not {wanted}")
        bodies: dict[str, Any] = {}
        for one, body in self.fleet.receiver.got:
            if bodies.setdefault(one, orjson.loads(body)) != orjson.loads(body):
                raise Violation(f"message {one} came with two contents")


def _owners_of_attempts(connection: Connection) -> dict[str, str]:
    columns = tables.attempts.c
    return {row[0]: row[1] for row in connection.execute(select(columns.id, columns.instance_id))}


def _unfinished(connection: Connection) -> list[str]:
    found = [
        f"{row.kind} {row.phase} {row.error_code or ''}"
        for row in connection.execute(
            select(
                tables.operations.c.kind, tables.operations.c.phase, tables.operations.c.error_code
            ).where(tables.operations.c.done.is_(False))
        )
    ]
    moving = instances.count_in_transition(connection)
    if moving:
        found.append(f"{moving} instances in transition")
    waiting = select(func.count()).where(tables.deliveries.c.ended_at.is_(None))
    pending = connection.execute(waiting.select_from(tables.deliveries)).scalar_one()
    if pending:
        found.append(f"{pending} messages")
    return found


def _told(connection: Connection) -> list[str]:
    lines = []
    for instance_id in connection.execute(select(tables.instances.c.id)).scalars():
        one = instances.load(connection, instance_id)
        lines.append(f"{one}")
        lines += [str(attempt) for attempt in attempts.of_instance(connection, instance_id)]
        for event in events.of_instance(connection, instance_id):
            extra = {
                name: event.data[name]
                for name in ("error", "drift", "upstreamStatus")
                if event.data.get(name)
            }
            skipped = event.type is EventType.CREATED
            lines.append(f"  {event.at} {event.type.value} {'' if skipped else extra}")
    for row in connection.execute(select(tables.operations)):
        lines.append(str(dict(row._mapping)))
    return lines
