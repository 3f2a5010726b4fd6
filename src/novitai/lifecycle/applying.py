# SPDX-License-Identifier: Apache-2.0
"""What a listing changed, written down: one transaction per page of changed rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import Connection

from novitai.clock import Clock, iso
from novitai.domain.event import EventType
from novitai.domain.instance import Instance, InstanceStatus
from novitai.domain.operation import Attempt, AttemptState, Operation, OperationKind
from novitai.domain.status import Observation, read_word
from novitai.ids import Ids
from novitai.jobs.port import JobEngine
from novitai.lifecycle import observing
from novitai.lifecycle.diffing import Changed, Missing, Sighting, Unseen
from novitai.lifecycle.follow import FOLLOWED
from novitai.lifecycle.reap import error_columns
from novitai.lifecycle.recording import Recorder
from novitai.lifecycle.rising import WATCH
from novitai.store import attempts, instances, operations
from novitai.store.database import Database
from novitai.store.vault import Vault
from novitai.upstream.models import UpstreamInstance

T = TypeVar("T")

PAGE: Final = 200
"""Rows in one transaction."""


class Applier:
    """Writes what sync found. It owns the columns `obs_*`, and the outcome of attempts."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        jobs: JobEngine,
        recorder: Recorder,
        vault: Vault,
        ids: Ids,
    ) -> None:
        self._database = database
        self._clock = clock
        self._jobs = jobs
        self._recorder = recorder
        self._vault = vault
        self._ids = ids

    async def changed(self, found: Sequence[Changed], began_at: int) -> None:
        """Write the rows of which the listing said something new."""
        for page in _pages(found):
            await self._database.write(partial(self._write_changed, page=page, began_at=began_at))

    async def missing(self, found: Sequence[Missing]) -> None:
        """Count the absence of rows that a complete listing did not hold."""
        for page in _pages(found):
            await self._database.write(partial(self._write_missing, page=page))

    async def gone(self, instance_id: str, began_at: int) -> None:
        """Write that an instance is proven to be gone."""
        await self._database.write(
            partial(self._write_gone, instance_id=instance_id, began_at=began_at)
        )

    async def unseen(self, found: Sequence[Unseen], began_at: int, absent_after: float) -> None:
        """Count for how long attempts have been unseen, and end those that bought nothing."""
        if not found:
            return

        def write(connection: Connection) -> None:
            for one in found:
                if one.is_absent(began_at, absent_after):
                    attempts.settle(connection, one.attempt.id, AttemptState.ABSENT)
                    self._wake(connection, [one.attempt.instance_id])
                else:
                    attempts.note_unseen(
                        connection, one.attempt.id, count=one.count, since=one.since
                    )

        await self._database.write(write)

    async def sighted(self, sighting: Sighting) -> bool:
        """Write what a sighting tells of its attempt.

        Returns:
            Whether the instance is surplus: the record has another, or wants none.
        """
        return await self._database.write(partial(self._write_sighting, sighting=sighting))

    async def surplus_deleted(self, sighting: Sighting) -> None:
        """Write that an instance which was bought twice has been deleted."""

        def write(connection: Connection) -> None:
            instance = instances.lock(connection, sighting.attempt.instance_id)
            if instance is None or instance.upstream_id == sighting.row.id:
                return
            if sighting.attempt.upstream_id in {None, sighting.row.id}:
                attempts.settle(
                    connection,
                    sighting.attempt.id,
                    AttemptState.SURPLUS,
                    upstream_id=sighting.row.id,
                )
            self._recorder.append(
                connection,
                instance,
                operations.running(connection, instance.id),
                EventType.SURPLUS_DELETED,
                also={"surplusUpstreamId": sighting.row.id},
            )

        await self._database.write(write)

    def _write_changed(
        self, connection: Connection, page: Sequence[Changed], began_at: int
    ) -> None:
        fresh: list[str] = []
        for change in sorted(page, key=lambda one: one.instance_id):
            instance = instances.lock(connection, change.instance_id)
            if instance is None or _is_older(began_at, instance):
                continue
            self._write_row(connection, instance, change.row, change.digest, began_at)
            fresh.append(instance.id)
        self._wake(connection, fresh)

    def _write_row(
        self,
        connection: Connection,
        before: Instance,
        row: UpstreamInstance,
        digest: str,
        began_at: int,
    ) -> None:
        values = observing.columns(row, digest, began_at, self._vault)
        running = operations.running(connection, before.id)
        ours = running is not None and not running.kind.gives_way
        also: dict[str, object] = {}
        if not ours and is_drift(before, row):
            also["drift"] = {"from": before.observed.status, "to": row.status}
        if not ours and is_reclaimed(row):
            # No operation is at work whose columns these would be: the reason stands beside it.
            message = "Novita reclaimed this spot instance"
            values |= error_columns("SPOT_RECLAIMED", message, self._clock.now())
        instances.update_columns(connection, before.id, values)
        after = self._recorder.settle(connection, before.id, also=also)
        if "drift" in also:
            self._recorder.append(connection, after, running, EventType.DRIFT, also=also)
        if row.spot_reclaim_at is not None and before.observed.spot_reclaim_at is None:
            self._recorder.append(
                connection,
                after,
                running,
                EventType.SPOT_RECLAIM_SCHEDULED,
                also={"previousStatus": after.status.value, "reclaimAt": iso(row.spot_reclaim_at)},
            )
        if running is None and after.status in FOLLOWED:
            self._follow(connection, after)

    def _follow(self, connection: Connection, instance: Instance) -> None:
        now = self._clock.now()
        operation = Operation(
            id=self._ids.prefixed("op"),
            kind=OperationKind.FOLLOW,
            instance_id=instance.id,
            phase=WATCH,
            created_at=now,
            updated_at=now,
            next_step_at=now,
        )
        operations.insert(connection, operation)
        self._jobs.nudge(connection, operation.kind.job, operation.id)

    def _write_missing(self, connection: Connection, page: Sequence[Missing]) -> None:
        ids = sorted(one.instance_id for one in page)
        by_id = {one.instance_id: one for one in page}
        for instance_id in ids:
            one = by_id[instance_id]
            instances.update_columns(
                connection,
                instance_id,
                {"obs_missing_since": one.since, "obs_missing_count": one.count},
            )
        self._wake(connection, ids)

    def _write_gone(self, connection: Connection, instance_id: str, began_at: int) -> None:
        instance = instances.lock(connection, instance_id)
        if instance is None or _is_older(began_at, instance):
            return
        instances.update_columns(connection, instance_id, {"obs_gone": True, "obs_at": began_at})
        self._recorder.settle(connection, instance_id)
        self._wake(connection, [instance_id])

    def _write_sighting(self, connection: Connection, sighting: Sighting) -> bool:
        attempt, row = sighting.attempt, sighting.row
        instance = instances.lock(connection, attempt.instance_id)
        if instance is None or instance.upstream_id == row.id:
            return False
        if (
            instance.upstream_id is not None
            or instance.status is InstanceStatus.TERMINATED
            or operations.running(connection, instance.id) is None
            or _bought_elsewhere(connection, attempt, row)
        ):
            return True
        attempts.settle(connection, attempt.id, AttemptState.BOUGHT, upstream_id=row.id)
        self._wake(connection, [instance.id])
        return False

    def _wake(self, connection: Connection, instance_ids: Sequence[str]) -> None:
        for operation in operations.wake(connection, instance_ids, now=self._clock.now()):
            self._jobs.nudge(connection, operation.kind.job, operation.id)


