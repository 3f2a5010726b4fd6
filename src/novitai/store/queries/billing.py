# SPDX-License-Identifier: Apache-2.0
"""Queries on `billing_states` and `billing_spans`, the ledger."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, delete, func, or_, select, update

from novitai.domain.billing import LedgerSpan, SpanKind, folded
from novitai.domain.billing_book import BillingState, Book
from novitai.domain.instance import ENDED, BillingMode
from novitai.store.engine.chunks import chunks
from novitai.store.queries import changes as changes_of_views
from novitai.store.tables import Record, instances, listings
from novitai.store.tables import billing_spans as spans
from novitai.store.tables import billing_states as states

_STATE: Final = tuple(states.c[field.name] for field in fields(BillingState))
_SPAN: Final = tuple(spans.c[field.name] for field in fields(LedgerSpan))
_WIDTH: Final = len(_STATE)
_BATCH: Final = 200
"""How many rows of a long result are held at once."""
_OPEN: Final = and_(
    spans.c.instance_id == states.c.instance_id,
    spans.c.upstream_id == states.c.upstream_id,
    spans.c.ended_by.is_(None),
)
# Run for each step and each listing; built once, because that costs more than running them.
_BOOKS: Final = (
    select(*_STATE, *_SPAN)
    .select_from(states.outerjoin(spans, _OPEN))
    .where(states.c.instance_id.in_(bindparam("wanted", expanding=True)))
    .order_by(states.c.instance_id, states.c.since, states.c.upstream_id, spans.c.id)
)
_INSERT_STATE: Final = states.insert()
_INSERT_SPAN: Final = spans.insert()
_UPDATE_STATE: Final = update(states).where(
    states.c.instance_id == bindparam("of_instance_id"),
    states.c.upstream_id == bindparam("of_upstream_id"),
)
_TIMES: Final = (
    "began_after",
    "began_by",
    "ended_after",
    "ended_by",
    "expires_after",
    "expires_by",
)
_UPDATE_SPAN: Final = update(spans).where(spans.c.id == bindparam("of_id"))


@dataclass(frozen=True, slots=True)
class SpanOf:
    """A span of the ledger with what it can be grouped by."""

    span: LedgerSpan
    shown_at: int
    instance_id: str
    product_name: str
    region: str
    billing_mode: BillingMode
    gpu_num: int
    upstream_id: str = ""


def books_of(connection: Connection, instance_ids: Collection[str]) -> dict[str, list[Book]]:
    """Load the books of records with their open spans, by the record's ID; oldest first."""
    found: dict[str, list[Book]] = {}
    for chunk in chunks(sorted(instance_ids)):
        for book in _books(connection.execute(_BOOKS, {"wanted": chunk})):
            found.setdefault(book.state.instance_id, []).append(book)
    return found


def watched(connection: Connection) -> list[Book]:
    """Load the books of instances that a record pays though it has another or none: surplus."""
    query = (
        select(*_STATE, *_SPAN)
        .select_from(
            states.join(instances, instances.c.id == states.c.instance_id).outerjoin(spans, _OPEN)
        )
        .where(
            ~states.c.ended,
            or_(
                instances.c.upstream_id.is_(None),
                instances.c.upstream_id != states.c.upstream_id,
                instances.c.status.in_(ENDED),
            ),
        )
        .order_by(states.c.instance_id, states.c.upstream_id, spans.c.id)
    )
    return list(_books(connection.execute(query)))


def save(connection: Connection, changes: Sequence[tuple[Book | None, Book]]) -> None:
    """Store changed books; the first of each pair is the book before, None if it is new."""
    fresh = [after.state for before, after in changes if before is None]
    if fresh:
        connection.execute(_INSERT_STATE, [_values(state) for state in fresh])
    changed = [
        after.state
        for before, after in changes
        if before is not None and before.state != after.state
    ]
    if changed:
        key = {"instance_id", "upstream_id"}
        connection.execute(
            _UPDATE_STATE,
            [
                {
                    "of_instance_id": state.instance_id,
                    "of_upstream_id": state.upstream_id,
                    **{name: value for name, value in _values(state).items() if name not in key},
                }
                for state in changed
            ],
        )
    changes_of_views.note(connection, {after.state.instance_id for _, after in changes})
    inserts: list[dict[str, object]] = []
    updates: list[dict[str, object]] = []
    for before, after in changes:
        known = set(before.spans) if before else set()
        owner = {"instance_id": after.state.instance_id, "upstream_id": after.state.upstream_id}
        for span in (*after.closed, *after.spans):
            values = {field.name: getattr(span, field.name) for field in fields(span)}
            values["kind"] = span.kind.value
            del values["id"]
            if span.id is None:
                inserts.append({**owner, **values})
            elif span not in known:
                updates.append({"of_id": span.id, **values})
    if inserts:
        connection.execute(_INSERT_SPAN, inserts)
    if updates:
        connection.execute(_UPDATE_SPAN, updates)


