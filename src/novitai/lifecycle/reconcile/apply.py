# SPDX-License-Identifier: Apache-2.0
"""Write the differences of a listing: one transaction per page of changed rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum, auto
from functools import partial
from typing import Final, TypeVar

import structlog
from sqlalchemy import Connection

from novitai.clock import iso
from novitai.domain.actor import SYNC
from novitai.domain.billing_edges import Look
from novitai.domain.event import EventType
from novitai.domain.instance import Instance, InstanceStatus, Origin
from novitai.domain.operation import Attempt, AttemptState, Operation
from novitai.domain.product import usd
from novitai.domain.status import Observation, derive, read_word
from novitai.lifecycle.core import Core
from novitai.lifecycle.events.recorder import Recorder
from novitai.lifecycle.limits.reviews import LimitReviews
from novitai.lifecycle.money import ledger
from novitai.lifecycle.operations import launch_spec as launch
from novitai.lifecycle.operations.follow_ups import FollowUps
from novitai.lifecycle.operations.late_calls import LateCalls
from novitai.lifecycle.reconcile import observed_columns
from novitai.lifecycle.reconcile.diff import (
    Changed,
    Missing,
    Reappeared,
    Sighting,
    Unseen,
    made_by,
)
from novitai.lifecycle.reconcile.observed_columns import RunLook
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreError
from novitai.store.queries import attempts, coordination, instances, operations
from novitai.store.queries.instances import Former, Tracked
from novitai.upstream.models import Listing, UpstreamInstance

T = TypeVar("T")

_log = structlog.get_logger(__name__)

FORGOTTEN_IDENTITY: Final[Mapping[str, object]] = {
    "upstream_id": None,
    "confirmed_at": None,
    "bought_at": None,
    "identity_told_at": None,
    "obs_unmarked_count": 0,
    "obs_run_began_at": None,
    "obs_exited_at": None,
    "obs_purge_at": None,
    **instances.NOT_MISSING,
}
"""The columns that clear a record's upstream ID after it turned out to be another instance's."""

_BEFORE_A_RETURN: Final = frozenset(
    {Observation.UNKNOWN, Observation.REMOVING, Observation.REMOVED}
)
"""The previous statuses of a failed instance that cause a clean-up when its status changes.

If a failed instance that was stopped is started outside novitai, only a drift event is appended.
"""

PAGE: Final = 200
"""Rows per transaction."""


class Relation(Enum):
    """The relation of an instance with one of our markers to the record of the marker."""

    OURS = auto()
    """It is the record's instance, or may become it."""
    SURPLUS = auto()
    """The record has another instance or has ended, and our call made this one: delete it."""
    ORPHAN = auto()
    """Nothing proves that our call made it: report it, do not touch it."""
    LATER = auto()
    """It cannot be decided before the record's instance is confirmed."""


class Reappearance(Enum):
    """What becomes of a listed instance whose record had ended, or believed it gone."""

    REAPPEARED = auto()
    """The record ended only by absence: it is revived."""
    DELETE = auto()
    """A user deleted it: the instance is deleted again."""
    ORPHAN = auto()
    """It was deleted too often, or ended for another reason: report it, do not touch it."""
    OWNED = auto()
    """A record has the instance: its own, which no longer believes it gone, or another one."""


MAX_DELETED_AGAIN: Final = 3


