# SPDX-License-Identifier: Apache-2.0
"""What a listing changed, written down: one transaction per page of changed rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import Enum, auto
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import Connection

from novitai.clock import Clock, iso
from novitai.domain.event import EventType
from novitai.domain.instance import Instance, InstanceStatus
from novitai.domain.operation import AttemptState, Operation
from novitai.domain.status import Observation, derive, read_word
from novitai.jobs.port import JobEngine
from novitai.lifecycle import observing
from novitai.lifecycle.diffing import Changed, Missing, Sighting, Unseen
from novitai.lifecycle.failing import error_columns
from novitai.lifecycle.following import Follower
from novitai.lifecycle.recording import Recorder
from novitai.store import attempts, instances, operations
from novitai.store.database import Database
from novitai.store.vault import Vault
from novitai.upstream.models import UpstreamInstance

T = TypeVar("T")

_BEFORE_A_RETURN: Final = frozenset(
    {Observation.UNKNOWN, Observation.REMOVING, Observation.REMOVED}
)
"""What a failed instance was last seen as, if it is to be ended once more when it shows otherwise.

What somebody else has started since we stopped it is told, and left to them.
"""

PAGE: Final = 200
"""Rows in one transaction."""


class Standing(Enum):
    """How an instance that bears one of our markers stands to its record."""

    OURS = auto()
    """It is the record's own, or may become it."""
    SURPLUS = auto()
    """The record has another, or has ended: it is to be deleted."""
    LOST = auto()
    """It was proven gone and is there again, though its record has ended: told, not touched."""


