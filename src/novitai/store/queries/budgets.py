# SPDX-License-Identifier: Apache-2.0
"""Queries on `budgets`, and on what is spent and reserved of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from novitai.domain.billing import HOURS_PER_DAY, UNIT, SpanKind
from novitai.domain.budgets import (
    Budget,
    BudgetAction,
    BudgetPeriod,
    BudgetScope,
    BudgetTerms,
    Payer,
    Reservation,
    SpendOf,
    Wanted,
)
from novitai.domain.instance import ENDED, InstanceStatus
from novitai.store.engine.chunks import chunks
from novitai.store.tables import Record, instances
from novitai.store.tables import billing_spans as spans
from novitai.store.tables import budgets as table

_COLUMNS: Final = tuple(table.c)
_OVER: Final = (*ENDED, InstanceStatus.STOPPED.value)
"""The statuses in which nothing is reserved."""
# An instance whose price Novita does not tell costs what its offer cost at the purchase.
_RATE: Final = func.coalesce(spans.c.rate, instances.c.hourly_price * HOURS_PER_DAY, 0)
# Run for each create; built once, because that costs more than running them.
_ALL: Final = select(*_COLUMNS).order_by(table.c.id)
_OF_PAYER: Final = _ALL.where(
    or_(table.c.key_id.is_(None), table.c.key_id == bindparam("of_key_id"))
)
_RESERVE: Final = update(instances).where(instances.c.id == bindparam("of_id"))


def lock_count(connection: Connection) -> int:
    """Count the budgets that are no limits of keys.

    Other transactions wait with their count until this one ends.
    """
    if connection.dialect.name == "postgresql":
        # On SQLite write transactions are serialized anyway.
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("novitai.budgets"))))
    count = select(func.count()).select_from(table).where(~table.c.key_limit)
    return connection.execute(count).scalar_one()


def insert(connection: Connection, budget: Budget) -> None:
    """Store a new budget."""
    connection.execute(table.insert().values(**_values(budget)))


def write(connection: Connection, budget: Budget) -> None:
    """Store a changed budget, whose lock the caller holds."""
    connection.execute(update(table).where(table.c.id == budget.id).values(**_values(budget)))


def remove(connection: Connection, budget_id: str) -> None:
    """Delete a budget."""
    connection.execute(delete(table).where(table.c.id == budget_id))


def load(connection: Connection, budget_id: str) -> Budget | None:
    """Load a budget; None if it does not exist."""
    row = connection.execute(select(*_COLUMNS).where(table.c.id == budget_id)).first()
    return None if row is None else _budget(row)


def load_all(connection: Connection) -> list[Budget]:
    """Load all budgets."""
    return [_budget(row) for row in connection.execute(_ALL)]


def of_payer(connection: Connection, key_id: str | None) -> list[Budget]:
    """Load the budgets that may cover an instance: those of its key, and those of no key."""
    return [_budget(row) for row in connection.execute(_OF_PAYER, {"of_key_id": key_id})]


def tag_names(connection: Connection) -> set[str]:
    """Load the names of the tags that budgets have as their scope."""
    return set(
        connection.execute(
            select(table.c.tag_name).where(table.c.tag_name.is_not(None)).distinct()
        ).scalars()
    )


def lock(connection: Connection, ids: Collection[str]) -> list[Budget]:
    """Load budgets and lock their rows, in the order of their IDs to avoid deadlocks.

    A transaction locks instances before budgets, and budgets before it appends events.
    """
    query = select(*_COLUMNS).where(table.c.id.in_(ids)).order_by(table.c.id).with_for_update()
    return [_budget(row) for row in connection.execute(query)]


def page(
    connection: Connection, *, limit: int, after: tuple[int, str] | None = None
) -> list[Budget]:
    """List budgets, newest first, after a (created_at, id)."""
    query = select(*_COLUMNS).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit)
    if after is not None:
        query = query.where(tuple_(table.c.created_at, table.c.id) < after)
    return [_budget(row) for row in connection.execute(query)]


def spent(connection: Connection, since: int, now: int) -> list[SpendOf]:
    """Sum up what may have been billed within `[since, now)`, by key and tags.

    A span that is open may be billed up to now, or up to the purge of its disk.
    """
    whole, rest = _sums(literal(since), now)
    query = (
        select(spans.c.key_id, spans.c.tags, whole, rest)
        .select_from(spans.join(instances, instances.c.id == spans.c.instance_id))
        .where(spans.c.began_after < now, or_(spans.c.ended_by.is_(None), spans.c.ended_by > since))
        .group_by(spans.c.key_id, spans.c.tags)
    )
    return [
        SpendOf(Payer(key_id, orjson.loads(tags or "{}")), int(whole) * UNIT + int(rest))
        for key_id, tags, whole, rest in connection.execute(query)
    ]


def reservations(connection: Connection, now: int) -> list[Reservation]:
    """Load what the runs of all instances reserve, with what each has spent of it."""
    whole, rest = _sums(instances.c.reserved_at, now)
    query = (
        select(
            instances.c.id,
            instances.c.created_by_key_id,
            instances.c.tags,
            instances.c.reserved_rate,
            instances.c.reserved_length,
            instances.c.reserved_at,
            instances.c.obs_run_began_at,
            instances.c.status,
            instances.c.upstream_id,
            func.coalesce(whole, 0),
            func.coalesce(rest, 0),
        )
        .select_from(
            instances.outerjoin(
                spans,
                and_(
                    spans.c.instance_id == instances.c.id,
                    spans.c.kind == SpanKind.GPU.value,
                    spans.c.began_after < now,
                    or_(spans.c.ended_by.is_(None), spans.c.ended_by > instances.c.reserved_at),
                ),
            )
        )
        .where(instances.c.reserved_at.is_not(None), instances.c.status.not_in(_OVER))
        .group_by(instances.c.id)
    )
    return [
        Reservation(
            instance_id=row[0],
            payer=Payer(row[1], orjson.loads(row[2])),
            rate=row[3],
            length=row[4],
            at=row[5],
            run_began_at=row[6],
            status=InstanceStatus(row[7]),
            bought=row[8] is not None,
            spent_exact=int(row[9]) * UNIT + int(row[10]),
        )
        for row in connection.execute(query)
    ]


def reserve(connection: Connection, instance_id: str, wanted: Wanted, now: int) -> None:
    """Store what a run of an instance reserves from now on, in place of an earlier reservation.

    The caller holds the instance's lock.
    """
    connection.execute(
        _RESERVE,
        {
            "of_id": instance_id,
            "reserved_rate": wanted.rate,
            "reserved_length": wanted.length,
            "reserved_at": now,
        },
    )


def forget_reservations(connection: Connection, now: int) -> int:
    """Clear the reservations that have ended; return how many."""
    began_at, at = instances.c.obs_run_began_at, instances.c.reserved_at
    since = case((began_at > at, began_at), else_=at)
    over = or_(
        instances.c.status.in_(_OVER),
        and_(began_at.is_not(None), since + instances.c.reserved_length <= now),
    )
    ended = select(instances.c.id).where(at.is_not(None), over).order_by(instances.c.id)
    ids = list(connection.execute(ended.with_for_update()).scalars())
    for chunk in chunks(ids):
        connection.execute(
            update(instances)
            .where(instances.c.id.in_(chunk))
            .values(reserved_rate=None, reserved_length=None, reserved_at=None)
        )
    return len(ids)


def _sums(since: ColumnElement[int], now: int) -> tuple[ColumnElement[int], ColumnElement[int]]:
    """Return the sum of the upper bounds of spans from `since` to now, as whole units and a rest.

    Two sums, because SQLite has no integers above 64 bits.
    """
    begin = case((spans.c.began_after > since, spans.c.began_after), else_=since)
    last = func.coalesce(spans.c.ended_by, spans.c.expires_by, now)
    end = case((last < now, last), else_=now)
    exact = _RATE * case((end > begin, end - begin), else_=0)
    return func.sum(exact // UNIT), func.sum(exact % UNIT)


def _values(budget: Budget) -> dict[str, object]:
    terms = budget.terms
    tag_name, tag_value = terms.scope.tag or (None, None)
    return {
        "id": budget.id,
        "name": terms.name,
        "amount": terms.amount,
        "period": terms.period.value,
        "tz": terms.tz.key,
        "key_id": terms.scope.key_id,
        "tag_name": tag_name,
        "tag_value": tag_value,
        "alert_at": orjson.dumps(terms.alert_at).decode(),
        "on_limit": terms.on_limit.value,
        "created_at": budget.created_at,
        "updated_at": budget.updated_at,
        "told_since": budget.told_since,
        "told": orjson.dumps(budget.told).decode(),
        "exceeded": budget.exceeded,
        "key_limit": budget.key_limit,
    }


def _budget(row: Record) -> Budget:
    return Budget(
        id=row[0],
        terms=BudgetTerms(
            name=row[1],
            amount=row[2],
            period=BudgetPeriod(row[3]),
            tz=ZoneInfo(row[4]),
            scope=BudgetScope(row[5], None if row[6] is None else (row[6], row[7])),
            alert_at=tuple(orjson.loads(row[8])),
            on_limit=BudgetAction(row[9]),
        ),
        created_at=row[10],
        updated_at=row[11],
        told_since=row[12],
        told=tuple(orjson.loads(row[13])),
        exceeded=bool(row[14]),
        key_limit=bool(row[15]),
    )
