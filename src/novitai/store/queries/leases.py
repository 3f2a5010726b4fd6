# SPDX-License-Identifier: Apache-2.0
"""Leases on rows, and leases by name on tasks that one process may do at a time.

A worker claims a row with the columns `id`, `token` and `lease_until` by raising its token. Each
later write names the token, so that a worker whose row was claimed again is fenced: its write
changes nothing. A task without a row, such as listing the account, has a row in `leases`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Table,
    Update,
    delete,
    or_,
    true,
    update,
)

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
    """

    table: Table
    due_at: Column[int]
    live: ColumnElement[bool]

    @classmethod
    def of(
        cls, table: Table, due_at: Column[int], live: ColumnElement[bool] | None = None
    ) -> LeasedTable:
        """Describe a table; without `live`, all its rows can be claimed."""
        return cls(table, due_at, true() if live is None else live)

    def free(self, now: int) -> ColumnElement[bool]:
        """Return the condition that a row has no current lease."""
        until = self.table.c.lease_until
        return or_(until.is_(None), until <= now)

    def due(self, now: int) -> tuple[ColumnElement[bool], ...]:
        """Return the conditions that a row can be claimed, is due and has no current lease."""
        return (self.live, self.due_at <= now, self.free(now))

    def claim(
        self,
        connection: Connection,
        row_id: str,
        *conditions: ColumnElement[bool],
        now: int,
        until: int,
        returning: Sequence[Column[Any]],
    ) -> Record | None:
        """Take the lease on a row until `until`, and raise its token.

        Returns:
            The columns in `returning` after the update; None if the row cannot be claimed or
            another worker's lease is current.
        """
        columns = self.table.c
        return connection.execute(
            update(self.table)
            .where(columns.id == row_id, self.live, self.free(now), *conditions)
            .values(token=columns.token + 1, lease_until=until)
            .returning(*returning)
        ).first()

    def held(self, claim: Claim) -> Update:
        """Return an update of a claimed row that changes nothing if the claim is over."""
        columns = self.table.c
        return update(self.table).where(
            columns.id == claim.id, columns.token == claim.token, self.live
        )

    def hold(self, connection: Connection, claim: Claim, **values: object) -> None:
        """Set columns of a claimed row; call it first in a transaction that depends on the claim.

        Raises:
            Fenced: the claim is over; the transaction must be rolled back.
        """
        changed = connection.execute(self.held(claim).values(token=claim.token, **values))
        if changed.rowcount == 0:
            raise fenced(claim)

    def renew(self, connection: Connection, claim: Claim, *, until: int) -> bool:
        """Renew a lease; False if it was released or the claim is over."""
        statement = self.held(claim).where(self.table.c.lease_until.is_not(None))
        return connection.execute(statement.values(lease_until=until)).rowcount > 0

    def release(self, connection: Connection, claim: Claim, *, due_at: int) -> None:
        """Release a lease without a result; does nothing if the claim is over."""
        connection.execute(self.held(claim).values({"lease_until": None, self.due_at: due_at}))

    def release_all(self, connection: Connection) -> int:
        """Release every lease; only for SQLite, whose single process calls it at its start."""
        columns = self.table.c
        return connection.execute(
            update(self.table)
            .where(self.live, columns.lease_until.is_not(None))
            .values(lease_until=None, token=columns.token + 1)
        ).rowcount


def fenced(claim: Claim) -> Fenced:
    """Return the error for a claim that is over."""
    return Fenced(f"the claim on {claim.id} is over (token {claim.token})")


def take(connection: Connection, name: str, holder: str, *, now: int, until: int) -> bool:
    """Take or renew the lease `name`; False while another holder has it."""
    taken = connection.execute(
        upsert.insert(leases, connection.dialect.name)
        .values(name=name, holder=holder, until=until)
        .on_conflict_do_update(
            index_elements=[leases.c.name],
            set_={"holder": holder, "until": until},
            where=or_(leases.c.holder == holder, leases.c.until <= now),
        )
        .returning(leases.c.holder)
    )
    return taken.first() is not None


def release(connection: Connection, name: str, holder: str) -> None:
    """Release the lease `name` if `holder` has it."""
    connection.execute(delete(leases).where(leases.c.name == name, leases.c.holder == holder))


def release_all(connection: Connection) -> None:
    """Release all leases by name; only for SQLite, whose single process calls it at its start."""
    connection.execute(delete(leases))
