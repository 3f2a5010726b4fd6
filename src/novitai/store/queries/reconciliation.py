# SPDX-License-Identifier: Apache-2.0
"""Queries on `bill_readings`, `billed_days` and `cost_findings`: Novita's bills, as far as read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Final

import orjson
from sqlalchemy import Connection, delete, func, select

from novitai.domain.billing import HOUR_MS
from novitai.domain.event import EventType
from novitai.domain.reconciliation import HourBill, PaidTime, day_of
from novitai.store.engine import upsert
from novitai.store.engine.chunks import chunks
from novitai.store.tables import (
    attempts,
    bill_readings,
    billed_days,
    billing_states,
    cost_findings,
    instances,
    listed_instances,
)

_LAST: Final = "last"


@dataclass(frozen=True, slots=True)
class BillReading:
    """How far the bills were read. Hours are Unix milliseconds by Novita's clock.

    Attributes:
        due_at: When to read again, in Unix milliseconds.
        window_ms: The longest window of one list, in milliseconds.
        failures: Failed lists since the last one that succeeded.
        pass_since: The first hour of the pass that runs; None between two passes.
        pass_end: The end of its last hour.
        next_since: Where that pass goes on, in the category `next_category`.
        next_category: A number.
        comparable: Whether its bills are compared with the ledger.
        reached: The end of the last hour that the last complete pass has read.
        billed_until: The end of the last hour that has a bill.
        clock_offset: Milliseconds that Novita's clock was ahead of ours at the last pass.
    """

    due_at: int
    window_ms: int
    failures: int = 0
    pass_since: int | None = None
    pass_end: int | None = None
    next_since: int | None = None
    next_category: int = 0
    comparable: bool = True
    reached: int | None = None
    billed_until: int | None = None
    clock_offset: int = 0

    @property
    def known_until(self) -> int | None:
        """The end of the last hour whose bills are known; None if none is."""
        if self.reached is None or self.billed_until is None:
            return None
        return min(self.reached, self.billed_until)


@dataclass(frozen=True, slots=True)
class Bill:
    """A line of the bill of an hour; the amount in 1/10000 USD, None if it cannot be read."""

    upstream_id: str
    hour: int
    amount: int | None


@dataclass(frozen=True, slots=True)
class OwnersKnown:
    """The stored facts about some upstream IDs.

    Attributes:
        claims: When which record pays, by the ID.
        names: The record that pays last, by the ID: its own ID and its name.
        bought: Those that a create call of ours has returned.
        listed: Those that a listing has shown.
    """

    claims: Mapping[str, list[PaidTime]]
    names: Mapping[str, tuple[str, str]]
    bought: frozenset[str]
    listed: frozenset[str]


def load_reading(connection: Connection) -> BillReading | None:
    """Load how far the bills were read; None before the first time."""
    columns = [bill_readings.c[field.name] for field in fields(BillReading)]
    row = connection.execute(select(*columns).where(bill_readings.c.name == _LAST)).first()
    return None if row is None else BillReading(*row)


def save_reading(connection: Connection, reading: BillReading) -> None:
    """Store how far the bills were read."""
    values = {field.name: getattr(reading, field.name) for field in fields(reading)}
    connection.execute(
        upsert.insert(bill_readings, connection.dialect.name)
        .values(name=_LAST, **values)
        .on_conflict_do_update(index_elements=[bill_readings.c.name], set_=values)
    )


def replace_bills(
    connection: Connection, category: str, begin: int, end: int, found: Iterable[Bill]
) -> None:
    """Replace the bills of the hours that begin in `[begin, end)`; lines of an hour are added up.

    Args:
        connection: A write transaction.
        category: The category of all these bills.
        begin: A full hour in Unix milliseconds by Novita's clock, as all hours here.
        end: A full hour.
        found: The bills of these hours.
    """
    days: dict[tuple[int, str], dict[str, int | None]] = {}
    changed: set[tuple[int, str]] = set()
    query = select(billed_days.c.day, billed_days.c.upstream_id, billed_days.c.hours).where(
        billed_days.c.day >= day_of(begin),
        billed_days.c.day < end,
        billed_days.c.category == category,
    )
    for day, upstream_id, text in connection.execute(query):
        hours = orjson.loads(text)
        kept = {
            number: amount
            for number, amount in hours.items()
            if not begin <= day + int(number) * HOUR_MS < end
        }
        days[day, upstream_id] = kept
        if kept != hours:
            changed.add((day, upstream_id))
    for bill in found:
        key = (day_of(bill.hour), bill.upstream_id)
        amounts, number = days.setdefault(key, {}), str((bill.hour - key[0]) // HOUR_MS)
        before = amounts.get(number, 0)
        if before is None or bill.amount is None:
            amounts[number] = None
        else:
            amounts[number] = before + bill.amount
        changed.add(key)
    if not changed:
        return
    statement = upsert.insert(billed_days, connection.dialect.name)
    statement = statement.on_conflict_do_update(
        index_elements=list(billed_days.primary_key), set_={"hours": statement.excluded.hours}
    )
    connection.execute(
        statement,
        [
            {
                "day": day,
                "upstream_id": upstream_id,
                "category": category,
                "hours": orjson.dumps(days[day, upstream_id]).decode(),
            }
            for day, upstream_id in sorted(changed)
        ],
    )


def bills_between(connection: Connection, since: int, until: int) -> dict[str, dict[int, HourBill]]:
    """Load the bills of the hours that begin in `[since, until)`, by owner and hour."""
    found: dict[str, dict[int, HourBill]] = {}
    query = select(billed_days).where(billed_days.c.day >= day_of(since), billed_days.c.day < until)
    for day, upstream_id, _, text in connection.execute(query):
        hours = found.setdefault(upstream_id, {})
        for number, amount in orjson.loads(text).items():
            hour = day + int(number) * HOUR_MS
            if not since <= hour < until:
                continue
            other = hours.get(hour, HourBill(0, 0))
            unknown = amount is None or other.amount is None
            total = None if unknown else amount + other.amount
            hours[hour] = HourBill(total, other.lines + 1)
    return {owner: hours for owner, hours in found.items() if hours}


def owners_known(connection: Connection, upstream_ids: Collection[str]) -> OwnersKnown:
    """Load what is known of upstream IDs."""
    claims: dict[str, list[PaidTime]] = {}
    names: dict[str, tuple[str, str]] = {}
    bought: set[str] = set()
    listed: set[str] = set()
    for chunk in chunks(sorted(upstream_ids)):
        states = (
            select(
                billing_states.c.upstream_id,
                billing_states.c.since,
                billing_states.c.adopted,
                instances.c.released_at,
                instances.c.id,
                instances.c.name,
            )
            .join(instances, instances.c.id == billing_states.c.instance_id)
            .where(billing_states.c.upstream_id.in_(chunk))
            .order_by(billing_states.c.since)
        )
        for upstream_id, since, adopted, released_at, instance_id, name in connection.execute(
            states
        ):
            claim = PaidTime(since if adopted else None, released_at)
            claims.setdefault(upstream_id, []).append(claim)
            names[upstream_id] = (instance_id, name)
        ours = select(attempts.c.upstream_id).where(attempts.c.upstream_id.in_(chunk))
        bought.update(connection.execute(ours).scalars())
        shown = select(listed_instances.c.upstream_id).where(
            listed_instances.c.upstream_id.in_(chunk)
        )
        listed.update(connection.execute(shown).scalars())
    return OwnersKnown(claims, names, frozenset(bought), frozenset(listed))


def first_listed_at(connection: Connection) -> int | None:
    """Return when a listing first showed any instance, in Unix milliseconds; None if none did."""
    query = select(func.min(listed_instances.c.first_listed_at))
    return connection.execute(query).scalar_one_or_none()


def tell(
    connection: Connection, event_type: EventType, upstream_id: str, day: int, *, now: int
) -> bool:
    """Note that an event is told for an owner and a day; False if it was told before."""
    told = connection.execute(
        upsert.insert(cost_findings, connection.dialect.name)
        .values(type=event_type.value, upstream_id=upstream_id, day=day, told_at=now)
        .on_conflict_do_nothing()
        .returning(cost_findings.c.day)
    )
    return told.first() is not None


def count_told(connection: Connection, since: int) -> dict[str, int]:
    """Count the events told since a time (Unix milliseconds), by their type."""
    query = (
        select(cost_findings.c.type, func.count())
        .where(cost_findings.c.told_at >= since)
        .group_by(cost_findings.c.type)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def prune(connection: Connection, before: int) -> None:
    """Delete bills and notes of days before a time, in Unix milliseconds."""
    for table in (billed_days, cost_findings):
        connection.execute(delete(table).where(table.c.day < before))