class Applier:
    """Writes what sync found. It owns the columns `obs_*`, and the outcome of attempts."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        jobs: JobEngine,
        recorder: Recorder,
        vault: Vault,
        follower: Follower,
    ) -> None:
        self._database = database
        self._clock = clock
        self._jobs = jobs
        self._recorder = recorder
        self._vault = vault
        self._follower = follower

    async def changed(self, found: Sequence[Changed], began_at: int) -> None:
        """Write the rows of which the listing said something new."""
        for page in _pages(found):
            await self._database.write(partial(self._write_changed, page=page, began_at=began_at))

    async def missing(self, found: Sequence[Missing], began_at: int) -> None:
        """Count the absence of rows that a complete listing did not hold."""
        for page in _pages(found):
            await self._database.write(partial(self._write_missing, page=page, began_at=began_at))

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
                    self._wake_of(connection, one.attempt.instance_id)
                else:
                    attempts.note_unseen(
                        connection, one.attempt.id, count=one.count, since=one.since
                    )

        await self._database.write(write)

    async def sighted(self, sighting: Sighting) -> Standing:
        """Write what a sighting tells of its attempt, and tell how the instance stands."""
        return await self._database.write(partial(self._write_sighting, sighting=sighting))

    async def surplus_deleted(self, sighting: Sighting) -> None:
        """Write that an instance which was bought twice has been deleted."""

        def write(connection: Connection) -> None:
            instance = instances.lock(connection, sighting.attempt.instance_id)
            if instance is None:
                return
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
        """Write a page in bulk; only rows whose status moves, or that have news, cost more."""
        before = instances.lock_many(connection, [change.instance_id for change in page])
        fresh = [
            change
            for change in page
            if change.instance_id in before and not _is_older(began_at, before[change.instance_id])
        ]
        seen = {change.instance_id: observing.observed(change.row, began_at) for change in fresh}
        instances.update_observed(
            connection,
            {
                change.instance_id: observing.columns(
                    seen[change.instance_id], change.row, change.digest, self._vault
                )
                for change in fresh
            },
        )
        running = operations.running_of(connection, list(seen))
        for change in fresh:
            instance = before[change.instance_id]
            # What has just been written is known: ten thousand rows are not read again.
            after = replace(
                instance,
                observed=replace(seen[instance.id], gone=instance.observed.gone),
            )
            self._tell(connection, instance, after, running.get(instance.id), change.row)
        self._wake(connection, list(running.values()))

    def _tell(
        self,
        connection: Connection,
        before: Instance,
        after: Instance,
        running: Operation | None,
        row: UpstreamInstance,
    ) -> None:
        """Derive the status anew, and tell what nobody asked us for."""
        ours = running is not None and not running.kind.gives_way
        drift = not ours and is_drift(before, row)
        if not ours and read_word(before.observed.status) in _BEFORE_A_RETURN:
            self._follower.reap(connection, after)
        announced = row.spot_reclaim_at not in {None, before.observed.spot_reclaim_at}
        moves = derive(after, running.kind if running else None) is not after.status
        if not (moves or drift or announced):
            return
        if not ours and is_reclaimed(row):
            # No operation is at work whose columns these would be: the reason stands beside it.
            message = "Novita reclaimed this spot instance"
            instances.update_columns(
                connection,
                after.id,
                error_columns("SPOT_RECLAIMED", message, self._clock.now()),
            )
        also: dict[str, object] = {}
        if drift:
            also["drift"] = {"from": before.observed.status, "to": row.status}
        told = self._recorder.settle(connection, after.id, also=also)
        if drift:
            self._recorder.append(connection, told, running, EventType.DRIFT, also=also)
        if row.spot_reclaim_at is not None and announced:
            self._recorder.append(
                connection,
                told,
                running,
                EventType.SPOT_RECLAIM_SCHEDULED,
                also={"previousStatus": told.status.value, "reclaimAt": iso(row.spot_reclaim_at)},
            )
        self._follower.ensure(connection, told)

    def _write_missing(
        self, connection: Connection, page: Sequence[Missing], began_at: int
    ) -> None:
        before = instances.lock_many(connection, [one.instance_id for one in page])
        counted = [
            one
            for one in page
            if one.instance_id in before
            and not _is_older(began_at, before[one.instance_id])
            and _absence(before[one.instance_id]) <= (one.since, one.count)
        ]
        instances.update_observed(
            connection,
            {
                one.instance_id: {
                    "obs_missing_since": one.since,
                    "obs_missing_count": one.count,
                }
                for one in counted
            },
        )
        running = operations.running_of(connection, [one.instance_id for one in counted])
        self._wake(connection, list(running.values()))

    def _write_gone(self, connection: Connection, instance_id: str, began_at: int) -> None:
        instance = instances.lock(connection, instance_id)
        if instance is None or _is_older(began_at, instance):
            return
        instances.update_columns(connection, instance_id, {"obs_gone": True, "obs_at": began_at})
        self._recorder.settle(connection, instance_id)
        self._wake_of(connection, instance_id)

    def _write_sighting(self, connection: Connection, sighting: Sighting) -> Standing:
        attempt, row = sighting.attempt, sighting.row
        instance = instances.lock(connection, attempt.instance_id)
        if instance is None:
            return Standing.OURS
        over = instance.status is InstanceStatus.TERMINATED
        if instance.upstream_id == row.id:
            if over:
                # Deleted, and it lives; or only found gone, by listings that have since recovered.
                asked_for = operations.was_deleted(connection, instance.id)
                lost = instance.observed.gone and not asked_for
                return Standing.LOST if lost else Standing.SURPLUS
            if instance.observed.gone:
                found = {"obs_gone": False, "obs_missing_since": None, "obs_missing_count": 0}
                instances.update_columns(connection, instance.id, found)
                self._come_back(connection, instance.id, row)
            return Standing.OURS
        running = operations.running(connection, instance.id)
        if over or running is None or instance.upstream_id is not None:
            return self._surplus(connection, sighting)
        attempts.settle(connection, attempt.id, AttemptState.BOUGHT, upstream_id=row.id)
        # Decided here, under the instance's lock: the one that stays is never the one deleted.
        if attempts.winner(connection, instance.id) != attempt.id or (
            attempt.state is AttemptState.BOUGHT and attempt.upstream_id != row.id
        ):
            return self._surplus(connection, sighting)
        self._wake(connection, [running])
        return Standing.OURS

    def _come_back(self, connection: Connection, instance_id: str, row: UpstreamInstance) -> None:
        """Tell that what was proven gone is there again, and see that it does not bill unseen."""
        instance = self._recorder.settle(connection, instance_id)
        self._follower.reap(connection, instance)
        self._recorder.append(
            connection,
            instance,
            operations.running(connection, instance_id),
            EventType.DRIFT,
            also={"drift": {"from": "gone", "to": row.status}},
        )

    @staticmethod
    def _surplus(connection: Connection, sighting: Sighting) -> Standing:
        """Mark an attempt whose purchase nobody wants, before it is deleted."""
        if sighting.attempt.upstream_id in {None, sighting.row.id}:
            attempts.settle(
                connection,
                sighting.attempt.id,
                AttemptState.SURPLUS,
                upstream_id=sighting.row.id,
            )
        return Standing.SURPLUS

    def _wake(self, connection: Connection, waiting: Sequence[Operation]) -> None:
        """Have operations that waited for news look at it."""
        operations.wake(connection, [one.id for one in waiting], now=self._clock.now())
        for operation in waiting:
            self._jobs.nudge(connection, operation.kind.job, operation.id)

    def _wake_of(self, connection: Connection, instance_id: str) -> None:
        running = operations.running(connection, instance_id)
        if running is not None:
            self._wake(connection, [running])


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
    taken = row.spot_status in {"reclaiming", "terminated"}
    return taken and read_word(row.status) is Observation.EXITED


def _is_older(began_at: int, instance: Instance) -> bool:
    """Whether a later listing, or a later call of ours, knows better than this listing."""
    return began_at <= max(instance.observed.at or 0, instance.acted_at or 0)


def _absence(instance: Instance) -> tuple[int, int]:
    """Tell since when and how often it was missing; a later beginning counts for more."""
    return instance.observed.missing_since or 0, instance.observed.missing_count


def _pages(found: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(found), PAGE):
        yield found[start : start + PAGE]
