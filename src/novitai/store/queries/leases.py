# SPDX-License-Identifier: Apache-2.0
"""Leases on rows, and leases by name on tasks that one process may do at a time.

A worker claims a row with the columns `id`, `token` and `lease_until` by raising its token. Each
later write names the token, so that a worker whose row was claimed again is fenced: its write
changes nothing. A task without a row, such as listing the account, has a row in `leases`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Protocol

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    Executable,
    Select,
    Table,
    Update,
    bindparam,
    delete,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from novitai.errors import NovitaiError
from novitai.store.engine import upsert
from novitai.store.tables import Record, leases


class Fenced(NovitaiError):
    """Another worker has claimed the row, or it has ended: the write must be rolled back."""


class Claim(Protocol):
    """A claimed row."""

    @property
    def id(self) -> str:
        """The row's ID."""

    @property
    def token(self) -> int:
        """The token of the claim."""


@dataclass(frozen=True, slots=True)
class LeasedTable:
    """The statements that claim rows of one table and renew and release their leases.

    Attributes:
        table: A table with the columns `id`, `token` and `lease_until`.
        due_at: Its column with the time at which a row is due; null if it is not due.
        live: The condition for rows that can be claimed.
        claiming: The update that claims a row: the parameters `claimed_id`, `claimed_at` and
            `claimed_until`.
        held: An update of a claimed row that changes nothing if the claim is over; its parameters
            are those of `claimed`.
        due: Selects the IDs of the rows that can be claimed, are due and have no current lease, the
            longest due first; its parameters are `now` and `most`.
    """

    table: Table
    due_at: Column[int]
    live: ColumnElement[bool]
    claiming: ReturningUpdate[*tuple[Any, ...]]
    held: Update
    due: Select[str]

    @classmethod
    def of(
        cls,
        table: Table,
        due_at: Column[int],
        *conditions: ColumnElement[bool],
        live: ColumnElement[bool] | None = None,
        returning: Sequence[Column[Any]],
    ) -> LeasedTable:
        """Describe a table, and build its statements: building them costs more than running them.

        Args:
            table: The table.
            due_at: Its column with the time at which a row is due.
            conditions: Further conditions of a claim; their parameter is `claimed_at`.
            live: The condition for rows that can be claimed; by default, all rows can.
            returning: The columns that a claim returns.
        """
        live, columns = true() if live is None else live, table.c
        free = _free(columns.lease_until, bindparam("claimed_at"))
        claiming = (
            update(table)
            .where(columns.id == bindparam("claimed_id"), live, free, *conditions)
            .values(token=columns.token + 1, lease_until=bindparam("claimed_until"))
            .returning(*returning)
        )
        held = update(table).where(
            columns.id == bindparam("claimed_id"),
            columns.token == bindparam("claimed_token"),
            live,
        )
        due = (
            select(columns.id)
            .where(live, due_at <= bindparam("now"), _free(columns.lease_until, bindparam("now")))
            .order_by(due_at)
            .limit(bindparam("most"))
        )
        return cls(table, due_at, live, claiming, held, due)

    def free(self, now: int) -> ColumnElement[bool]:
        """Return the condition that a row has no current lease."""
        return _free(self.table.c.lease_until, now)

    def claim(self, connection: Connection, row_id: str, *, now: int, until: int) -> Record | None:
        """Take the lease on a row until `until`, and raise its token.

        Returns:
            The columns that a claim returns, after the update; None if the row cannot be claimed or
            another worker's lease is current.
        """
        values = {"claimed_id": row_id, "claimed_at": now, "claimed_until": until}
        return connection.execute(self.claiming, values).first()

    @staticmethod
    def claimed(claim: Claim) -> dict[str, object]:
        """Return the parameters of `held` for a claim."""
        return {"claimed_id": claim.id, "claimed_token": claim.token}

    def hold(self, connection: Connection, claim: Claim, **values: object) -> None:
        """Set columns of a claimed row; call it first in a transaction that depends on the claim.

        Raises:
            Fenced: the claim is over; the transaction must be rolled back.
        """
        columns = {"token": claim.token, **values}
        changed = connection.execute(self.held, {**self.claimed(claim), **columns})
        if changed.rowcount == 0:
            raise fenced(claim)

    def renew(self, connection: Connection, claim: Claim, *, until: int) -> bool:
        """Renew a lease; False if it was released or the claim is over."""
        statement = self.held.where(self.table.c.lease_until.is_not(None))
        values = {**self.claimed(claim), "lease_until": until}
        return connection.execute(statement, values).rowcount > 0

    def release(self, connection: Connection, claim: Claim, *, due_at: int) -> None:
        """Release a lease without a result; does nothing if the claim is over."""
        columns = {"lease_until": None, self.due_at.name: due_at}
        connection.execute(self.held, {**self.claimed(claim), **columns})

    def release_all(self, connection: Connection) -> int:
        """Release every lease; only for SQLite, whose single process calls it at its start."""
        columns = self.table.c
        return connection.execute(
            update(self.table)
            .where(self.live, columns.lease_until.is_not(None))
            .values(lease_until=None, token=columns.token + 1)
        ).rowcount


def _free(until: ColumnElement[int], now: int | BindParameter[int]) -> ColumnElement[bool]:
    return or_(until.is_(None), until <= now)


def fenced(claim: Claim) -> Fenced:
    """Return the error for a claim that is over."""
    return Fenced(f"the claim on {claim.id} is over (token {claim.token})")


_TAKEN: Final = select(leases.c.name).where(
    leases.c.name == bindparam("of_name"),
    leases.c.holder != bindparam("of_holder"),
    leases.c.until > bindparam("now"),
)


def take(connection: Connection, name: str, holder: str, *, now: int, until: int) -> bool:
    """Take or renew the lease `name`; False while another holder has it."""
    values = {"of_name": name, "of_holder": holder, "now": now, "of_until": until}
    return connection.execute(_taking(connection.dialect.name), values).first() is not None


@cache
def _taking(dialect: str) -> Executable:
    """Build the statement once: that costs more than running it, and it runs every few seconds."""
    fresh = upsert.insert(leases, dialect).values(
        name=bindparam("of_name"), holder=bindparam("of_holder"), until=bindparam("of_until")
    )
    return fresh.on_conflict_do_update(
        index_elements=[leases.c.name],
        set_={"holder": fresh.excluded.holder, "until": fresh.excluded.until},
        where=or_(leases.c.holder == fresh.excluded.holder, leases.c.until <= bindparam("now")),
    ).returning(leases.c.holder)


def is_taken(connection: Connection, name: str, holder: str, *, now: int) -> bool:
    """Return whether another holder has the lease `name`."""
    values = {"of_name": name, "of_holder": holder, "now": now}
    return connection.execute(_TAKEN, values).first() is not None


def release(connection: Connection, name: str, holder: str) -> None:
    """Release the lease `name` if `holder` has it."""
    connection.execute(delete(leases).where(leases.c.name == name, leases.c.holder == holder))


def release_all(connection: Connection) -> None:
    """Release all leases by name; only for SQLite, whose single process calls it at its start."""
    connection.execute(delete(leases))
