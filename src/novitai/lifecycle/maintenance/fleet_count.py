# SPDX-License-Identifier: Apache-2.0
"""Counts the figures about the whole installation every 10 seconds, for the metrics.

One worker counts at a time, by a lease, and stores them as one row. Every process shows that row,
so all show the same, and a scrape costs the same with one instance as with thousands.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.billing import UNIT
from novitai.jobs.supervision import Loop
from novitai.jobs.waiting import cancel
from novitai.lifecycle.money import reconciliation
from novitai.lifecycle.money.admission import uses
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreError
from novitai.store.queries import account, billing, budgets, coordination, fleet, leases, limits
from novitai.store.queries.fleet import FleetNumbers, MoneyNumbers

LEASE: Final = "fleet"
LEASE_MS: Final = 25_000
PAUSE: Final = 10.0
"""Seconds between two counts."""
MONEY_EVERY: Final = 60_000
"""Milliseconds between two counts of spending and budgets, which sum up the ledger."""

_log = structlog.get_logger(__name__)


class FleetCount:
    """Counts and stores the figures.

    Args:
        database: The store.
        clock: The clock.
        balance: Returns the balance of the account in USD; None if Novita does not tell it.
        holder: Identifies this process in the lease.
        listing_interval: Seconds between two listings of the account.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        balance: Callable[[], Awaitable[float | None]],
        *,
        holder: str,
        listing_interval: float,
    ) -> None:
        self._database = database
        self._clock = clock
        self._balance = balance
        self._holder = holder
        self._listing_interval = listing_interval
        self._task: asyncio.Task[None] | None = None

    def start(self) -> Loop:
        """Start counting; return the loop."""
        self._task = asyncio.create_task(self._run(), name="fleet-count")
        return self._task

    async def stop(self) -> None:
        """Stop, and release the lease so that another process can take over at once."""
        if self._task is None:
            return
        await cancel(self._task)
        with contextlib.suppress(StoreError):
            await self._database.write(partial(leases.release, name=LEASE, holder=self._holder))

    async def once(self) -> bool:
        """Count and store the figures, unless another process does; return whether this one did."""
        now = self._clock.now()
        before = await self._database.read(partial(self._before, now=now))
        if before is None:
            return False
        known = before[0]
        money = known.money if known else None
        is_due = money is None or not 0 <= now - money.counted_at < MONEY_EVERY
        balance = await self._balance() if is_due or money is None else money.balance
        count = partial(self._count, now=now, money=money, is_due=is_due, balance=balance)
        numbers = await self._database.read(count, snapshot=True)
        return await self._database.write(partial(self._save, numbers=numbers))

    async def read(self) -> FleetNumbers | None:
        """Return the stored figures; None before they are first counted."""
        return await self._database.read(fleet.load)

    def _before(self, connection: Connection, now: int) -> tuple[FleetNumbers | None] | None:
        """Load the stored figures; None if another process counts them."""
        if leases.is_taken(connection, LEASE, self._holder, now=now):
            return None
        return (fleet.load(connection),)

    def _count(
        self,
        connection: Connection,
        now: int,
        money: MoneyNumbers | None,
        balance: float | None,
        *,
        is_due: bool,
    ) -> FleetNumbers:
        looked = coordination.looked(connection)
        bills = reconciliation.numbers(connection, now)
        if money is None or is_due:
            money = _count_money(connection, now, money, looked.complete_at, balance)
        return FleetNumbers(
            counted_at=now,
            instances=fleet.count_instances(connection),
            operations=fleet.count_operations(connection),
            oldest_due=fleet.oldest_due(connection, now),
            orphans=account.count_orphans(connection),
            unmanaged=fleet.count_unmanaged(connection),
            held=account.load_state(connection).blocked,
            incomplete_listings=looked.incomplete_count,
            listed_at=looked.complete_at,
            listing_interval=self._listing_interval,
            unenforced=limits.count_unenforced(connection),
            burn=billing.burn(connection, now),
            bills_until=bills.until,
            bill_events=bills.told,
            money=money,
        )

    def _save(self, connection: Connection, numbers: FleetNumbers) -> bool:
        now = self._clock.now()
        if not leases.take(connection, LEASE, self._holder, now=now, until=now + LEASE_MS):
            return False
        fleet.save(connection, numbers)
        return True

    async def _run(self) -> None:
        while True:
            try:
                await self.once()
            except StoreError as error:
                _log.warning("database_in_trouble", error=str(error))
            except Exception:  # a defect in a figure must not end the others for good
                _log.exception("fleet_count_failed")
            await self._clock.sleep(PAUSE)


def _count_money(
    connection: Connection,
    now: int,
    before: MoneyNumbers | None,
    listed_at: int | None,
    balance: float | None,
) -> MoneyNumbers:
    spend = fleet.spend(connection, listed_at)
    if before is not None:
        # A correction of the ledger lowers a sum; for Prometheus a counter that falls was reset.
        spend = {kind: max(spent, before.spend.get(kind, 0)) for kind, spent in spend.items()}
    return MoneyNumbers(now, spend, _used_ratios(connection, now), balance)


def _used_ratios(connection: Connection, now: int) -> dict[str, float]:
    """Return the spent share of each budget by name; of equal names, the largest.

    Budgets that are limits of keys are left out: there may be any number of them.
    """
    found = [one for one in budgets.load_all(connection) if not one.key_limit]
    used = uses(connection, found, now)
    ratios: dict[str, float] = {}
    for one in found:
        ratio = used[one.id].spent_exact / (max(1, one.terms.amount) * UNIT)
        ratios[one.terms.name] = max(ratio, ratios.get(one.terms.name, 0.0))
    return ratios