class Applier:
    """Writes the differences that sync found. It owns the `obs_*` columns and attempt outcomes."""

    def __init__(
        self,
        core: Core,
        follow_ups: FollowUps,
        late_calls: LateCalls,
        limits: LimitReviews,
        *,
        call_timeout: float,
    ) -> None:
        """Set the dependencies; `call_timeout` is the timeout of a call to Novita, in seconds."""
        self._call_timeout = call_timeout
        self._late_calls = late_calls
        self._limits = limits
        self._database = core.database
        self._clock = core.clock
        self._jobs = core.jobs
        self._recorder = core.recorder.by(SYNC)
        self._vault = core.vault
        self._follow_ups = follow_ups

    async def changed(self, found: Sequence[Changed], look: Look) -> None:
        """Write the rows that the listing changed."""
        write = partial(self._write_changed, look=look)
        await self._in_pages(found, write, lambda one: one.instance_id)

    async def missing(self, found: Sequence[Missing], look: Look) -> None:
        """Store the counts of absence of rows that are not in the listing."""
        write = partial(self._write_missing, look=look)
        await self._in_pages(found, write, lambda one: one.instance_id)

    async def withheld(self, found: Sequence[Missing], look: Look) -> None:
        """Note absences that are not counted, because a hold is about them."""
        write = partial(self._write_withheld, read_at=look.read_at)
        await self._in_pages(found, write, lambda one: one.instance_id)

    async def _in_pages(
        self,
        found: Sequence[T],
        write: Callable[[Connection, Sequence[T]], None],
        record_of: Callable[[T], str],
    ) -> None:
        """Write what was found, a page in a transaction.

        If a page fails, its rows are written one by one: one record must not keep the others from
        their statuses, their costs and their limits.
        """
        for page in _pages(found):
            try:
                await self._database.write(partial(_write_page, write=write, page=page))
            except StoreError:
                raise
            except Exception:  # an error of ours about one of the records; `alone` tells it
                for one in page:
                    again = partial(_write_page, write=write, page=[one])
                    await alone(self._database.write(again), record_of(one))

    async def watched(self, listing: Listing) -> None:
        """Note what the listing shows of surplus instances that records pay."""
        rows = {row.id: row for row in listing.instances}
        watch = partial(ledger.watch, rows=rows, look=listing.look, complete=listing.complete)
        await self._database.write(watch)

    async def gone(self, instance_id: str, began_at: int) -> None:
        """Record that an instance is proven gone."""
        write = partial(self._write_gone, instance_id=instance_id, began_at=began_at)
        await alone(self._database.write(write), instance_id)

    async def unseen(self, found: Sequence[Unseen], began_at: int, absent_after: float) -> None:
        """Store the counts of unseen attempts, and end those that are proven absent."""

        def write(connection: Connection, page: Sequence[Unseen]) -> None:
            for one in page:
                if one.is_absent(began_at, absent_after):
                    attempts.record_result(connection, one.attempt.id, AttemptState.ABSENT)
                    self._wake_of(connection, one.attempt.instance_id)
                else:
                    attempts.note_unseen(
                        connection, one.attempt.id, count=one.count, since=one.since
                    )

        await self._in_pages(found, write, lambda one: one.attempt.instance_id)

    async def doubted(self, found: Sequence[Tracked]) -> None:
        """Clear upstream IDs from answers to create calls that turned out to be foreign."""
        for one in found:
            await alone(self._database.write(partial(self._write_doubt, one=one)), one.id)

    async def unmarked(self, found: Sequence[Tracked], *, complete: bool) -> None:
        """Count the complete listings that show a record's instance without a marker."""
        counted = [one for one in found if complete or one.confirmed_at is not None]

        def write(connection: Connection, page: Sequence[Tracked]) -> None:
            instances.lock_many(connection, sorted(one.id for one in page))
            for one in page:
                columns: dict[str, object] = {"obs_unmarked_count": one.unmarked_count + 1}
                if one.origin is Origin.ADOPTED and one.confirmed_at is not None:
                    columns = self._reopen_identity(one)
                    missing = {one.id: one.upstream_id}
                    ledger.absent(connection, missing, self._clock.now())
                instances.update_columns(connection, one.id, columns)

        await self._in_pages(counted, write, lambda one: one.id)

    def _reopen_identity(self, one: Tracked) -> dict[str, object]:
        """Withdraw an adopted record's confirmation: its instance has another creation time."""
        _log.warning("identity_doubted", instance_id=one.id, upstream_id=one.upstream_id)
        return {"confirmed_at": None, "bought_at": self._clock.now(), "identity_told_at": None}

    async def unconfirmed(self, found: Sequence[Tracked]) -> None:
        """Append an event, once per record, for identities that were not confirmed in time."""
        for one in found:
            write = partial(self._tell_unconfirmed, instance_id=one.id)
            await alone(self._database.write(write), one.id)

    async def reappeared(self, one: Reappeared, look: Look) -> Reappearance:
        """Record that the instance of an ended record is listed again; return its handling."""
        return await self._database.write(partial(self._write_return, one=one, look=look))

    async def deleted_again(self, record: Former) -> None:
        """Count a deletion of an ended record's instance that is listed again."""
        count = {"deleted_again": record.deleted_again + 1}
        await self._database.write(lambda c: instances.update_columns(c, record.id, count))

    async def sighted(self, sighting: Sighting, look: Look) -> Relation:
        """Settle the attempt of a sighting; return the instance's relation to its record."""
        return await self._database.write(
            partial(self._write_sighting, sighting=sighting, look=look)
        )

    async def surplus_deleted(self, sighting: Sighting) -> None:
        """Append an event for a deleted surplus instance."""

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

    async def may_delete_orphan(self, attempt: Attempt, row: UpstreamInstance) -> bool:
        """Return whether our call made an orphan and its record can no longer adopt it."""

        def judge(connection: Connection) -> bool:
            instance = instances.load(connection, attempt.instance_id)
            if instance is None or instances.owner_of(connection, row.id) is not None:
                return False
            other = instance.upstream_id not in {None, row.id} and not instance.unconfirmed
            ended = instance.status is InstanceStatus.TERMINATED and not instance.ended_by_absence
            return (other or ended) and made_by(attempt, row, instance.gpu_num, self._call_timeout)

        return await self._database.read(judge)

    def _write_changed(self, connection: Connection, page: Sequence[Changed], look: Look) -> None:
        """Write a page in bulk. Only rows with a status change or an event need more queries."""
        began_at = look.began_at
        before = instances.lock_many(connection, [change.instance_id for change in page])
        fresh = [
            change
            for change in page
            if change.instance_id in before and not _is_older(began_at, before[change.instance_id])
        ]
        secrets = self._secrets(connection, fresh)
        run_look = RunLook(began_at, coordination.listed_at(connection), look.clock_offset)
        seen = {
            change.instance_id: observed_columns.with_run(
                observed_columns.observed(
                    change.row, began_at, secrets.get(change.instance_id, ())
                ),
                change.row,
                before[change.instance_id],
                run_look,
            )
            for change in fresh
        }
        instances.update_observed(
            connection,
            {
                change.instance_id: observed_columns.columns(
                    seen[change.instance_id], change.row, change.digest, self._vault
                )
                for change in fresh
            },
        )
        old_prices = ledger.observe(
            connection, [(before[change.instance_id], change.row) for change in fresh], look
        )
        running = operations.running_of(connection, list(seen))
        for change in fresh:
            instance = before[change.instance_id]
            if change.confirms:
                self._confirm(connection, instance, change.row)
            # Use the values just written instead of reading up to 10,000 rows again.
            after = replace(
                instance,
                observed=replace(seen[instance.id], gone=instance.observed.gone),
            )
            self._tell(connection, instance, after, running.get(instance.id), change.row)
            if instance.id in old_prices:
                self._tell_price(connection, instance.id, old_prices[instance.id])
            self._limits.observed(connection, instance, seen[instance.id])
        self._wake(connection, list(running.values()))

    def _secrets(
        self, connection: Connection, page: Sequence[Changed]
    ) -> dict[str, Collection[str]]:
        """Return the environment variables' values of instances with an error, by instance."""
        failing = [change.instance_id for change in page if change.row.status_error]
        sealed = instances.load_launches(connection, failing)
        return {one: launch.unseal(self._vault, sealed[one]).envs.values() for one in sealed}

    def _confirm(self, connection: Connection, instance: Instance, row: UpstreamInstance) -> None:
        """Record that the upstream ID is confirmed to belong to the record."""
        now = self._clock.now()
        columns = {"confirmed_at": now, "upstream_created_at": row.created_at}
        instances.update_columns(connection, instance.id, columns)
        log = partial(
            _log.info,
            "instance_bought",
            instance_id=instance.id,
            upstream_id=row.id,
            name=instance.name,
            region=instance.region,
            product_id=instance.product_id,
        )
        Database.after_commit(connection, log)

    def _tell(
        self,
        connection: Connection,
        before: Instance,
        after: Instance,
        running: Operation | None,
        row: UpstreamInstance,
    ) -> None:
        """Refresh the status, and append events for drift and for an announced reclaim."""
        ours = running is not None and not running.kind.gives_way
        drift = not ours and is_drift(before, row)
        if not ours and read_word(before.observed.status) in _BEFORE_A_RETURN:
            self._follow_ups.clean_up(connection, after)
        announced = row.spot_reclaim_at not in {None, before.observed.spot_reclaim_at}
        moves = derive(after, running.kind if running else None) is not after.status
        if not (moves or drift or announced):
            return
        if not ours and is_reclaimed(row):
            # No verb is running, so no operation owns the error columns now.
            message = "Novita reclaimed this spot instance"
            instances.update_columns(
                connection,
                after.id,
                instances.error_columns("SPOT_RECLAIMED", message, self._clock.now()),
            )
        also: dict[str, object] = {}
        if drift:
            also["drift"] = {"from": before.observed.status, "to": row.status}
        told = self._crediting(running).refresh_status(connection, after.id, also=also)
        if drift and self._late_calls.put_right(connection, told):
            return
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
        self._follow_ups.ensure(connection, told)

    def _tell_price(self, connection: Connection, instance_id: str, old: int) -> None:
        """Append an event for a running instance whose price has changed."""
        instance = instances.load_many(connection, [instance_id])[instance_id]
        self._recorder.append(
            connection,
            instance,
            operations.running(connection, instance_id),
            EventType.PRICE_CHANGED,
            also={"previousHourlyPrice": usd(old)},
        )

    def _write_missing(self, connection: Connection, page: Sequence[Missing], look: Look) -> None:
        began_at = look.began_at
        before = instances.lock_many(connection, [one.instance_id for one in page])
        counted = [
            one
            for one in page
            if one.instance_id in before
            and not _is_older(began_at, before[one.instance_id])
            and _absence(before[one.instance_id]) <= (one.unlisted_since, one.unlisted_count)
        ]
        instances.update_observed(
            connection,
            {
                one.instance_id: {
                    "obs_missing_since": one.since,
                    "obs_missing_count": one.count,
                    "obs_unlisted_since": one.unlisted_since,
                    "obs_unlisted_count": one.unlisted_count,
                }
                for one in counted
            },
        )
        missing = {one.instance_id: one.upstream_id for one in counted}
        ledger.absent(connection, missing, look.read_at)
        running = operations.running_of(connection, [one.instance_id for one in counted])
        self._wake(connection, list(running.values()))

    @staticmethod
    def _write_withheld(connection: Connection, page: Sequence[Missing], read_at: int) -> None:
        missing = {one.instance_id: one.upstream_id for one in page}
        instances.lock_many(connection, sorted(missing))
        ledger.absent(connection, missing, read_at)
        # The ledger must learn of the return even if the row comes back unchanged.
        instances.forget_digests(connection, sorted(missing))

    def _write_gone(self, connection: Connection, instance_id: str, began_at: int) -> None:
        instance = instances.lock(connection, instance_id)
        if instance is None or _is_older(began_at, instance):
            return
        instances.update_columns(connection, instance_id, {"obs_gone": True, "obs_at": began_at})
        running = operations.running(connection, instance_id)
        self._crediting(running).refresh_status(connection, instance_id)
        if running is not None:
            self._wake(connection, [running])

    def _write_sighting(self, connection: Connection, sighting: Sighting, look: Look) -> Relation:
        attempt, row = sighting.attempt, sighting.row
        instance = instances.lock(connection, attempt.instance_id)
        if instance is None:
            return Relation.ORPHAN
        owner = instances.owner_of(connection, row.id)
        if owner not in {None, instance.id}:
            return Relation.OURS  # another record adopted it after the comparison
        if instance.upstream_id == row.id and not instance.status.ended:
            return Relation.OURS
        running = operations.running(connection, instance.id)
        has_own = instance.upstream_id is not None and not instance.unconfirmed
        if instance.status.ended or running is None or has_own:
            return self._double(connection, sighting, instance, look)
        if sighting.contested:
            return Relation.ORPHAN
        of_another = instance.unconfirmed and attempt.upstream_id != instance.upstream_id
        if of_another or not sighting.preferred:
            return Relation.LATER
        # The marker proves that the attempt bought it, even if the answer gave another ID.
        attempts.correct(connection, attempt.id, row.id)
        # Decided under the instance's lock, so that the winner is never deleted as surplus.
        if attempts.winner(connection, instance.id) != attempt.id:
            return Relation.LATER
        if instance.unconfirmed:
            instances.update_columns(connection, instance.id, FORGOTTEN_IDENTITY)
            ledger.void(connection, instance.id, instance.upstream_id)
        self._wake(connection, [running])
        return Relation.OURS

    def _double(
        self, connection: Connection, sighting: Sighting, instance: Instance, look: Look
    ) -> Relation:
        """Return the relation of an instance whose record has another instance or has ended.

        It is surplus only if this attempt's call made it, because a copied or renamed instance can
        have the same marker.
        """
        attempt, row = sighting.attempt, sighting.row
        wanted = instance.status is InstanceStatus.RELEASED or instance.ended_by_absence
        if wanted or not made_by(attempt, row, instance.gpu_num, self._call_timeout):
            return Relation.ORPHAN
        if attempt.upstream_id in {None, row.id}:
            attempts.record_result(connection, attempt.id, AttemptState.SURPLUS, upstream_id=row.id)
        ledger.surplus(connection, instance, attempt, row, look)
        return Relation.SURPLUS

    def _write_doubt(self, connection: Connection, one: Tracked) -> None:
        instance = instances.lock(connection, one.id)
        if instance is None or instance.upstream_id != one.upstream_id or not instance.unconfirmed:
            return
        _log.warning(
            "identity_doubted", instance_id=one.id, upstream_id=one.upstream_id, name=instance.name
        )
        attempts.doubt(connection, one.id, one.upstream_id)
        instances.update_columns(connection, one.id, FORGOTTEN_IDENTITY)
        ledger.void(connection, one.id, one.upstream_id)
        self._wake_of(connection, one.id)

    def _tell_unconfirmed(self, connection: Connection, instance_id: str) -> None:
        instance = instances.lock(connection, instance_id)
        if instance is None or not instance.unconfirmed:
            return
        instances.update_columns(connection, instance_id, {"identity_told_at": self._clock.now()})
        self._recorder.append(
            connection,
            instance,
            operations.running(connection, instance_id),
            EventType.IDENTITY_UNCONFIRMED,
        )

    def _write_return(self, connection: Connection, one: Reappeared, look: Look) -> Reappearance:
        record, row = one.record, one.row
        instance = instances.lock(connection, record.id)
        owner = instances.owner_of(connection, row.id)
        if owner is not None:
            if instance is not None and owner == instance.id and instance.observed.gone:
                ledger.observe(connection, [(instance, row)], look)
                self._come_back(connection, instance.id, row)
            return Reappearance.OWNED
        if instance is None or instance.status is not InstanceStatus.TERMINATED:
            return Reappearance.ORPHAN
        if instance.ended_by_absence:
            ledger.observe(connection, [(instance, row)], look)
            self._revive(connection, instance, row)
            return Reappearance.REAPPEARED
        if not operations.was_deleted(connection, record.id):
            return Reappearance.ORPHAN
        ledger.observe(connection, [(instance, row)], look)
        if record.deleted_again < MAX_DELETED_AGAIN:
            return Reappearance.DELETE
        if record.deleted_again == MAX_DELETED_AGAIN:
            told = {"deleted_again": record.deleted_again + 1}
            instances.update_columns(connection, record.id, told)
            self._recorder.append(connection, instance, None, EventType.DELETE_INEFFECTIVE)
        return Reappearance.ORPHAN

    def _revive(self, connection: Connection, instance: Instance, row: UpstreamInstance) -> None:
        """Revive a record that ended only by absence."""
        now = self._clock.now()
        columns: dict[str, object] = {
            "terminated_at": None,
            "acted_at": None,
            "updated_at": now,
            **instances.NOT_MISSING,
            "obs_status": row.status[:64],
            "obs_digest": None,
            **instances.NO_ERROR,
        }
        instances.update_columns(connection, instance.id, columns)
        revived = self._recorder.revive(connection, instance.id)
        self._recorder.append(
            connection,
            revived,
            None,
            EventType.REAPPEARED,
            also={"previousStatus": InstanceStatus.TERMINATED.value},
        )
        self._follow_ups.ensure(connection, revived)

    def _come_back(self, connection: Connection, instance_id: str, row: UpstreamInstance) -> None:
        """Append a drift event for a gone instance that reappeared, and clean it up if failed."""
        instances.update_columns(connection, instance_id, instances.NOT_MISSING)
        instance = self._recorder.refresh_status(connection, instance_id)
        self._follow_ups.clean_up(connection, instance)
        self._recorder.append(
            connection,
            instance,
            operations.running(connection, instance_id),
            EventType.DRIFT,
            also={"drift": {"from": "gone", "to": row.status}},
        )

    def _crediting(self, running: Operation | None) -> Recorder:
        """Return a recorder that names who began the running operation, which made the change.

        If none is running, or one that only follows what listings show, sync is named.
        """
        if running is None or running.kind.gives_way:
            return self._recorder
        return self._recorder.by(running.actor)

    def _wake(self, connection: Connection, waiting: Sequence[Operation]) -> None:
        """Make operations due now that wait for a change of the observed state."""
        operations.wake(connection, [one.id for one in waiting], now=self._clock.now())
        for operation in waiting:
            self._jobs.nudge(connection, operation.kind.job, operation.id)

    def _wake_of(self, connection: Connection, instance_id: str) -> None:
        running = operations.running(connection, instance_id)
        if running is not None:
            self._wake(connection, [running])


