# SPDX-License-Identifier: Apache-2.0
"""Reads Novita's bills once an hour, and compares them with the ledger.

One process reads at a time, by a lease. When to read, how far a pass has come and what was told are
rows, so a pass that was killed goes on, and no event is told twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from novitai.clock import iso
from novitai.domain.actor import RECONCILIATION
from novitai.domain.billing import DAY_MS, HOUR_MS, half_even, usd_down, usd_up
from novitai.domain.billing_edges import CLOCKS_AGREE
from novitai.domain.event import EventType
from novitai.domain.product import usd
from novitai.domain.reconciliation import (
    BEHIND_MS,
    EDGE_MS,
    BillState,
    BillWindow,
    Comparison,
    OwnerAccount,
    OwnerKind,
    compare,
    day_of,
    hour_at_or_after,
    unexplained,
)
from novitai.domain.view import present
from novitai.errors import NovitaiError
from novitai.jobs.supervision import Loop
from novitai.jobs.waiting import cancel, keeping, within
from novitai.lifecycle.core import Core
from novitai.lifecycle.renewal import renew_every
from novitai.store.engine.errors import StoreError
from novitai.store.queries import account, billing, coordination, leases
from novitai.store.queries import reconciliation as bills
from novitai.store.queries.reconciliation import Bill, BillReading
from novitai.upstream.client import NovitaClient
from novitai.upstream.errors import InvalidResponse, RateLimited, Timeout, UpstreamError

LEASE: Final = "reconciliation"
LEASE_MS: Final = 30_000
RENEW_SECONDS: Final = 10.0
_RENEW_AGAIN_AFTER: Final = 2.0
LOOK_EVERY: Final = 15.0
"""Seconds between two looks whether a pass is due."""
PASS_EVERY: Final = HOUR_MS
PASS_SECONDS: Final = 600.0
"""The deadline of a pass; the next one goes on where it has come to."""
PACE: Final = 2.0
"""Seconds between two windows."""
LONGEST_WINDOW: Final = 31 * DAY_MS
"""The longest window of a list of bills (upstream.md §14), and how far back the first pass goes."""
FIRST_BACKOFF: Final = 60_000
CATEGORIES: Final = ("gpu", "cloud_storage")
KEPT_FOR: Final = 400 * DAY_MS
CLOCK_MOVED: Final = 60_000
"""If Novita's clock has moved against ours by more, its hours cannot be found in the ledger."""
_TELL_EVERY: Final = 3_600.0
_FINDINGS: Final = (
    EventType.COST_UNEXPLAINED,
    EventType.COST_UNKNOWN_OWNER,
    EventType.COST_RECONCILIATION_UNAVAILABLE,
)

_log = structlog.get_logger(__name__)


class _NotMine(NovitaiError):
    """Another process reads the bills, or has just read them."""


@dataclass(frozen=True, slots=True)
class ReconciledOwner:
    """An owner with ID and name of the record that pays it, if there is one."""

    upstream_id: str
    record: tuple[str, str] | None
    found: Comparison


@dataclass(frozen=True, slots=True)
class ReconciliationReport:
    """The comparison of an interval of full hours, in Unix milliseconds by our clock.

    Attributes:
        known_until: Until when bills are known; None if none is.
        owners: The owners that records pay, and unknown ones.
        unmanaged: The exact amount that was billed while no record paid the owner.
    """

    since: int
    until: int
    known_until: int | None
    owners: Sequence[ReconciledOwner]
    unmanaged: int


@dataclass(frozen=True, slots=True)
class ReconciliationNumbers:
    """Figures for the metrics.

    Attributes:
        until: The end of the last hour that was read, in Unix milliseconds by our clock; None
            before the first pass.
        told: The events of the last 24 hours, by their type.
    """

    until: int | None
    told: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Finding:
    """An event that a comparison leads to; `upstream_id` is empty if it concerns no owner alone."""

    type: EventType
    upstream_id: str
    day: int
    data: Mapping[str, object]


def numbers(connection: Connection, now: int) -> ReconciliationNumbers:
    """Return the figures for the metrics."""
    reading = bills.load_reading(connection)
    counts = bills.count_told(connection, now - DAY_MS)
    until = None
    if reading is not None and reading.reached is not None:
        until = reading.reached - reading.clock_offset
    return ReconciliationNumbers(until, {one.value: counts.get(one.value, 0) for one in _FINDINGS})


