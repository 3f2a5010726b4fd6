# SPDX-License-Identifier: Apache-2.0
"""Queries on `operations`: claim and fence them (see `leases`), wake them, find the due ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import orjson
from sqlalchemy import Connection, bindparam, case, func, select, tuple_, update
from sqlalchemy import insert as insert_into

from novitai.domain.actor import Actor
from novitai.domain.operation import Operation, OperationKind, Outcome
from novitai.domain.progress import Progress, from_json, to_json
from novitai.store.engine.chunks import chunks
from novitai.store.engine.database import Database
from novitai.store.queries.actors import dump_actor, load_actor
from novitai.store.queries.leases import LeasedTable, fenced
from novitai.store.tables import Record
from novitai.store.tables import operations as table

_COLUMNS: Final = tuple(column for column in table.c if column.name != "changed_in")
_AT: Final = {column.name: index for index, column in enumerate(_COLUMNS)}


_leased: Final = LeasedTable.of(table, table.c.next_step_at, live=~table.c.done, returning=_COLUMNS)
# Built once, because building a statement costs more than running it.
_INSERT: Final = insert_into(table)
_ONE: Final = select(*_COLUMNS).where(table.c.id == bindparam("wanted"))
_RUNNING: Final = select(*_COLUMNS).where(table.c.instance_id == bindparam("wanted"), ~table.c.done)
_RUNNING_OF: Final = select(*_COLUMNS).where(
    table.c.instance_id.in_(bindparam("wanted", expanding=True)), ~table.c.done
)
_APPLY: Final = _leased.held.values(
    next_step_at=case(
        (table.c.wake > bindparam("known_wake"), bindparam("now")), else_=bindparam("due")
    )
).returning(table.c.next_step_at)
_COUNT_UNFINISHED: Final = select(func.count()).select_from(table).where(~table.c.done)
_DUE: Final = _leased.due.where(table.c.kind == bindparam("of_kind"))


def insert(connection: Connection, *fresh: Operation) -> None:
    """Insert operations, each due at its `next_step_at`."""
    connection.execute(
        _INSERT,
        [
            {
                "id": operation.id,
                "kind": operation.kind.value,
                "instance_id": operation.instance_id,
                "phase": operation.phase,
                "created_at": operation.created_at,
                "updated_at": operation.updated_at,
                "deadline_at": operation.deadline_at,
                "next_step_at": operation.next_step_at,
                "memory": dump_progress(operation.progress),
                "actor": dump_actor(operation.actor),
            }
            for operation in fresh
        ],
    )


def load(connection: Connection, operation_id: str) -> Operation | None:
    """Load an operation; None if it does not exist."""
    row = connection.execute(_ONE, {"wanted": operation_id}).first()
    return None if row is None else from_row(row)


def page(
    connection: Connection,
    *,
    after: tuple[int, str] | None,
    limit: int,
    instance_id: str | None = None,
    done: bool | None = None,
) -> list[Operation]:
    """List operations, newest first, after `after` if given."""
    query = select(*_COLUMNS)
    if instance_id is not None:
        query = query.where(table.c.instance_id == instance_id)
    if done is not None:
        query = query.where(table.c.done if done else ~table.c.done)
    if after is not None:
        query = query.where(tuple_(table.c.created_at, table.c.id) < after)
    query = query.order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit)
    return [from_row(row) for row in connection.execute(query)]


def running(connection: Connection, instance_id: str) -> Operation | None:
    """Load the unfinished operation of an instance; None if there is none."""
    row = connection.execute(_RUNNING, {"wanted": instance_id}).first()
    return None if row is None else from_row(row)


def running_of(connection: Connection, instance_ids: Sequence[str]) -> dict[str, Operation]:
    """Load the unfinished operations of many instances, by instance ID."""
    found: dict[str, Operation] = {}
    for chunk in chunks(instance_ids):
        rows = connection.execute(_RUNNING_OF, {"wanted": chunk})
        found.update((row[_AT["instance_id"]], from_row(row)) for row in rows)
    return found


def claim(connection: Connection, operation_id: str, *, now: int, until: int) -> Operation | None:
    """Claim an operation with a lease until `until`; None if it is done or already claimed."""
    row = _leased.claim(connection, operation_id, now=now, until=until)
    return None if row is None else from_row(row)


def hold(connection: Connection, operation: Operation, **values: object) -> None:
    """Check that the claim is still valid, in a transaction that depends on it.

    Args:
        connection: A write transaction.
        operation: The operation as it was claimed.
        values: Columns to set, such as a later `lease_until`.

    Raises:
        Fenced: the claim is over; the transaction must be rolled back.
    """
    _leased.hold(connection, operation, **values)


def commit_call(connection: Connection, operation: Operation, progress: Progress) -> None:
    """Record a call before it is sent.

    Raises:
        Fenced: the claim is over; the transaction must be rolled back.
    """
    hold(
        connection,
        operation,
        attempts=progress.call.asks,
        memory=dump_progress(progress),
    )


def apply(
    connection: Connection,
    operation: Operation,
    *,
    phase: str,
    now: int,
    next_step_at: int,
    progress: Progress,
    error: tuple[str, str] | None,
    attempts: int | None = None,
) -> int:
    """Record the result of a step and release the lease.

    If the operation was woken while the step ran (`wake` grew), it is due now. A confirmation that
    a person gave while the step ran is kept.

    Returns:
        When the next step is due, in Unix milliseconds.

    Raises:
        Fenced: the claim is over.
    """
    code, message = error or (None, None)
    if operation.kind is OperationKind.DELETE and _is_confirmed(connection, operation.id):
        progress = replace(progress, confirmed=True)
    values = {
        **_leased.claimed(operation),
        "known_wake": operation.wake,
        "now": now,
        "due": next_step_at,
        "phase": phase,
        "updated_at": now,
        "lease_until": None,
        "memory": dump_progress(progress),
        "error_code": code,
        "error_message": message,
        **({} if attempts is None else {"attempts": attempts}),
    }
    row = connection.execute(_APPLY, values).first()
    if row is None:
        raise fenced(operation)
    due: int = row[0]
    return due


def _is_confirmed(connection: Connection, operation_id: str) -> bool:
    found = connection.execute(select(table.c.memory).where(table.c.id == operation_id)).scalar()
    return found is not None and load_progress(found).confirmed


def finish(
    connection: Connection,
    operation: Operation,
    *,
    outcome: Outcome,
    now: int,
    error: tuple[str, str] | None = None,
) -> None:
    """End an operation.

    Raises:
        Fenced: the claim is over.
    """
    code, message = error or (None, None)
    hold(
        connection,
        operation,
        done=True,
        outcome=outcome.value,
        updated_at=now,
        lease_until=None,
        next_step_at=None,
        error_code=code,
        error_message=message,
    )
    _count_end(connection, operation, outcome, now)


def cancel(
    connection: Connection, operation: Operation, *, now: int, only_if_idle: bool = False
) -> bool:
    """End an operation without a claim on it; a worker that runs a step of it is fenced.

    With `only_if_idle`, do nothing if a worker has claimed the operation since it was loaded.

    Returns:
        Whether the operation was ended.
    """
    conditions = [table.c.id == operation.id, ~table.c.done]
    if only_if_idle:
        conditions += [table.c.token == operation.token, _leased.free(now)]
    ended = connection.execute(
        update(table)
        .where(*conditions)
        .values(
            done=True,
            outcome=Outcome.CANCELLED.value,
            token=table.c.token + 1,
            lease_until=None,
            next_step_at=None,
            updated_at=now,
        )
    )
    if ended.rowcount:
        _count_end(connection, operation, Outcome.CANCELLED, now)
    return ended.rowcount == 1


def _count_end(connection: Connection, ended: Operation, outcome: Outcome, now: int) -> None:
    """Count the end of a create after the commit."""
    if ended.kind is OperationKind.CREATE:
        seconds = (now - ended.created_at) / 1000
        Database.count(connection, lambda metrics: metrics.create_ended(outcome, seconds))


def renew(connection: Connection, operation: Operation, *, until: int) -> bool:
    """Renew the lease until `until`; False if it was released or the claim is over."""
    return _leased.renew(connection, operation, until=until)


def release(connection: Connection, operation: Operation, *, next_step_at: int) -> None:
    """Release the lease without a result; does nothing if the claim is over."""
    _leased.release(connection, operation, due_at=next_step_at)


def release_all(connection: Connection) -> int:
    """Release every lease; only for SQLite, whose single process calls it at its start."""
    return _leased.release_all(connection)


def wake(connection: Connection, operation_ids: Sequence[str], *, now: int) -> None:
    """Make unfinished operations due now, even if a worker is running a step of them."""
    for chunk in chunks(operation_ids):
        connection.execute(
            update(table)
            .where(table.c.id.in_(chunk), ~table.c.done)
            .values(wake=table.c.wake + 1, next_step_at=now)
        )


def was_deleted(connection: Connection, instance_id: str) -> bool:
    """Whether a `delete` operation of the instance has succeeded."""
    return (
        connection.execute(
            select(table.c.id)
            .where(
                table.c.instance_id == instance_id,
                table.c.kind == OperationKind.DELETE.value,
                table.c.outcome == Outcome.SUCCEEDED.value,
            )
            .limit(1)
        ).first()
        is not None
    )


def deleting(connection: Connection) -> set[str]:
    """List the IDs of instances whose deletion upstream was asked for.

    A `delete` counts once upstream has accepted the call; a `reap` counts once the call was sent.
    """
    rows = connection.execute(
        select(table.c.instance_id, table.c.kind, table.c.phase, table.c.memory).where(
            table.c.kind.in_([OperationKind.REAP.value, OperationKind.DELETE.value]),
            ~table.c.done,
        )
    )
    found: set[str] = set()
    for instance_id, kind, phase, text in rows:
        call = load_progress(text).call
        if kind == OperationKind.DELETE.value:
            is_deleting = call.accepted
        else:
            is_deleting = phase == "delete" and call.asked_at is not None
        if is_deleting:
            found.add(instance_id)
    return found


def last_succeeded(connection: Connection, instance_id: str) -> OperationKind | None:
    """Return the kind of the last create, start, stop or restart that succeeded; None without."""
    kinds = [
        OperationKind.CREATE,
        OperationKind.START,
        OperationKind.STOP,
        OperationKind.RESTART,
    ]
    found = connection.execute(
        select(table.c.kind)
        .where(
            table.c.instance_id == instance_id,
            table.c.kind.in_([kind.value for kind in kinds]),
            table.c.outcome == Outcome.SUCCEEDED.value,
        )
        .order_by(table.c.updated_at.desc(), table.c.id.desc())
        .limit(1)
    ).scalar_one_or_none()
    return None if found is None else OperationKind(found)


def waiting_for(connection: Connection, error_code: str) -> list[Operation]:
    """List the unfinished operations with an error code, such as `ORPHAN_FOUND`."""
    rows = connection.execute(
        select(*_COLUMNS).where(~table.c.done, table.c.error_code == error_code)
    )
    return [from_row(row) for row in rows]


def write_progress(connection: Connection, operation_id: str, progress: Progress) -> None:
    """Replace the progress of an unfinished operation."""
    connection.execute(
        update(table)
        .where(table.c.id == operation_id, ~table.c.done)
        .values(memory=dump_progress(progress))
    )


def write_actor(connection: Connection, operation_id: str, actor: Actor) -> None:
    """Replace the actor of an unfinished operation: another one wants it too."""
    connection.execute(
        update(table)
        .where(table.c.id == operation_id, ~table.c.done)
        .values(actor=dump_actor(actor))
    )


def dump_progress(progress: Progress) -> str:
    """Serialize the progress of an operation for the column `memory`."""
    return orjson.dumps(to_json(progress)).decode()


def load_progress(stored: str) -> Progress:
    """Parse the column `memory`."""
    return from_json(orjson.loads(stored))


def unfinished_of_kind(connection: Connection, kind: OperationKind) -> Operation | None:
    """Load the oldest unfinished operation of a kind; None if there is none."""
    row = connection.execute(
        select(*_COLUMNS)
        .where(table.c.kind == kind.value, ~table.c.done)
        .order_by(table.c.created_at)
        .limit(1)
    ).first()
    return None if row is None else from_row(row)


def due(connection: Connection, kind: OperationKind, now: int, limit: int) -> list[str]:
    """List the IDs of due operations of a kind without a current lease, the longest due first."""
    values = {"of_kind": kind.value, "now": now, "most": limit}
    return list(connection.execute(_DUE, values).scalars())


def count_unfinished(connection: Connection) -> int:
    """Count the operations that are not done."""
    return connection.execute(_COUNT_UNFINISHED).scalar_one()


def from_row(row: Record) -> Operation:
    """Map a row of all columns to an operation."""
    outcome = row[_AT["outcome"]]
    return Operation(
        id=row[_AT["id"]],
        kind=OperationKind(row[_AT["kind"]]),
        instance_id=row[_AT["instance_id"]],
        phase=row[_AT["phase"]],
        created_at=row[_AT["created_at"]],
        updated_at=row[_AT["updated_at"]],
        token=row[_AT["token"]],
        wake=row[_AT["wake"]],
        attempts=row[_AT["attempts"]],
        done=row[_AT["done"]],
        outcome=None if outcome is None else Outcome(outcome),
        lease_until=row[_AT["lease_until"]],
        deadline_at=row[_AT["deadline_at"]],
        next_step_at=row[_AT["next_step_at"]],
        error_code=row[_AT["error_code"]],
        error_message=row[_AT["error_message"]],
        progress=load_progress(row[_AT["memory"]]),
        actor=load_actor(row[_AT["actor"]]),
    )
