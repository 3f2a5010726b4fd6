# SPDX-License-Identifier: Apache-2.0
"""Keeps the ledger, in the transaction of the observation that changes it.

Two paths lead here. A listing shows a status: `observe`, or lacks an instance: `absent`. Everything
else that concerns money (a purchase, an adoption, a call, an end) is a change of a record, and the
recorder hands each changed record to `follow`. Both hold the record's row lock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection

from novitai.domain.billing import Cost
from novitai.domain.billing_book import Book, Labels, cost_of
from novitai.domain.billing_edges import BillingSight, Bounds, Look
from novitai.domain.instance import Instance, Origin
from novitai.domain.operation import Attempt
from novitai.store.queries import attempts, billing, coordination, instance_tags, instances
from novitai.store.queries.instances import to_units
from novitai.upstream.models import UpstreamInstance


def observe(
    connection: Connection, seen: Sequence[tuple[Instance, UpstreamInstance]], look: Look
) -> dict[str, int]:
    """Take in what a look showed of records' instances.

    Returns:
        The previous price, in 1/100000 USD per hour, of each running instance whose price has
        changed, by the record's ID.
    """
    books = billing.books_of(connection, [instance.id for instance, _ in seen])
    listed_at = coordination.listed_at(connection)
    changes: list[tuple[Book | None, Book]] = []
    changed_prices: dict[str, int] = {}
    for instance, row in seen:
        before = _current(books.get(instance.id, ()), row.id)
        book = before or _begun(connection, instance, look.began_at, listed_at)
        if book is None:
            continue
        after = book.seen(_sight(instance, row), look, listed_at)
        if after is not before:
            changes.append((before, after))
        old, new = book.gpu, after.gpu
        if old and new and old.rate is not None and new.rate not in {None, old.rate}:
            changed_prices[instance.id] = old.rate // 24
    billing.save(connection, changes)
    return changed_prices


def absent(connection: Connection, missing: Mapping[str, str], read_at: int) -> None:
    """Note that a listing that was read at `read_at` lacks the instances of some records.

    Args:
        connection: A write transaction.
        missing: The upstream IDs by the ID of the record.
        read_at: Unix milliseconds.
    """
    listed_at = coordination.listed_at(connection)
    changes = [
        (book, after)
        for instance_id, books in billing.books_of(connection, missing).items()
        for book in books
        if book.state.upstream_id == missing[instance_id]
        and (after := book.absent(read_at, listed_at)) is not book
    ]
    billing.save(connection, changes)


def follow(connection: Connection, records: Collection[Instance], now: int) -> None:
    """Take in changes of records: a purchase, an adoption, a call, an end.

    Args:
        connection: The write transaction of the change.
        records: The changed records.
        now: Unix milliseconds.
    """
    paying = {one.id: one for one in records if one.upstream_id is not None}
    if not paying:
        return
    books = billing.books_of(connection, paying)
    listed_at = coordination.listed_at(connection)
    changes: list[tuple[Book | None, Book]] = []
    for instance in paying.values():
        before = _current(books.get(instance.id, ()), instance.upstream_id)
        book = before or _begun(connection, instance, now, listed_at)
        if book is None:
            continue
        after = _followed(book, instance, now, listed_at)
        if after is not before:
            changes.append((before, after))
    billing.save(connection, changes)


def surplus(
    connection: Connection,
    instance: Instance,
    attempt: Attempt,
    row: UpstreamInstance,
    look: Look,
) -> None:
    """Bill a surplus instance to the record whose attempt bought it."""
    books = billing.books_of(connection, [instance.id])
    before = _current(books.get(instance.id, ()), row.id)
    book = before or _bought(instance, row.id, attempt, look.read_at, labels_of(instance))
    after = book.seen(_sight(instance, row), look, coordination.listed_at(connection))
    billing.save(connection, [(before, after)])


def watch(
    connection: Connection, rows: Mapping[str, UpstreamInstance], look: Look, *, complete: bool
) -> None:
    """Follow the instances that a record pays though it has another: surplus ones, until they end.

    Args:
        connection: A write transaction.
        rows: The instances of a listing, by ID.
        look: When it was read.
        complete: Whether it was complete.
    """
    listed_at = coordination.listed_at(connection)
    changes: list[tuple[Book | None, Book]] = []
    watched = billing.watched(connection)
    owners = instances.lock_many(connection, sorted({one.state.instance_id for one in watched}))
    books = billing.watched(connection)  # again, because others may have written before the lock
    for book in books:
        # A look from before the book says nothing of it.
        is_older = look.began_at <= book.state.shown_at(listed_at)
        if is_older or book.state.instance_id not in owners:
            continue
        row = rows.get(book.state.upstream_id)
        after = book
        if row is not None:
            sight = _sight(owners[book.state.instance_id], row)
            if (
                book.state.absent_by is not None
                or _differs(book, sight)
                or book.purge_moved(sight, look)
            ):
                after = book.seen(sight, look, listed_at)
        elif complete:
            after = book.absent(look.read_at, listed_at).ended(
                look.read_at, listed_at, owners[book.state.instance_id].rootfs_size
            )
        if after is not book:
            changes.append((book, after))
    billing.save(connection, changes)


def void(connection: Connection, instance_id: str, upstream_id: str | None) -> None:
    """Forget what was billed for an upstream ID that turned out to be another instance's."""
    if upstream_id is not None:
        billing.drop(connection, instance_id, upstream_id)


