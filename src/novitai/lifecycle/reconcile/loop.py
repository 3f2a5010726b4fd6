# SPDX-License-Identifier: Apache-2.0
"""Sync: list the whole account periodically and reconcile it with the records.

Each pass writes the observed state, settles attempts by their markers, wakes the operations
concerned, and deletes surplus instances. Unmanaged instances are recorded and never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from enum import Enum, auto
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from novitai.crash_points import CrashPoint, reach
from novitai.domain.account import AccountState, gone_after
from novitai.domain.billing_edges import Look
from novitai.domain.marker import MARKER_LENGTH
from novitai.jobs.waiting import cancel, keeping, within
from novitai.lifecycle.account import Account
from novitai.lifecycle.core import Core
from novitai.lifecycle.reconcile import observed_columns
from novitai.lifecycle.reconcile.apply import Applier, Reappearance, Relation, alone
from novitai.lifecycle.reconcile.diff import (
    Changed,
    Difference,
    Known,
    Markers,
    Reappeared,
    Sighting,
    Unseen,
    compare,
    unmanaged_row,
    was_by_absence,
)
from novitai.lifecycle.renewal import renew_every
from novitai.store.engine.errors import StoreError
from novitai.store.queries import (
    account,
    attempts,
    coordination,
    instances,
    leases,
    limits,
    operations,
)
from novitai.store.queries.account import Unmanaged
from novitai.store.queries.coordination import LastListing
from novitai.store.queries.future_times import TOLERATED
from novitai.telemetry.memory import give_back
from novitai.upstream.client import NovitaClient
from novitai.upstream.errors import (
    BreakerOpen,
    Gone,
    KeyRefused,
    NotSent,
    RateLimited,
    UpstreamError,
)
from novitai.upstream.models import Listing
from novitai.upstream.window import SendWindow

JOB: Final = "sync_instances"
LEASE: Final = "sync"
LEASE_MS: Final = 8_000
"""The lease of the sync. If it is not renewed, another process takes over."""
RENEW_SECONDS: Final = 2.5
RENEW_AGAIN_AFTER: Final = 1.0
PASS_SECONDS: Final = 1_800.0
"""The deadline of a pass, so that endless pages cannot keep the lease forever. It is long enough
for a slow limiter."""
SLOWER: Final = 10
SLOWEST: Final = 60.0
"""The longest interval between two listings while no instance changes, in seconds."""
IDENTITY_DEADLINE: Final = 600_000
"""Milliseconds from the purchase after which an unconfirmed identity is reported."""
NOTED_EVERY: Final = 86_400_000
"""Milliseconds between two notes that an upstream ID is listed."""
_MANY: Final = 1_000
"""Instances of a listing that needs megabytes of memory for a moment."""
LOOK_UPS_PER_PASS: Final = 20
LOOK_UP_FAULTS: Final = 3
"""The number of failures after which a pass leaves the other look-ups to the next pass."""
_NOBODY_IS_SERVED: Final = (BreakerOpen, RateLimited, KeyRefused)

_log = structlog.get_logger(__name__)

Measured = Callable[[float, bool], None]
"""Called with the duration of a pass in seconds, and whether it succeeded."""


class Deletion(Enum):
    """The result of the call that deletes an instance outside of an operation."""

    ACCEPTED = auto()
    REFUSED = auto()
    """Novita says that it is gone, or does not delete it."""
    FAILED = auto()
    """It was not sent, or met a fault that passes."""


class Sync:
    """Lists the account: more often while operations or instances are in transition."""

    def __init__(
        self,
        core: Core,
        client: NovitaClient,
        applier: Applier,
        account: Account,
        *,
        holder: str,
        installation_ids: Collection[str],
        interval: float,
        absent_after: float,
        call_timeout: float,
        steady: Callable[[], Awaitable[None]],
        held: Callable[[], None] = lambda: None,
        measured: Measured = lambda _seconds, _succeeded: None,
    ) -> None:
        """Set the dependencies.

        Args:
            core: The common dependencies.
            client: Novita's API.
            applier: Writes the differences.
            account: Decides on holds and keeps the list of unmanaged instances.
            holder: Identifies this process in the lease; one process lists at a time.
            installation_ids: The installation IDs in our markers.
            interval: Seconds between listings while anything is in transition.
            absent_after: Seconds an attempt must be unseen to count as absent.
            call_timeout: The timeout of a call to Novita, in seconds.
            steady: Corrects the stored times if the clock has jumped. Awaited before a listing is
                judged, because a jump would turn seconds of absence into hours.
            held: Called after every listing during a hold.
            measured: Called after every pass.
        """
        self._database = core.database
        self._client = client
        self._applier = applier
        self._account = account
        self._clock = core.clock
        self._holder = holder
        self._installation_ids = installation_ids
        self._interval = interval
        self._absent_after = absent_after
        self._call_timeout = call_timeout
        self._steady = steady
        self._held = held
        self._measured = measured
        self._task: asyncio.Task[None] | None = None
        self._began_at: float | None = None
        self._look_up_next = 0
        self._incomplete = 0
        self._window = SendWindow(0, 0.0)
        self._listed = 0

    def start(self) -> asyncio.Task[None]:
        """Start listing; return the task, which must not end before `stop`."""
        self._task = asyncio.create_task(self._run(), name="sync")
        return self._task

    async def stop(self) -> None:
        """Stop listing, and release the lease so that another process can take over at once."""
        if self._task is None:
            return
        await cancel(self._task)
        with contextlib.suppress(StoreError):
            await self._database.write(
                lambda connection: leases.release(connection, LEASE, self._holder)
            )

    async def _run(self) -> None:
        while True:
            try:
                if await self._database.write(self._is_due):
                    async with keeping(self._renewing(), name="sync-lease"):
                        await self._timed_pass()
            except UpstreamError as error:
                _log.warning("listing_failed", error=str(error))
            except StoreError as error:
                _log.warning("database_in_trouble", error=str(error))
            except Exception:  # a defect must not end the only poll there is
                _log.exception("sync_failed")
            await self._clock.sleep(min(self._interval, RENEW_SECONDS))

    async def _timed_pass(self) -> None:
        began = self._began_at = self._clock.monotonic()
        succeeded = False
        try:
            async with within(PASS_SECONDS, self._clock):
                await self.once()
            succeeded = True
        finally:
            self._measured(self._clock.monotonic() - began, succeeded)

    def _is_due(self, connection: Connection) -> bool:
        """Take or renew the lease; return whether a listing is due."""
        if not self._take_lease(connection):
            return False
        # A due limit waits for an observation that is newer than the moment it fell due.
        moving = (
            operations.count_unfinished(connection)
            or instances.count_in_transition(connection)
            or limits.count_fired(connection)
        )
        pause = self._interval
        if not moving:
            pause = max(pause, min(SLOWER * self._interval, SLOWEST))
        # List a little early rather than a whole round late.
        pause -= min(self._interval, RENEW_SECONDS) / 2
        if self._began_at is not None and self._clock.monotonic() - self._began_at < pause:
            return False
        last = coordination.last_listing(connection)
        # A time in the future is from another machine's clock and must not prevent a listing.
        return last is None or abs(self._clock.now() - last.began_at) >= pause * 1000

    def _take_lease(self, connection: Connection) -> bool:
        now = self._clock.now()
        window = SendWindow.lasting(self._clock, LEASE_MS)
        taken = leases.take(connection, LEASE, self._holder, now=now, until=now + LEASE_MS)
        if taken:
            self._window.until = window.until
            self._window.until_boottime = window.until_boottime
        return taken

    def _renewing(self) -> Coroutine[None, None, None]:
        """Renew the lease while a pass runs."""
        return renew_every(RENEW_SECONDS, self._renew, self._clock, retry_after=RENEW_AGAIN_AFTER)

    async def _renew(self) -> bool:
        await self._database.write(self._take_lease)
        return True

    async def once(self, window: SendWindow | None = None) -> Difference:
        """List the account once and write the differences.

        Args:
            window: Limits write calls; by default to the lease of the sync.

        Raises:
            UpstreamError: the account could not be listed; nothing was changed.
        """
        try:
            return await self._reconcile(window or self._window)
        finally:
            if self._listed >= _MANY:
                give_back()

    async def _reconcile(self, window: SendWindow) -> Difference:
        listing = await self._client.list_instances()
        self._listed = len(listing.instances)
        reach(CrashPoint.LISTING_READ)
        await self._steady()
        if listing.began_at > self._clock.now() + TOLERATED:
            _log.warning("listing_discarded", reason="clock_went_back")
            return Difference()
        markers = Markers(listing, self._installation_ids)
        known = await self._database.read(
            lambda connection: self._load(connection, listing, markers)
        )
        difference = compare(listing, markers, known, self._call_timeout)
        state = await self._take_stock(listing, markers, difference)
        # Before the sightings, because a surplus depends on the record's confirmed instance.
        confirming = [one for one in difference.changed if one.confirms]
        await self._applier.changed(confirming, listing.look)
        orphans = [
            unmanaged_row(one.row, markers.all[one.row.id], attempt_known=True, orphan=True)
            for one in difference.sightings
            if await alone(
                self._resolve_sighting(one, listing.look, state, window), one.attempt.instance_id
            )
        ]
        orphans += [
            unmanaged_row(
                one.row,
                markers.all[one.row.id],
                attempt_known=True,
                orphan=markers.attempt_of(one.row.id) is not None,
            )
            for one in difference.reappeared
            if await alone(self._resolve_return(one, listing.look, state, window), one.record.id)
        ]
        unmanaged = (*difference.unmanaged, *orphans)
        await self._applier.doubted(difference.doubted)
        await self._applier.unmarked(difference.unmarked, complete=listing.complete)
        others = [one for one in difference.changed if not one.confirms]
        await self._applier.changed(others, listing.look)
        # Absences that a hold is about are not counted; those of instances being deleted are.
        doubtful = state.hold.missing if state.hold else ()
        missing = [one for one in difference.missing if one.instance_id not in doubtful]
        await self._applier.missing(missing, listing.look)
        withheld = [one for one in difference.missing if one.instance_id in doubtful]
        await self._applier.withheld(withheld, listing.look)
        await self._applier.watched(listing)
        await self._tell_unconfirmed(known, difference)
        # Record the listing after its rows: a reader that sees it must also see their changes.
        reach(CrashPoint.LISTING_APPLIED)
        await self._database.write(lambda connection: self._record(connection, listing, unmanaged))
        reach(CrashPoint.LISTING_RECORDED)
        self._log_incomplete(listing)
        if state.hold is None:
            unseen = await self._proven_unseen(difference.unseen, known)
            await self._applier.unseen(unseen, listing.began_at, self._absent_after)
            await self._look_up(difference, listing.began_at)
        await self._delete_orphans(listing, markers, known, state, window)
        return difference

    def _load(self, connection: Connection, listing: Listing, markers: Markers) -> Known:
        tracked = instances.tracked(connection)
        own = {ours.upstream_id for ours in tracked if ours.confirmed_at is not None}
        strangers = [row.id for row in listing.instances if row.id not in own]
        wanted = [one for row_id in strangers if (one := markers.attempt_of(row_id)) is not None]
        open_ids = [ours.id for ours in tracked if ours.confirmed_at is None]
        unsettled = attempts.unsettled(connection)
        return Known(
            tracked=tracked,
            attempts=attempts.by_ids(connection, wanted),
            unsettled=unsettled,
            replied=attempts.replied_of(connection, open_ids),
            former=instances.former_of(connection, strangers),
            first_listed=account.first_listed(
                connection,
                strangers
                if open_ids or unsettled
                else [one for one in strangers if markers.attempt_of(one) is not None],
            ),
            deleting=operations.deleting(connection),
            account=account.load_state(connection),
        )

    async def _take_stock(
        self, listing: Listing, markers: Markers, difference: Difference
    ) -> AccountState:
        """Note which upstream IDs are listed, and decide whether to begin or end a hold."""
        # Read on every pass, because the database may have been restored since the last listing.
        not_noted = partial(
            account.not_noted,
            seen={row.id: markers.attempt_of(row.id) for row in listing.instances},
            since=listing.began_at - NOTED_EVERY,
        )
        seen = await self._database.read(not_noted)
        census = difference.census

        def write(connection: Connection) -> AccountState:
            account.note_listed(connection, seen, listing.began_at)
            if census is not None:
                self._account.take_census(connection, census)
            self._account.notice_restored(
                connection, difference.unmanaged, clock_offset=listing.clock_offset
            )
            return account.load_state(connection)

        state = await self._database.write(write)
        if state.blocked:
            self._held()
        return state

    def _record(
        self, connection: Connection, listing: Listing, unmanaged: Sequence[Unmanaged]
    ) -> None:
        newest = coordination.last_listing(connection)
        if newest is None or newest.began_at <= listing.began_at:
            self._account.note_unmanaged(connection, unmanaged)
        coordination.record_listing(
            connection,
            LastListing(listing.began_at, listing.complete, listing.whole),
        )

    def _log_incomplete(self, listing: Listing) -> None:
        """Log when listings become incomplete, and when they are complete again."""
        if listing.complete:
            if self._incomplete:
                _log.info("listing_complete_again", after=self._incomplete)
            self._incomplete = 0
            return
        self._incomplete += 1
        if self._incomplete == 1:
            _log.warning(
                "listing_incomplete",
                instances=len(listing.instances),
                total=listing.total,
                every_page_read=listing.whole,
            )

    async def _tell_unconfirmed(self, known: Known, difference: Difference) -> None:
        """Report records that are still unconfirmed ten minutes after the purchase."""
        done = {one.instance_id for one in difference.changed if one.confirms}
        done |= {one.id for one in difference.doubted}
        now = self._clock.now()
        late = [
            ours
            for ours in known.tracked
            if ours.confirmed_at is None
            and ours.identity_told_at is None
            and ours.id not in done
            and now - (ours.bought_at or now) >= IDENTITY_DEADLINE
        ]
        await self._applier.unconfirmed(late)

    async def _resolve_sighting(
        self, sighting: Sighting, look: Look, state: AccountState, window: SendWindow
    ) -> bool:
        """Assign or delete an instance with our marker; return whether it is an orphan."""
        standing = await self._applier.sighted(sighting, look)
        if standing is not Relation.SURPLUS:
            return standing is Relation.ORPHAN
        if state.blocked:
            return False
        facts = {"upstream_id": sighting.row.id, "instance_id": sighting.attempt.instance_id}
        _log.warning("surplus_deleting", **facts)
        if await self._delete(sighting.row.id, window, facts) is Deletion.ACCEPTED:
            await self._applier.surplus_deleted(sighting)
        return False

    async def _resolve_return(
        self, one: Reappeared, look: Look, state: AccountState, window: SendWindow
    ) -> bool:
        """Revive a record or delete its instance again; return whether that is an orphan."""
        if state.blocked and not was_by_absence(one.record):
            return False
        outcome = await self._applier.reappeared(one, look)
        if outcome is Reappearance.DELETE:
            facts = {"upstream_id": one.row.id, "instance_id": one.record.id}
            _log.warning("deleting_again", **facts)
            # Counted only now: a deletion that was not sent, or met a fault, is tried again.
            if await self._delete(one.row.id, window, facts) is not Deletion.FAILED:
                await self._applier.deleted_again(one.record)
        return outcome is Reappearance.ORPHAN

    async def _delete(
        self, upstream_id: str, window: SendWindow, facts: Mapping[str, object]
    ) -> Deletion:
        """Delete an instance. If it still exists, a later listing shows it again."""
        reach(CrashPoint.STRAY_DELETING)
        try:
            await self._client.delete(upstream_id, window=window)
            reach(CrashPoint.STRAY_DELETED)
        except Gone:
            return Deletion.REFUSED
        except UpstreamError as error:
            _log.warning("delete_failed", error=str(error), **facts)
            passes = error.is_fault or isinstance(error, (NotSent, RateLimited, KeyRefused))
            return Deletion.FAILED if passes else Deletion.REFUSED
        return Deletion.ACCEPTED

    async def _delete_orphans(
        self,
        listing: Listing,
        markers: Markers,
        known: Known,
        state: AccountState,
        window: SendWindow,
    ) -> None:
        """Delete the orphans that our own calls have made, if the policy allows it."""
        if state.blocked:
            return
        due = await self._database.read(self._account.orphans_to_delete)
        rows = {row.id: row for row in listing.instances}
        for orphan in due:
            row, attempt_id = rows.get(orphan.upstream_id), markers.attempt_of(orphan.upstream_id)
            attempt = known.attempts.get(attempt_id or "")
            if row is None or attempt is None:
                continue
            if not await self._applier.may_delete_orphan(attempt, row):
                continue
            facts = {"upstream_id": row.id, "instance_id": attempt.instance_id}
            if await self._delete(row.id, window, facts) is Deletion.ACCEPTED:
                note = partial(self._account.note_orphan_deleted, orphan=orphan)
                await alone(self._database.write(note), attempt.instance_id)

    async def _proven_unseen(self, unseen: Sequence[Unseen], known: Known) -> list[Unseen]:
        """Return the attempts whose absence counts in this pass.

        Absence from a complete listing counts. Absence from an incomplete one counts only if a
        listing filtered by the marker is empty too, and that filter is known to work.
        """
        found = [one for one in unseen if one.complete]
        weak = [one for one in unseen if not one.complete]
        if not weak or not await self._filter_works(known):
            return found
        for one in weak:
            name = one.attempt.upstream_name[-MARKER_LENGTH:]
            try:
                if not await self._client.find_instances(name):
                    found.append(one)
            except UpstreamError as error:
                _log.warning("look_up_failed", attempt=one.attempt.id, error=str(error))
                break
        return found

    async def _filter_works(self, known: Known) -> bool:
        """Return whether the listing's name filter finds our instances; try it if not known."""
        if known.account.filter_works:
            return True
        ours = next((one for one in known.tracked if one.confirmed_at is not None), None)
        if ours is None:
            return False
        name = await self._database.read(
            partial(attempts.name_bought, upstream_id=ours.upstream_id)
        )
        if name is None:
            return False
        try:
            found = await self._client.find_instances(name[-MARKER_LENGTH:])
        except UpstreamError:
            return False
        if ours.upstream_id not in {row.id for row in found}:
            return False
        await self._database.write(self._account.found_filter)
        return True

    async def _look_up(self, difference: Difference, began_at: int) -> None:
        """Look up instances that stay missing, because only a look-up proves that they are gone."""
        live = len(difference.census.live) if difference.census else 0
        long = gone_after(live)
        worth = [
            one
            for one in difference.missing
            if one.worth_a_look(began_at, self._absent_after, long)
        ]
        # Each pass continues where the last one ended, so that every instance gets its turn.
        start = self._look_up_next % len(worth) if worth else 0
        self._look_up_next = start
        faults = 0
        for one in [*worth[start:], *worth[:start]][:LOOK_UPS_PER_PASS]:
            self._look_up_next += 1
            try:
                row = await self._client.instance(one.upstream_id)
            except Gone:
                await self._applier.gone(one.instance_id, began_at)
            except UpstreamError as error:
                _log.warning("look_up_failed", instance_id=one.instance_id, error=str(error))
                faults += 1
                if faults == LOOK_UP_FAULTS or isinstance(error, _NOBODY_IS_SERVED):
                    return  # do not delay the next listing
            else:
                # The listing omits it, but the look-up shows it: update the row, end the absence.
                found = Changed(one.instance_id, row, observed_columns.digest(row))
                now = self._clock.now()
                await self._applier.changed([found], Look(began_at, now, self._client.clock_offset))
