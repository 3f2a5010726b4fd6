# SPDX-License-Identifier: Apache-2.0
"""Leases: who may work on a row, or do what only one process may do, and until when.

A row with the columns `id`, `token` and `lease_until` is claimed by raising its token. Every later
write names that token, so that a worker whose lease expired changes nothing: it is fenced off. A
task that is no row, such as listing the account, has a lease by name in the table `leases`.
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
    """The row has been claimed by another worker, or ended: this write must not count."""


class Claim(Protocol):
    """A row as it was claimed."""

    @property
    def id(self) -> str:
        """The row's id."""

    @property
    def token(self) -> int:
        """The token that the claim raised."""


@dataclass(frozen=True, slots=True)
class LeasedTable:
    """The statements that claim, keep and give back the rows of one table.

    Attributes:
        table: Has the columns `id`, `token` and `lease_until`.
        due_at: Its column that says when a row is due; null if it is not.
        live: Which rows can be claimed at all.
    """

    table: Table
    due_at: Column[int]
    live: ColumnElement[bool]

    @classmethod
    def of(
        cls, table: Table, due_at: Column[int], live: ColumnElement[bool] | None = None
    ) -> LeasedTable:
        """Describe a table; all its rows can be claimed unless `live` says which."""
        return cls(table, due_at, true() if live is None else live)

    def free(self, now: int) -> ColumnElement[bool]:
        """Return the condition that no worker holds a row."""
        until = self.table.c.lease_until
        return or_(until.is_(None), until <= now)

    def due(self, now: int) -> tuple[ColumnElement[bool], ...]:
        """Return the conditions that a row can be claimed, is due, and is held by no worker."""
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
            The columns asked for, as they are then; None if the row cannot be claimed or is held.
        """
        columns = self.table.c
        return connection.execute(
            update(self.table)
            .where(columns.id == row_id, self.live, self.free(now), *conditions)
            .values(token=columns.token + 1, lease_until=until)
            .returning(*returning)
        ).first()

    def held(self, claim: Claim) -> Update:
        """Begin an update of a claimed row that changes nothing if the claim is over."""
        columns = self.table.c
        return update(self.table).where(
            columns.id == claim.id, columns.token == claim.token, self.live
        )

    def hold(self, connection: Connection, claim: Claim, **values: object) -> None:
        """Set columns of a claimed row, as the first statement of what depends on the claim.

        Raises:
            Fenced: the claim is over; the transaction must be rolled back.
        """
        changed = connection.execute(self.held(claim).values(token=claim.token, **values))
        if changed.rowcount == 0:
            raise fenced(claim)

    def renew(self, connection: Connection, claim: Claim, *, until: int) -> bool:
        """Keep a lease that has not been given back; False if the claim is over."""
        statement = self.held(claim).where(self.table.c.lease_until.is_not(None))
        return connection.execute(statement.values(lease_until=until)).rowcount > 0

    def release(self, connection: Connection, claim: Claim, *, due_at: int) -> None:
        """Give a lease back without a result; does nothing if the claim is over."""
        connection.execute(self.held(claim).values({"lease_until": None, self.due_at: due_at}))

    def release_all(self, connection: Connection) -> int:
        """Give every lease back: for the one process of an embedded store, when it starts."""
        columns = self.table.c
        return connection.execute(
            update(self.table)
            .where(self.live, columns.lease_until.is_not(None))
            .values(lease_until=None, token=columns.token + 1)
        ).rowcount


def fenced(claim: Claim) -> Fenced:
    """Make the error of a claim that is over."""
    return Fenced(f"{claim.id} is no longer ours (token {claim.token})")


def take(connection: Connection, name: str, holder: str, *, now: int, until: int) -> bool:
    """Take or renew the lease of a name; False while another holder has it."""
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
    """Give the lease of a name back, if `holder` has it."""
    connection.execute(delete(leases).where(leases.c.name == name, leases.c.holder == holder))


def release_all(connection: Connection) -> None:
    """Give the lease of every name back: for the one process of an embedded store, at its start."""
    connection.execute(delete(leases))
