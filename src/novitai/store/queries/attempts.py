# SPDX-License-Identifier: Apache-2.0
"""Queries on `attempts`. Operations and sync both record the results of create calls here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, func, literal_column, select, update
from sqlalchemy.sql import ColumnElement

from novitai.domain.operation import Attempt, AttemptState
from novitai.store.engine.chunks import chunks
from novitai.store.engine.database import Database
from novitai.store.tables import Record
from novitai.store.tables import attempts as table

_COLUMNS: Final = tuple(table.c)
_STATE: Final = [column.name for column in _COLUMNS].index("state")
_OF_INSTANCE: Final = (
    select(*_COLUMNS)
    .where(table.c.instance_id == bindparam("wanted"))
    .order_by(table.c.created_at, table.c.id)
)
"""Run twice for each step of an operation; built once, because that costs more than running it."""
_UNSETTLED: Final = tuple(state.value for state in AttemptState if not state.settled)


def insert(connection: Connection, attempt: Attempt) -> None:
    """Insert an attempt, before its create call is sent."""
    connection.execute(
        table.insert().values(
            id=attempt.id,
            operation_id=attempt.operation_id,
            instance_id=attempt.instance_id,
            upstream_name=attempt.upstream_name,
            product_id=attempt.product_id,
            cluster_id=attempt.cluster_id,
            region=attempt.region,
            price=attempt.price,
            state=attempt.state.value,
            created_at=attempt.created_at,
            send_by=attempt.send_by,
            image=attempt.image,
            key_digest=attempt.key_digest,
            clock_offset=attempt.clock_offset,
        )
    )


def record_result(
    connection: Connection,
    attempt_id: str,
    state: AttemptState,
    *,
    upstream_id: str | None = None,
    reason: str | None = None,
    message: str | None = None,
    ended_at: int | None = None,
    clock_offset: int | None = None,
) -> None:
    """Record the result of an attempt.

    `SURPLUS` is the only result that replaces `BOUGHT`.
    """
    allowed = [*_UNSETTLED]
    if state is AttemptState.BOUGHT:
        allowed += [
            AttemptState.ABSENT.value,
            AttemptState.REFUSED.value,
            AttemptState.NOT_SENT.value,
        ]
    if state is AttemptState.SURPLUS:
        allowed = [member.value for member in AttemptState]
    values: dict[str, object] = {"state": state.value}
    if upstream_id is not None:
        values["upstream_id"] = upstream_id
    if reason is not None:
        values["reason"] = reason[:64]
    if message is not None:
        values["message"] = message
    if ended_at is not None:
        values["ended_at"] = ended_at
    if clock_offset is not None:
        values["clock_offset"] = clock_offset
    before = _state(connection, attempt_id)
    connection.execute(
        update(table).where(table.c.id == attempt_id, table.c.state.in_(allowed)).values(**values)
    )
    if before in allowed and before != state.value:
        Database.count(connection, lambda metrics: metrics.attempt(state))


def doubt(connection: Connection, instance_id: str, upstream_id: str) -> None:
    """Set a bought attempt back to `UNKNOWN`: its reply named an instance of another record."""
    connection.execute(
        update(table)
        .where(
            table.c.instance_id == instance_id,
            table.c.upstream_id == upstream_id,
            table.c.state == AttemptState.BOUGHT.value,
        )
        .values(
            state=AttemptState.UNKNOWN.value,
            upstream_id=None,
            reason="NONSENSE",
            message=f"Novita replied with {upstream_id}, which belongs to another instance",
        )
    )


def replied_of(connection: Connection, instance_ids: Sequence[str]) -> dict[str, Attempt]:
    """Load the newest bought attempt of each instance, by instance ID."""
    found: dict[str, Attempt] = {}
    for chunk in chunks(instance_ids):
        rows = connection.execute(
            select(*_COLUMNS)
            .where(
                table.c.instance_id.in_(chunk),
                table.c.state == AttemptState.BOUGHT.value,
            )
            .order_by(table.c.created_at, table.c.id)
        )
        for row in rows:
            attempt = _attempt(row)
            found[attempt.instance_id] = attempt
    return found


def name_bought(connection: Connection, upstream_id: str) -> str | None:
    """Return the upstream name of the attempt that bought an instance; None if none did."""
    return connection.execute(
        select(table.c.upstream_name)
        .where(table.c.upstream_id == upstream_id, table.c.state == AttemptState.BOUGHT.value)
        .limit(1)
    ).scalar_one_or_none()


def began_at(connection: Connection, attempt_id: str) -> int | None:
    """Return when an attempt was written, in Unix milliseconds; None if it does not exist."""
    return connection.execute(
        select(table.c.created_at).where(table.c.id == attempt_id)
    ).scalar_one_or_none()


def newest_at(connection: Connection) -> int | None:
    """Return when the newest attempt was written, in Unix milliseconds; None if there is none."""
    newest: int | None = connection.execute(select(func.max(table.c.created_at))).scalar_one()
    return newest


def correct(connection: Connection, attempt_id: str, upstream_id: str) -> None:
    """Record which instance an attempt bought, by its marker; this overrides the call's reply."""
    before = _state(connection, attempt_id)
    connection.execute(
        update(table)
        .where(table.c.id == attempt_id, table.c.state != AttemptState.SURPLUS.value)
        .values(state=AttemptState.BOUGHT.value, upstream_id=upstream_id)
    )
    if before not in {None, AttemptState.BOUGHT.value, AttemptState.SURPLUS.value}:
        Database.count(connection, lambda metrics: metrics.attempt(AttemptState.BOUGHT))