def is_drift(before: Instance, row: UpstreamInstance) -> bool:
    """Whether a row tells of something that nobody asked us for.

    Told once, when a settled instance moves, and whenever upstream says a word that means nothing
    to us (docs/upstream.md §7).
    """
    if before.observed.status in {None, row.status}:
        return False
    settled = read_word(before.observed.status) in {
        Observation.RUNNING,
        Observation.EXITED,
        Observation.UNKNOWN,
    }
    return settled or read_word(row.status) is Observation.UNKNOWN


def is_reclaimed(row: UpstreamInstance) -> bool:
    """Whether a spot instance has been taken away (docs/upstream.md §8)."""
    return (
        read_word(row.status) is Observation.EXITED
        and bool(row.spot_status)
        and row.spot_reclaim_at is not None
    )


def _is_older(began_at: int, instance: Instance) -> bool:
    """Whether a later listing, or a later call of ours, knows better than this listing."""
    return began_at <= max(instance.observed.at or 0, instance.acted_at or 0)


def _bought_elsewhere(connection: Connection, attempt: Attempt, row: UpstreamInstance) -> bool:
    """Whether the operation is known to have bought another instance than this one."""
    return any(
        one.state is AttemptState.BOUGHT and one.upstream_id != row.id
        for one in attempts.of_instance(connection, attempt.instance_id)
    )


def _pages(found: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(found), PAGE):
        yield found[start : start + PAGE]