def books_ahead(connection: Connection, latest: int) -> list[tuple[str, str]]:
    """List the books with a time after `latest`, in Unix milliseconds: record and upstream ID."""
    found: set[tuple[str, str]] = set()
    for table, columns in (
        (states, (states.c.since, states.c.known_at, states.c.counts_after, states.c.absent_by)),
        (spans, (spans.c.began_after, spans.c.began_by, spans.c.ended_after, spans.c.ended_by)),
    ):
        late = or_(*(column > latest for column in columns))
        rows = connection.execute(select(table.c.instance_id, table.c.upstream_id).where(late))
        found.update((row[0], row[1]) for row in rows)
    return sorted(found)


def forget_expiry(connection: Connection, books: Sequence[tuple[str, str]]) -> None:
    """Forget when the disks of books are purged; the next listing tells it again."""
    for instance_id, upstream_id in books:
        connection.execute(
            update(spans)
            .where(
                spans.c.instance_id == instance_id,
                spans.c.upstream_id == upstream_id,
                spans.c.ended_by.is_(None),
            )
            .values(expires_after=None, expires_by=None)
        )


def recount(connection: Connection, books: Sequence[tuple[str, str]]) -> None:
    """Sum the closed spans of books up again, because their times were corrected."""
    for instance_id, upstream_id in books:
        rows = connection.execute(
            select(*_SPAN).where(
                spans.c.instance_id == instance_id,
                spans.c.upstream_id == upstream_id,
                spans.c.ended_by.is_not(None),
            )
        )
        closed = [_span(row) for row in rows]
        connection.execute(
            update(states)
            .where(states.c.instance_id == instance_id, states.c.upstream_id == upstream_id)
            .values(
                least=sum((one.rate or 0) * one.least(0) for one in closed),
                most=sum((one.rate or 0) * one.most(0) for one in closed),
            )
        )
    changes_of_views.note(connection, {instance_id for instance_id, _ in books})


def drop(connection: Connection, instance_id: str, upstream_id: str) -> None:
    """Delete the book of an upstream ID that turned out to be of a foreign instance."""
    changes_of_views.note(connection, [instance_id])
    for table in (spans, states):
        connection.execute(
            delete(table).where(
                table.c.instance_id == instance_id, table.c.upstream_id == upstream_id
            )
        )


def spans_of(connection: Connection, instance_id: str) -> list[LedgerSpan]:
    """List all spans of a record, oldest first."""
    rows = connection.execute(
        select(*_SPAN)
        .where(spans.c.instance_id == instance_id)
        .order_by(spans.c.began_after, spans.c.id)
    )
    return [_span(row) for row in rows]


@contextmanager
def between(connection: Connection, since: int, until: int) -> Iterator[Iterator[SpanOf]]:
    """Give the spans that overlap `[since, until)`, in Unix milliseconds, one by one.

    They are read batch by batch within the context, because an interval may have very many. The
    read must be a snapshot, because PostgreSQL has cursors in transactions alone.
    """
    query = (
        select(
            *_SPAN,
            *_STATE,
            listings.c.complete_at,
            instances.c.product_name,
            instances.c.region,
            instances.c.billing_mode,
            instances.c.gpu_num,
        )
        .select_from(
            spans.join(
                states,
                and_(
                    states.c.instance_id == spans.c.instance_id,
                    states.c.upstream_id == spans.c.upstream_id,
                ),
            )
            .join(instances, instances.c.id == spans.c.instance_id)
            .outerjoin(listings, listings.c.name == "last")
        )
        .where(
            spans.c.began_after < until,
            or_(spans.c.ended_by.is_(None), spans.c.ended_by > since),
        )
        .order_by(spans.c.id)
    )
    with connection.execute(query, execution_options={"yield_per": _BATCH}) as rows:
        yield map(_span_of, rows)


