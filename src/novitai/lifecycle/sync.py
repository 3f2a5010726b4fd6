# SPDX-License-Identifier: Apache-2.0
"""Sync: one listing of the whole account feeds everyone who waits for something.

It writes what was observed, settles attempts by their markers, wakes the operations concerned, and
deletes what was bought twice. An instance that is not ours is counted and never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.operation import Attempt
from novitai.jobs.waiting import cancel, keeping
from novitai.lifecycle import observing
from novitai.lifecycle.applying import Applier, Standing
from novitai.lifecycle.diffing import (
    Changed,
    Difference,
    Missing,
    Sighting,
    compare,
    marked_ids,
    unmanaged_row,
)
from novitai.store import attempts, coordination, instances, operations
from novitai.store.coordination import LastListing, Unmanaged
from novitai.store.database import Database
from novitai.store.errors import StoreError
from novitai.store.instances import Tracked
from novitai.upstream.client import NovitaClient
from novitai.upstream.errors import BreakerOpen, Gone, KeyRefused, RateLimited, UpstreamError
from novitai.upstream.models import Listing, UpstreamInstance

JOB: Final = "sync_instances"
LEASE: Final = "sync"
LEASE_MS: Final = 8_000
"""After so many milliseconds without a sign of life another process takes over."""
RENEW_SECONDS: Final = 2.5
SLOWER: Final = 10
SLOWEST: Final = 60.0
"""Seconds between two listings while nothing moves, at most."""
LOOK_UPS_PER_PASS: Final = 20
LOOK_UP_FAULTS: Final = 3
"""After so many faults a pass leaves the other look-ups to the next one."""
_NOBODY_IS_SERVED: Final = (BreakerOpen, RateLimited, KeyRefused)

_log = structlog.get_logger("novitai.sync")

Measured = Callable[[float, bool], None]
"""Told how many seconds a pass took, and whether it succeeded."""


class Sync:
    """Lists the account: often while something moves, seldom while nothing does."""

    def __init__(
        self,
        database: Database,
        client: NovitaClient,
        applier: Applier,
        clock: Clock,
        *,
        holder: str,
        installation_id: str,
        interval: float,
        absent_after: float,
        call_timeout: float,
        measured: Measured = lambda _seconds, _succeeded: None,
    ) -> None:
        """Put sync together.

        Args:
            database: Where the rows are.
            client: Novita.
            applier: Writes what changed.
            clock: Time and waiting.
            holder: Who takes the lease, so that one process at a time lists.
            installation_id: Whose markers are ours.
            interval: Seconds between listings while something moves.
            absent_after: Seconds an attempt must be unseen to count as absent.
            call_timeout: Seconds that one call to Novita may take.
            measured: Told of every pass.
        """
        self._database = database
        self._client = client
        self._applier = applier
        self._clock = clock
        self._holder = holder
        self._installation_id = installation_id
        self._interval = interval
        self._absent_after = absent_after
        self._call_timeout = call_timeout
        self._measured = measured
        self._task: asyncio.Task[None] | None = None
        self._began_at: float | None = None
        self._look_up_next = 0

    def start(self) -> None:
        """Begin to list."""
        self._task = asyncio.create_task(self._run(), name="sync")

    async def stop(self) -> None:
        """Stop listing, and let another process take over at once."""
        if self._task is None:
            return
        await cancel(self._task)
        with contextlib.suppress(StoreError):
            await self._database.write(
                lambda connection: coordination.release_lease(connection, LEASE, self._holder)
            )

    async def _run(self) -> None:
        while True:
            try:
                if await self._database.write(self._is_due):
                    async with keeping(self._renew(), name="sync-lease"):
                        await self._timed_pass()
            except UpstreamError as error:
                _log.warning("listing failed", error=str(error))
            except StoreError as error:
                _log.warning("database in trouble", error=str(error))
            except Exception:  # a defect must not end the only poll there is
                _log.exception("sync failed")
            await self._clock.sleep(min(self._interval, RENEW_SECONDS))

    async def _timed_pass(self) -> None:
        began = self._began_at = self._clock.monotonic()
        succeeded = False
        try:
            await self.once()
            succeeded = True
        finally:
            self._measured(self._clock.monotonic() - began, succeeded)

    def _is_due(self, connection: Connection) -> bool:
        """Take or keep the lease; tell whether the account should be listed now."""
        if not self._take_lease(connection):
            return False
        moving = operations.count_unfinished(connection) or instances.count_in_transition(
            connection
        )
        pause = self._interval
        if not moving:
            pause = max(pause, min(SLOWER * self._interval, SLOWEST))
        # A little early is better than a whole round late.
        pause -= min(self._interval, RENEW_SECONDS) / 2
        if self._began_at is not None and self._clock.monotonic() - self._began_at < pause:
            return False
        last = coordination.last_listing(connection)
        # A time to come is another machine's clock: it must not keep us from listing.
        return last is None or abs(self._clock.now() - last.began_at) >= pause * 1000

    def _take_lease(self, connection: Connection) -> bool:
        now = self._clock.now()
        return coordination.take_lease(
            connection, LEASE, self._holder, now=now, until=now + LEASE_MS
        )

    async def _renew(self) -> None:
        """Keep the lease while a pass takes long."""
        while True:
            await self._clock.sleep(RENEW_SECONDS)
            await self._database.write(self._take_lease)

    async def once(self) -> Difference:
        """List the account once and write down what changed.

        Raises:
            UpstreamError: the account could not be listed; nothing was changed.
        """
        listing = await self._client.list_instances()
        tracked, marked, known, unsettled = await self._database.read(
            lambda connection: self._load(connection, listing)
        )
        difference = compare(listing, tracked, marked, known, unsettled, self._call_timeout)
        lost = [one.row for one in difference.sightings if await self._settle_sighting(one)]
        unmanaged = (*difference.unmanaged, *(unmanaged_row(row) for row in lost))
        await self._applier.changed(difference.changed, listing.began_at)
        await self._applier.missing(difference.missing, listing.began_at)
        # Only now: to whoever reads that this listing was made, every row is as it says.
        await self._database.write(lambda connection: self._record(connection, listing, unmanaged))
        await self._applier.unseen(difference.unseen, listing.began_at, self._absent_after)
        await self._look_up(difference.missing, listing.began_at)
        return difference

    def _load(
        self, connection: Connection, listing: Listing
    ) -> tuple[
        Sequence[Tracked], dict[str, UpstreamInstance], dict[str, Attempt], Sequence[Attempt]
    ]:
        tracked = instances.tracked(connection)
        marked = marked_ids(listing, tracked, self._installation_id)
        known = attempts.by_ids(connection, list(marked))
        return tracked, marked, known, attempts.unsettled(connection)

    def _record(
        self, connection: Connection, listing: Listing, unmanaged: Sequence[Unmanaged]
    ) -> None:
        newest = coordination.last_listing(connection)
        if newest is None or newest.began_at <= listing.began_at:
            coordination.replace_unmanaged(connection, unmanaged)
        coordination.record_listing(
            connection,
            LastListing(listing.began_at, listing.complete, len(listing.instances), len(unmanaged)),
        )

    async def _settle_sighting(self, sighting: Sighting) -> bool:
        """Adopt or delete what bears our marker; tell whether it is lost to its record."""
        standing = await self._applier.sighted(sighting)
        facts = {"upstream_id": sighting.row.id, "instance": sighting.attempt.instance_id}
        if standing is Standing.LOST:
            _log.warning("an instance that was proven gone is there again", **facts)
        if standing is not Standing.SURPLUS:
            return standing is Standing.LOST
        _log.warning("deleting a surplus instance", **facts)
        try:
            await self._client.delete(sighting.row.id)
        except Gone:
            return False
        except UpstreamError as error:
            # The next listing shows it again, if it still exists.
            _log.warning("surplus not deleted", error=str(error), **facts)
            return False
        await self._applier.surplus_deleted(sighting)
        return False

    async def _look_up(self, missing: Sequence[Missing], began_at: int) -> None:
        """Ask for rows that stay missing: only a look-up proves that they are gone."""
        worth = [one for one in missing if one.worth_a_look(began_at, self._absent_after)]
        # Each pass goes on where the last one ended, so that none keeps the others from their turn.
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
                _log.warning("look-up failed", instance=one.instance_id, error=str(error))
                faults += 1
                if faults == LOOK_UP_FAULTS or isinstance(error, _NOBODY_IS_SERVED):
                    return  # the next listing must not wait for the rest
            else:
                # The list leaves it out; what the look-up says is as good, and ends the absence.
                found = Changed(one.instance_id, row, observing.digest(row))
                await self._applier.changed([found], began_at)