class BillReconciler:
    """Reads the bills, and answers questions about them."""

    def __init__(self, core: Core, client: NovitaClient, *, holder: str) -> None:
        """Set the dependencies; `holder` identifies this process in the lease."""
        self._database = core.database
        self._clock = core.clock
        self._recorder = core.recorder.by(RECONCILIATION)
        self._client = client
        self._holder = holder
        self._task: asyncio.Task[None] | None = None
        self._told_at: float | None = None

    def start(self) -> Loop:
        """Start reading; return the loop."""
        self._task = asyncio.create_task(self._run(), name="reconciliation")
        return self._task

    async def stop(self) -> None:
        """Stop, and release the lease so that another process can take over at once."""
        if self._task is None:
            return
        await cancel(self._task)
        with contextlib.suppress(StoreError):
            await self._database.write(self._release)

    async def report(self, since: int, until: int) -> ReconciliationReport:
        """Compare the hours of Novita's clock that begin in `[since, until)`.

        Args:
            since: Unix milliseconds by our clock.
            until: As `since`.
        """

        def load(connection: Connection) -> ReconciliationReport:
            reading = bills.load_reading(connection)
            ahead = 0 if reading is None else reading.clock_offset
            first, last = hour_at_or_after(since + ahead), hour_at_or_after(until + ahead)
            reached = first if reading is None or reading.reached is None else reading.reached
            window = BillWindow(first, last, reached, ahead)
            owners, names = _owners(connection, window)
            compared = [(one, compare(one, window)) for one in owners]
            known = None if reading is None else reading.known_until
            return ReconciliationReport(
                first - ahead,
                last - ahead,
                None if known is None else known - ahead,
                [
                    ReconciledOwner(one.upstream_id, names.get(one.upstream_id), found)
                    for one, found in compared
                    if one.kind is not OwnerKind.UNMANAGED and not found.is_empty
                ],
                sum(found.unmanaged for _, found in compared),
            )

        return await self._database.read(load, snapshot=True)

    async def once(self, *, if_due: bool = False) -> bool:
        """Read the bills, compare them, and tell what is found.

        Args:
            if_due: Whether to do nothing unless a pass is due.

        Returns:
            Whether the pass was completed. If not, a later one goes on.
        """
        try:
            async with keeping(self._renewing(), name="reconciliation-lease"):
                await self._pass(if_due=if_due)
        except _NotMine:
            return False
        except (UpstreamError, TimeoutError) as error:
            await self._database.write(partial(self._failed, error=error))
            self._tell_absence(error)
            return False
        finally:
            with contextlib.suppress(StoreError):
                await self._database.write(self._release)
        return True

    async def _run(self) -> None:
        while True:
            try:
                if await self._database.read(self._is_due, snapshot=True):
                    await self.once(if_due=True)
            except StoreError as error:
                _log.warning("database_in_trouble", error=str(error))
            except Exception:  # a defect must not end the loop
                _log.exception("reconciliation_failed")
            await self._clock.sleep(LOOK_EVERY)

    def _is_due(self, connection: Connection) -> bool:
        """Return whether to begin or continue a pass.

        It waits for a listing from after the hours to compare, because only listings tell whose an
        instance is, and for the end of a hold, because the bills may be another account's.
        """
        now = self._clock.now()
        reading = bills.load_reading(connection)
        if reading is not None and reading.due_at > now:
            return False
        listing = coordination.last_listing(connection)
        if listing is None or listing.began_at < now - BEHIND_MS:
            return False
        return not account.load_state(connection).blocked

    async def _pass(self, *, if_due: bool) -> None:
        reading = await self._database.write(partial(self._begin, if_due=if_due))
        async with within(PASS_SECONDS, self._clock):
            while (reading.next_since or 0) < (reading.pass_end or 0):
                reading = await self._read(reading)
                await self._clock.sleep(PACE)
        findings: Sequence[_Finding] = ()
        if reading.comparable:
            findings = await self._database.read(_judge, snapshot=True)
        else:
            _log.warning("bills_not_comparable", reason="clock_moved")
        told = await self._database.write(partial(self._finish, findings=findings))
        _log.info(
            "bills_read",
            since=iso(reading.pass_since or 0),
            until=iso(reading.pass_end or 0),
            findings=len(findings),
            told=told,
        )

    def _begin(self, connection: Connection, *, if_due: bool) -> BillReading:
        """Begin a pass, or go on with one that did not come to its end."""
        self._hold(connection)
        if if_due and not self._is_due(connection):
            raise _NotMine("the bills were just read")
        reading = bills.load_reading(connection) or BillReading(self._clock.now(), LONGEST_WINDOW)
        ahead = self._ahead(reading)
        moved = abs(ahead - reading.clock_offset) > CLOCK_MOVED
        if reading.pass_end is not None and not moved:
            return reading
        end = (self._clock.now() + ahead - BEHIND_MS) // HOUR_MS * HOUR_MS
        earliest = end - LONGEST_WINDOW
        # Bills of the day before may have changed since.
        reached = earliest if reading.reached is None else min(reading.reached, end)
        since = max(earliest, day_of(reached) - DAY_MS)
        reading = replace(
            reading,
            pass_since=since,
            pass_end=end,
            next_since=since,
            next_category=0,
            comparable=reading.reached is None or not moved,
            clock_offset=ahead,
        )
        bills.save_reading(connection, reading)
        return reading

    def _ahead(self, reading: BillReading) -> int:
        offset = self._client.clock_offset
        offset = reading.clock_offset if offset is None else offset
        return 0 if abs(offset) <= CLOCKS_AGREE else offset

    async def _read(self, reading: BillReading) -> BillReading:
        """Read one window of one category; return how far the pass has come."""
        begin, category = reading.next_since or 0, CATEGORIES[reading.next_category]
        until = min(reading.pass_end or 0, begin + reading.window_ms)
        lines = await self._client.bills(category, begin=begin, end=until)
        unreadable = lines.unreadable + sum(one.amount is None for one in lines.bills)
        if unreadable:
            _log.warning("bills_unreadable", category=category, count=unreadable)
        found = [Bill(one.owner_id, one.hour, one.amount) for one in lines.bills]

        def keep(connection: Connection) -> BillReading:
            self._hold(connection)
            bills.replace_bills(connection, category, begin, until, found)
            reading = _advanced(_known(connection), until, found)
            bills.save_reading(connection, reading)
            return reading

        return await self._database.write(keep)

    def _failed(self, connection: Connection, error: Exception) -> None:
        """Back off; a window whose bills cannot be read may be too long."""
        reading = bills.load_reading(connection)
        if reading is None:
            return
        pause = FIRST_BACKOFF * 2 ** min(reading.failures, 10)
        if isinstance(error, RateLimited) and error.retry_after is not None:
            pause = max(pause, int(error.retry_after * 1000))
        window_ms = reading.window_ms
        if isinstance(error, InvalidResponse | Timeout):
            window_ms = max(HOUR_MS, window_ms // 2 // HOUR_MS * HOUR_MS)
        reading = replace(
            reading,
            due_at=self._clock.now() + min(pause, PASS_EVERY),
            failures=reading.failures + 1,
            window_ms=window_ms,
        )
        bills.save_reading(connection, reading)

    def _finish(self, connection: Connection, findings: Sequence[_Finding]) -> int:
        """Append the events that were not told before, and end the pass; return how many."""
        self._hold(connection)
        reading, now, told = _known(connection), self._clock.now(), 0
        for one in findings:
            if bills.tell(connection, one.type, one.upstream_id, one.day, now=now):
                self._recorder.append_account(connection, one.type, one.data)
                told += 1
        bills.prune(connection, now - KEPT_FOR)
        done = replace(
            reading,
            due_at=now + PASS_EVERY,
            failures=0,
            pass_since=None,
            pass_end=None,
            next_since=None,
            next_category=0,
            reached=reading.pass_end,
        )
        bills.save_reading(connection, done)
        return told

    def _hold(self, connection: Connection) -> None:
        """Take or renew the lease.

        Raises:
            _NotMine: another process has it.
        """
        if not self._take(connection):
            raise _NotMine("another process reads the bills")

    def _take(self, connection: Connection) -> bool:
        now = self._clock.now()
        return leases.take(connection, LEASE, self._holder, now=now, until=now + LEASE_MS)

    async def _renewing(self) -> None:
        async def renew() -> bool:
            return await self._database.write(self._take)

        await renew_every(RENEW_SECONDS, renew, self._clock, retry_after=_RENEW_AGAIN_AFTER)

    def _release(self, connection: Connection) -> None:
        leases.release(connection, LEASE, self._holder)

    def _tell_absence(self, error: Exception) -> None:
        now = self._clock.monotonic()
        if self._told_at is None or now - self._told_at >= _TELL_EVERY:
            self._told_at = now
            _log.warning("figure_unavailable", figure="bills", error=str(error))


def _known(connection: Connection) -> BillReading:
    reading = bills.load_reading(connection)
    if reading is None:
        raise RuntimeError("a pass has no row")
    return reading


def _advanced(reading: BillReading, until: int, found: Sequence[Bill]) -> BillReading:
    """Return how far a pass has come that has read a window up to `until`."""
    newest = max((one.hour + HOUR_MS for one in found), default=0)
    reading = replace(
        reading,
        failures=0,
        next_since=until,
        billed_until=max(reading.billed_until or 0, newest) or None,
        window_ms=min(LONGEST_WINDOW, 2 * reading.window_ms),
    )
    if until == reading.pass_end and reading.next_category < len(CATEGORIES) - 1:
        category = reading.next_category + 1
        return replace(reading, next_since=reading.pass_since, next_category=category)
    return reading


def _owners(
    connection: Connection, window: BillWindow
) -> tuple[list[OwnerAccount], Mapping[str, tuple[str, str]]]:
    """Load the owners of a window, sorted, and ID and name of the records that pay them."""
    hours = bills.bills_between(connection, window.since, min(window.until, window.reached))
    since, until = window.since - window.ahead, window.until - window.ahead
    spans: dict[str, list[billing.SpanOf]] = {}
    with billing.between(connection, since - EDGE_MS, until + EDGE_MS) as found:
        for one in found:
            spans.setdefault(one.upstream_id, []).append(one)
    known = bills.owners_known(connection, hours.keys() | spans.keys())

    def kind(upstream_id: str) -> OwnerKind:
        if upstream_id in known.claims:
            return OwnerKind.OURS
        if upstream_id in known.listed:
            return OwnerKind.UNMANAGED
        return OwnerKind.OURS if upstream_id in known.bought else OwnerKind.UNKNOWN

    return [
        OwnerAccount(
            upstream_id,
            kind(upstream_id),
            [(one.span, one.shown_at) for one in spans.get(upstream_id, ())],
            known.claims.get(upstream_id, ()),
            hours.get(upstream_id, {}),
        )
        for upstream_id in sorted(hours.keys() | spans.keys())
    ], known.names


def _judge(connection: Connection) -> list[_Finding]:
    """Return the events that the hours of the pass lead to."""
    reading = _known(connection)
    since, end = reading.pass_since or 0, reading.pass_end or 0
    whole = BillWindow(since, end, end, reading.clock_offset)
    owners, names = _owners(connection, whole)
    watched = bills.first_listed_at(connection)
    watched = end if watched is None else watched + reading.clock_offset
    strangers = [
        _strange(one, watched) for one in owners if one.kind is OwnerKind.UNKNOWN and one.hours
    ]
    strangers = [one for one in strangers if one.hours]
    ours = [one for one in owners if one.kind is OwnerKind.OURS]
    if not any(one.hours for one in ours):
        missing = sum(compare(one, whole).state is BillState.UNDER for one in ours)
        return _unavailable(end, len(strangers), missing) if strangers or missing else []
    findings: list[_Finding] = []
    for day in _days(whole):
        findings += _unknown_owners(strangers, day)
        for one in ours:
            found = compare(one, day)
            if unexplained(found, day):
                findings.append(
                    _unexplained(one.upstream_id, names.get(one.upstream_id), day, found)
                )
    return findings


def _strange(owner: OwnerAccount, watched: int) -> OwnerAccount:
    """Return an unknown owner with the bills of the time in which the account was listed."""
    hours = {hour: bill for hour, bill in owner.hours.items() if hour >= watched}
    return replace(owner, hours=hours)


def _days(window: BillWindow) -> Iterator[BillWindow]:
    begin = window.since
    while begin < window.until:
        end = min(window.until, day_of(begin) + DAY_MS)
        yield replace(window, since=begin, until=end)
        begin = end


def _unknown_owners(strangers: Sequence[OwnerAccount], day: BillWindow) -> Iterator[_Finding]:
    for one in strangers:
        if any(day.since <= hour < day.until for hour in one.hours):
            data = {
                "upstreamId": one.upstream_id,
                "day": _day(day.since),
                "billed": usd(half_even(compare(one, day).billed)),
            }
            yield _Finding(EventType.COST_UNKNOWN_OWNER, one.upstream_id, day_of(day.since), data)


def _unexplained(
    upstream_id: str, record: tuple[str, str] | None, day: BillWindow, found: Comparison
) -> _Finding:
    data = present(
        {
            "upstreamId": upstream_id,
            "name": record[1] if record else None,
            "day": _day(day.since),
            "state": found.state.value,
            "ours": usd_down(found.least),
            "oursAtMost": None if found.most is None else usd_up(found.most),
            "billed": usd(half_even(found.billed)),
            "difference": usd(half_even(found.difference)),
        }
    )
    return _Finding(EventType.COST_UNEXPLAINED, upstream_id, day_of(day.since), data)


def _unavailable(end: int, strangers: int, missing: int) -> list[_Finding]:
    day = day_of(end - 1)
    data: dict[str, object] = {
        "day": _day(day),
        "unknownOwners": strangers,
        "notBilled": missing,
        "message": "No owner of Novita's bills is an instance of this installation, so the bills "
        "cannot be compared with its costs. Check which account NOVITA_API_KEY opens",
    }
    return [_Finding(EventType.COST_RECONCILIATION_UNAVAILABLE, "", day, data)]


def _day(at: int) -> str:
    return datetime.fromtimestamp(at // 1000, UTC).strftime("%Y-%m-%d")