def _span_of(row: Sequence[Any]) -> SpanOf:
    width = len(_SPAN)
    state = BillingState(*row[width : width + _WIDTH])
    listed_at, product, region, mode, gpu_num = row[width + _WIDTH :]
    return SpanOf(
        _span(row[:width]),
        state.shown_at(listed_at),
        state.instance_id,
        product,
        region,
        BillingMode(mode),
        gpu_num,
        state.upstream_id,
    )


@dataclass(frozen=True, slots=True)
class FoldedPage:
    """The result of one step of folding.

    Attributes:
        last: The ID of the last record that was looked at; None if there is no further one.
        dropped: How many rows fewer there are.
    """

    last: str | None
    dropped: int


def oldest_end(connection: Connection) -> int | None:
    """Return when the first span ended, in Unix milliseconds; None if none has."""
    found: int | None = connection.execute(select(func.min(spans.c.ended_by))).scalar_one()
    return found


def fold(
    connection: Connection, since: int, until: int, *, after: str = "", limit: int
) -> FoldedPage:
    """Make one span of all those of a record in `[since, until)` that differ in time alone.

    No sum changes: neither those of records nor those of this interval.

    Args:
        connection: A write transaction.
        since: Unix milliseconds.
        until: Unix milliseconds.
        after: The ID of the last record of the step before.
        limit: How many records to look at.
    """
    within = and_(spans.c.began_after >= since, spans.c.ended_by > since, spans.c.ended_by <= until)
    ids = (
        connection.execute(
            select(spans.c.instance_id)
            .where(within, spans.c.instance_id > after)
            .group_by(spans.c.instance_id)
            .having(func.count() > 1)
            .order_by(spans.c.instance_id)
            .limit(limit)
        )
        .scalars()
        .all()
    )
    rows = connection.execute(
        select(spans.c.instance_id, spans.c.upstream_id, *_SPAN)
        .where(within, spans.c.instance_id.in_(ids))
        .order_by(spans.c.id)
    )
    alike: dict[tuple[object, ...], list[LedgerSpan]] = {}
    for instance_id, upstream_id, *row in rows:
        span = _span(row)
        key = (instance_id, upstream_id, span.kind, span.rate, span.key_id, span.tags)
        alike.setdefault(key, []).append(span)
    dropped: list[int | None] = []
    updates: list[dict[str, object]] = []
    for found in alike.values():
        one = folded(found, since, until) if len(found) > 1 else None
        if one is not None:
            updates.append({"of_id": one.id, **{name: getattr(one, name) for name in _TIMES}})
            dropped += [other.id for other in found[1:]]
    if updates:
        connection.execute(_UPDATE_SPAN, updates)
    for chunk in chunks(dropped):
        connection.execute(delete(spans).where(spans.c.id.in_(chunk)))
    return FoldedPage(ids[-1] if len(ids) == limit else None, len(dropped))


def burn(connection: Connection, now: int) -> int:
    """Return the sum of the rates that are billed now, in 1/100000 USD per day."""
    rows = connection.execute(
        select(spans.c.rate).where(
            spans.c.ended_by.is_(None),
            spans.c.began_by.is_not(None),
            spans.c.rate.is_not(None),
            or_(spans.c.expires_after.is_(None), spans.c.expires_after > now),
        )
    )
    return sum(row[0] for row in rows)


def _books(rows: Iterable[Record]) -> Iterable[Book]:
    """Group rows of a state and one of its open spans, or none, into books."""
    book: Book | None = None
    for row in rows:
        state = BillingState(*row[:_WIDTH])
        if book is not None and book.state != state:
            yield book
            book = None
        opened = () if row[_WIDTH] is None else (_span(row[_WIDTH:]),)
        book = Book(state, (*(book.spans if book else ()), *opened))
    if book is not None:
        yield book


def _span(row: Sequence[object]) -> LedgerSpan:
    """Map a row of `_SPAN`; the columns have the order of the fields."""
    return LedgerSpan(SpanKind(row[0]), *row[1:])  # type: ignore[arg-type]  # a row has no types


def _values(state: BillingState) -> dict[str, object]:
    return {field.name: getattr(state, field.name) for field in fields(state)}