def relabel(connection: Connection, instance: Instance, now: int) -> None:
    """Give the running spans of a record, whose tags have changed, its labels from now on."""
    labels = labels_of(instance)
    listed_at = coordination.listed_at(connection)
    billing.save(
        connection,
        [
            (book, book.labelled(labels, now, listed_at))
            for book in billing.books_of(connection, [instance.id]).get(instance.id, ())
        ],
    )


def costs_of(connection: Connection, records: Collection[Instance]) -> dict[str, Cost]:
    """Return what records cost, by ID, from one query of their sums and open spans."""
    books = billing.books_of(connection, [one.id for one in records])
    listed_at = coordination.listed_at(connection)
    return {
        one.id: cost_of(
            books.get(one.id, ()),
            one.current_hourly_price,
            listed_at=listed_at,
            event_at=one.created_at,
        )
        for one in records
    }


def cost_before_purchase(instance: Instance) -> Cost:
    """Return what a record costs for which nothing was bought."""
    price = instance.current_hourly_price
    return cost_of((), price, listed_at=None, event_at=instance.created_at)


def labels_of(instance: Instance) -> Labels:
    """Return the labels of spans that begin now."""
    by = instance.created_by
    tags = instance_tags.dump(instance.tags) if instance.tags else None
    return Labels(by.key_id if by else None, tags)


def _current(books: Sequence[Book], upstream_id: str | None) -> Book | None:
    return next((book for book in books if book.state.upstream_id == upstream_id), None)


def _begun(
    connection: Connection, instance: Instance, now: int, listed_at: int | None
) -> Book | None:
    """Open the book of an instance that a record has newly got; None if the record has ended."""
    upstream_id = instance.upstream_id
    if upstream_id is None or instance.status.ended:
        return None
    if instance.origin is Origin.ADOPTED:
        sight = BillingSight(
            (instance.observed.status or "")[:64],
            to_units(instance.current_hourly_price),
            instance.rootfs_size,
        )
        return Book.adopted(
            instance.id,
            upstream_id,
            sight,
            now=instance.bought_at or now,
            known_at=listed_at or now,
            labels=labels_of(instance),
        )
    bought = [
        one
        for one in attempts.of_instance(connection, instance.id)
        if one.upstream_id == upstream_id
    ]
    return _bought(instance, upstream_id, bought[0] if bought else None, now, labels_of(instance))


def _bought(
    instance: Instance, upstream_id: str, attempt: Attempt | None, now: int, labels: Labels
) -> Book:
    """Open the book of a purchase: between the commit of its attempt and now."""
    began_at = instance.created_at if attempt is None else attempt.created_at
    # A call without an answer may have its effect after its end, so its end bounds nothing.
    by = max(began_at, now)
    return Book.bought(instance.id, upstream_id, instance.rootfs_size, Bounds(began_at, by), labels)


def _followed(book: Book, instance: Instance, now: int, listed_at: int | None) -> Book:
    if instance.released_at is not None:
        return book.ended(instance.released_at, listed_at)
    if instance.terminated_at is not None or instance.observed.gone:
        by = book.state.absent_by or instance.terminated_at or now
        return book.ended(by, listed_at, instance.rootfs_size)
    if instance.acted_at is not None:
        return book.acted(instance.acted_at, listed_at)
    return book


def _sight(instance: Instance, row: UpstreamInstance) -> BillingSight:
    price = row.instance_price
    return BillingSight(
        word=row.status[:64],
        hourly_price=to_units(instance.hourly_price) if price is None else price,
        rootfs_gb=row.rootfs_size or instance.rootfs_size,
        stopped_price=row.exited_disk_price,
        started_at=row.last_started_at,
        stopped_at=row.last_stopped_at,
        created_at=row.created_at,
        purged_at=row.purged_at,
        keep_days=row.keep_days,
    )


def _differs(book: Book, sight: BillingSight) -> bool:
    """Return whether a sight says anything new."""
    state = book.state
    return (sight.word, sight.started_at, sight.stopped_at) != (
        state.word,
        state.started_at,
        state.stopped_at,
    )