def is_drift(before: Instance, row: UpstreamInstance) -> bool:
    """Return whether a row shows a status change that novitai did not make.

    That is a change from a status at rest, or to an undocumented status (upstream.md §7).
    """
    if before.observed.status in {None, row.status}:
        return False
    at_rest = read_word(before.observed.status) in {
        Observation.RUNNING,
        Observation.EXITED,
        Observation.UNKNOWN,
    }
    return at_rest or read_word(row.status) is Observation.UNKNOWN


def is_reclaimed(row: UpstreamInstance) -> bool:
    """Return whether Novita has reclaimed a spot instance (upstream.md §8)."""
    taken = row.spot_status in {"reclaiming", "terminated"}
    return taken and read_word(row.status) is Observation.EXITED


def _is_older(began_at: int, instance: Instance) -> bool:
    """Return whether a listing is older than the last observation or call of the instance."""
    return began_at <= max(instance.observed.at or 0, instance.acted_at or 0)


def _absence(instance: Instance) -> tuple[int, int]:
    """Return since when and how many times it was not listed, as a tuple that orders by recency."""
    return instance.observed.unlisted_since or 0, instance.observed.unlisted_count


async def alone(work: Awaitable[T], instance_id: str) -> T | None:
    """Await what is written of one instance; return None if it fails.

    An error of ours about one record must not end the pass, which would keep all others from what
    the listing shows of them. The next listing tries again.

    Raises:
        StoreError: the store itself is in trouble.
    """
    try:
        return await work
    except StoreError:
        raise
    except Exception:  # any error of ours
        _log.exception("observation_failed", instance_id=instance_id)
        return None


def _write_page(
    connection: Connection,
    write: Callable[[Connection, Sequence[T]], None],
    page: Sequence[T],
) -> None:
    write(connection, page)


def _pages(found: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(found), PAGE):
        yield found[start : start + PAGE]
