# SPDX-License-Identifier: Apache-2.0
"""Add the ledger, and fill it from the events of existing instances.

An event shows a status when it was written, so a change lies between two events. Prices are those
of the purchase.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_FREE_DISK_GB = 60
_DISK_PRICE = 500
_BILLED = frozenset(
    [
        "pulling",
        "running",
        "toRestart",
        "restarting",
        "toStop",
        "stopping",
        "migrating",
        "freezing",
        "resetting",
    ]
)
_FREE = frozenset(["pending", "toCreate", "creating", "toStart", "starting", "exited", "removed"])
_ENDED = ("terminated", "released")

_STATES = sa.table(
    "billing_states",
    *(
        sa.column(name)
        for name in (
            "instance_id",
            "upstream_id",
            "since",
            "known_at",
            "adopted",
            "word",
            "counts_after",
            "ended",
            "least",
            "most",
            "unknown",
        )
    ),
)
_SPANS = sa.table(
    "billing_spans",
    *(
        sa.column(name)
        for name in (
            "instance_id",
            "upstream_id",
            "kind",
            "rate",
            "began_after",
            "began_by",
            "ended_after",
            "ended_by",
        )
    ),
)
_BOUGHT = sa.text(
    "SELECT id, upstream_id, status, rootfs_size, hourly_price, obs_hourly_price, obs_status, "
    "obs_at, obs_gone, obs_missing_count, acted_at, confirmed_at, origin, created_at, bought_at, "
    "coalesce(released_at, terminated_at) AS ended_at "
    "FROM instances WHERE upstream_id IS NOT NULL AND bought_at IS NOT NULL ORDER BY id"
)
_EVENTS = sa.text("SELECT at, data FROM events WHERE instance_id = :instance_id ORDER BY sequence")


def upgrade() -> None:
    """Add the tables and fill them."""
    sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "billing_states",
        sa.Column("instance_id", sa.String(40), nullable=False),
        sa.Column("upstream_id", sa.String(255), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("known_at", sa.BigInteger(), nullable=False),
        sa.Column("adopted", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("word", sa.String(64), server_default=sa.text("''"), nullable=False),
        sa.Column("counts_after", sa.BigInteger()),
        sa.Column("absent_by", sa.BigInteger()),
        sa.Column("started_at", sa.BigInteger()),
        sa.Column("stopped_at", sa.BigInteger()),
        sa.Column("ended", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("least", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("most", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("unknown", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("key_id", sa.String(40)),
        sa.Column("tags", sa.Text()),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name="fk_billing_states_instance_id"
        ),
        sa.PrimaryKeyConstraint("instance_id", "upstream_id", name="pk_billing_states"),
    )
    op.create_index(
        "ix_billing_states_unended",
        "billing_states",
        ["instance_id"],
        sqlite_where=sa.text("NOT ended"),
        postgresql_where=sa.text("NOT ended"),
    )
    op.create_table(
        "billing_spans",
        sa.Column("id", sequence, autoincrement=True, nullable=False),
        sa.Column("instance_id", sa.String(40), nullable=False),
        sa.Column("upstream_id", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("rate", sa.BigInteger()),
        sa.Column("began_after", sa.BigInteger(), nullable=False),
        sa.Column("began_by", sa.BigInteger()),
        sa.Column("ended_after", sa.BigInteger()),
        sa.Column("ended_by", sa.BigInteger()),
        sa.Column("key_id", sa.String(40)),
        sa.Column("tags", sa.Text()),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name="fk_billing_spans_instance_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_billing_spans"),
    )
    op.create_index("ix_billing_spans_instance_id", "billing_spans", ["instance_id", "upstream_id"])
    op.create_index("ix_billing_spans_ended_by", "billing_spans", ["ended_by"])
    _fill(op.get_bind())


def downgrade() -> None:
    """Drop the ledger."""
    op.drop_table("billing_spans")
    op.drop_table("billing_states")


def _fill(connection: sa.Connection) -> None:
    listed_at = connection.execute(
        sa.text("SELECT complete_at FROM listings WHERE name = 'last'")
    ).scalar()
    for row in connection.execute(_BOUGHT).all():
        events = connection.execute(_EVENTS, {"instance_id": row.id}).all()
        _write(connection, row, list(_seen(events, row.upstream_id)), listed_at)


def _seen(events: Iterable[Any], upstream_id: str) -> Iterator[tuple[int, str]]:
    """Yield when an event showed the instance, and Novita's status in it; empty if it had none."""
    for event in events:
        data = json.loads(event.data)
        if data.get("upstreamId") == upstream_id:
            yield event.at, str(data.get("upstreamStatus") or "")


