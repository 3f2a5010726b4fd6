# SPDX-License-Identifier: Apache-2.0
"""The figures about the whole installation: counted by one worker, stored as one row, read by all.

Every count reads live records only, or an index that holds no more than those. The one exception is
the spending, which sums up the ledger, so it is counted less often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import orjson
from sqlalchemy import (
    BigInteger,
    BindParameter,
    Connection,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    text,
)

from novitai.domain.billing import UNIT, SpanKind
from novitai.store.queries import coordination
from novitai.store.tables import billing_spans as spans
from novitai.store.tables import billing_states as states
from novitai.store.tables import instances, operations
from novitai.store.tables import unmanaged_instances as unmanaged

_NAME: Final = "fleet"
# Run every few seconds; built once, because building a statement costs more than running it.
# The condition is that of a partial index, which SQLite uses for the same literals only.
_INSTANCES: Final = (
    select(instances.c.status, instances.c.billing_mode, func.count())
    .where(text("status NOT IN ('terminated', 'released')"))
    .group_by(instances.c.status, instances.c.billing_mode)
)
_OPERATIONS: Final = (
    select(operations.c.kind, operations.c.phase, func.count())
    .where(~operations.c.done)
    .group_by(operations.c.kind, operations.c.phase)
)
_OLDEST_DUE: Final = select(func.min(operations.c.next_step_at)).where(
    ~operations.c.done,
    operations.c.next_step_at <= bindparam("now"),
    or_(operations.c.lease_until.is_(None), operations.c.lease_until <= bindparam("now")),
)
_UNMANAGED: Final = select(func.count()).select_from(unmanaged)
_LISTED_AT: Final[BindParameter[int]] = bindparam("listed_at", type_=BigInteger)
_SHOWN_AT: Final = case(
    (and_(states.c.counts_after < _LISTED_AT, states.c.known_at < _LISTED_AT), _LISTED_AT),
    else_=states.c.known_at,
)
_END: Final = case(
    (spans.c.ended_after.is_not(None), spans.c.ended_after),
    (spans.c.expires_after < _SHOWN_AT, spans.c.expires_after),
    else_=_SHOWN_AT,
)
_EXACT: Final = spans.c.rate * case((spans.c.began_by < _END, _END - spans.c.began_by), else_=0)
# Two sums, because SQLite has no integers above 64 bits.
_SPEND: Final = (
    select(spans.c.kind, func.sum(_EXACT // UNIT), func.sum(_EXACT % UNIT))
    .select_from(
        spans.join(
            states,
            and_(
                states.c.instance_id == spans.c.instance_id,
                states.c.upstream_id == spans.c.upstream_id,
            ),
        )
    )
    .where(spans.c.rate.is_not(None), spans.c.began_by.is_not(None))
    .group_by(spans.c.kind)
)


@dataclass(frozen=True, slots=True)
class MoneyNumbers:
    """The figures about money that cost more to count.

    Attributes:
        counted_at: When they were counted, in Unix milliseconds.
        spend: The amount that was certainly billed so far, in 1/100000 USD, by the kind of span.
        budgets: The spent share of the present period, by the name of the budget.
        balance: The balance of the account in USD; None if Novita does not tell it.
    """

    counted_at: int
    spend: Mapping[str, int]
    budgets: Mapping[str, float]
    balance: float | None


@dataclass(frozen=True, slots=True)
class FleetNumbers:
    """The figures about the whole installation; moments in Unix milliseconds.

    Attributes:
        counted_at: When they were counted.
        instances: Live records: status, billing mode, number.
        operations: Unfinished operations: kind, phase, number.
        oldest_due: Since when the oldest operation without a worker has been due; None without.
        orphans: Orphans that were not dismissed.
        unmanaged: Instances of the account without a record, orphans included.
        held: Whether write calls are held.
        incomplete_listings: Consecutive incomplete listings.
        listed_at: When the last complete listing began; None before the first.
        listing_interval: Seconds between two listings.
        unenforced: Live records with a limit that is due and has no effect.
        burn: The rate that is billed now, in 1/100000 USD per day.
        bills_until: The end of the last hour whose bills were compared; None before the first.
        bill_events: Events of the last 24 hours about differences of bills, by type.
        money: The other figures about money.
    """

    counted_at: int
    instances: Sequence[tuple[str, str, int]]
    operations: Sequence[tuple[str, str, int]]
    oldest_due: int | None
    orphans: int
    unmanaged: int
    held: bool
    incomplete_listings: int
    listed_at: int | None
    listing_interval: float
    unenforced: int
    burn: int
    bills_until: int | None
    bill_events: Mapping[str, int]
    money: MoneyNumbers


def load(connection: Connection) -> FleetNumbers | None:
    """Load the figures; None before they are first counted."""
    stored = coordination.value(connection, _NAME)
    if stored is None:
        return None
    found = orjson.loads(stored)
    return FleetNumbers(**{**found, "money": MoneyNumbers(**found["money"])})


def save(connection: Connection, numbers: FleetNumbers) -> None:
    """Store the figures."""
    coordination.set_value(connection, _NAME, orjson.dumps(asdict(numbers)).decode())


def count_instances(connection: Connection) -> list[tuple[str, str, int]]:
    """Count the live records by status and billing mode."""
    return [(row[0], row[1], row[2]) for row in connection.execute(_INSTANCES)]


def count_operations(connection: Connection) -> list[tuple[str, str, int]]:
    """Count the unfinished operations by kind and phase."""
    return [(row[0], row[1], row[2]) for row in connection.execute(_OPERATIONS)]


def oldest_due(connection: Connection, now: int) -> int | None:
    """Return since when an operation has been due that no worker runs; None if there is none."""
    oldest: int | None = connection.execute(_OLDEST_DUE, {"now": now}).scalar_one()
    return oldest


def count_unmanaged(connection: Connection) -> int:
    """Count the instances of the account without a record."""
    return connection.execute(_UNMANAGED).scalar_one()


def spend(connection: Connection, listed_at: int | None) -> dict[str, int]:
    """Sum up what was certainly billed by kind, in 1/100000 USD.

    Args:
        connection: A transaction.
        listed_at: When the last complete listing began, up to which open spans are certain.
    """
    found = {kind.value: 0 for kind in SpanKind}
    for kind, whole, rest in connection.execute(_SPEND, {"listed_at": listed_at or 0}):
        found[kind] = int(whole) + int(rest) // UNIT
    return found