def note_unseen(connection: Connection, attempt_id: str, *, count: int, since: int) -> None:
    """Record how many complete listings have lacked an unsettled attempt's instance."""
    connection.execute(
        update(table)
        .where(table.c.id == attempt_id, table.c.state.in_(_UNSETTLED))
        .values(unseen_count=count, unseen_since=since)
    )


def count_absence_anew(connection: Connection, now: int) -> None:
    """Let the absence of every unsettled attempt count from now on."""
    connection.execute(
        update(table).where(table.c.state.in_(_UNSETTLED)).values(unseen_count=0, unseen_since=now)
    )


def of_instance(connection: Connection, instance_id: str) -> list[Attempt]:
    """List the attempts to buy an instance, oldest first."""
    rows = connection.execute(_OF_INSTANCE, {"wanted": instance_id})
    return [_attempt(row) for row in rows]


def winner(connection: Connection, instance_id: str) -> str | None:
    """Return the ID of the attempt whose purchase counts, the oldest bought one; None without one.

    Call it under the instance's lock, so that all workers agree on which instance is surplus.
    """
    return connection.execute(
        select(table.c.id)
        .where(table.c.instance_id == instance_id, table.c.state == AttemptState.BOUGHT.value)
        .order_by(table.c.created_at, table.c.id)
        .limit(1)
    ).scalar_one_or_none()


def unsettled(connection: Connection) -> list[Attempt]:
    """List every attempt whose purchase is uncertain, oldest first."""
    # Literals, because SQLite does not use its partial index with parameters.
    states: list[ColumnElement[str]] = [literal_column(f"'{state}'") for state in _UNSETTLED]
    rows = connection.execute(
        select(*_COLUMNS).where(table.c.state.in_(states)).order_by(table.c.created_at)
    )
    return [_attempt(row) for row in rows]


def by_ids(connection: Connection, ids: Sequence[str]) -> dict[str, Attempt]:
    """Load attempts by ID; those that do not exist are left out."""
    found: dict[str, Attempt] = {}
    for chunk in chunks(ids):
        rows = connection.execute(select(*_COLUMNS).where(table.c.id.in_(chunk)))
        found.update((row[0], _attempt(row)) for row in rows)
    return found


def _state(connection: Connection, attempt_id: str) -> str | None:
    return connection.execute(
        select(table.c.state).where(table.c.id == attempt_id)
    ).scalar_one_or_none()


def _attempt(row: Record) -> Attempt:
    """Map a row of `_COLUMNS`; the columns have the order of the fields."""
    fields = list(row)
    fields[_STATE] = AttemptState(row[_STATE])
    return Attempt(*fields)