def _write(
    connection: sa.Connection, row: Any, seen: list[tuple[int, str]], listed_at: int | None
) -> None:
    adopted = row.origin == "adopted"
    since = row.bought_at if adopted else row.created_at
    over = row.status in _ENDED or row.obs_gone
    known_at, confirmed = _known(row, seen, listed_at)
    ended_by = None
    if over:
        ended_by = max(row.ended_at or row.obs_at or known_at, since)
        known_at = min(known_at, ended_by)
    spans = list(_gpu(row, seen, since, known_at, ended_by))
    disk = max(0, row.rootfs_size - _FREE_DISK_GB) * _DISK_PRICE
    if disk:
        end = (None, None) if ended_by is None else (max(known_at, since), ended_by)
        spans.append(("disk", disk, since, row.bought_at, *end))
    names = ("kind", "rate", "began_after", "began_by", "ended_after", "ended_by")
    owner = {"instance_id": row.id, "upstream_id": row.upstream_id}
    closed = [span for span in spans if span[5] is not None]
    connection.execute(
        _STATES.insert().values(
            **owner,
            since=since,
            known_at=max(since, known_at if ended_by is None else ended_by),
            adopted=adopted,
            word=(row.obs_status or "")[:64],
            counts_after=None if over or not confirmed else max(known_at, row.acted_at or 0),
            ended=over,
            least=sum(_ms(one[3], one[4]) * (one[1] or 0) for one in closed),
            most=sum(_ms(one[2], one[5]) * (one[1] or 0) for one in closed),
            unknown=any(one[1] is None for one in closed),
        )
    )
    for span in spans:
        connection.execute(_SPANS.insert().values(**owner, **dict(zip(names, span, strict=True))))


def _known(row: Any, seen: list[tuple[int, str]], listed_at: int | None) -> tuple[int, bool]:
    """Return when the instance was last seen, and whether listings show it."""
    known_at = max([row.obs_at or row.bought_at, *(at for at, _ in seen)])
    shown = row.confirmed_at is not None and not row.obs_missing_count and not row.obs_gone
    if shown and listed_at is not None and listed_at > max(row.obs_at or 0, row.acted_at or 0):
        known_at = max(known_at, listed_at)
    return known_at, shown


def _gpu(
    row: Any, seen: list[tuple[int, str]], since: int, known_at: int, ended_by: int | None
) -> Iterator[tuple[str, int | None, int, int | None, int | None, int | None]]:
    price = row.obs_hourly_price if row.obs_hourly_price is not None else row.hourly_price
    rate = None if price is None else price * 24
    begun: tuple[int, int] | None = None
    before = since
    last = [] if row.status in _ENDED else [(known_at, row.obs_status or "")]
    for said_at, word in [*seen, *last]:
        at = max(said_at, before)
        if word in _BILLED and begun is None:
            begun = (before, at)
        elif word in _FREE and begun is not None:
            yield "gpu", rate, *begun, before, at
            begun = None
        before = at
    if begun is not None and ended_by is not None:
        yield "gpu", rate, *begun, max(before, begun[1]), max(ended_by, before)
    elif begun is not None:
        yield "gpu", rate, *begun, None, None


def _ms(begin: int | None, end: int | None) -> int:
    return 0 if begin is None or end is None else max(0, end - begin)
