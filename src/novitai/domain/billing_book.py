# SPDX-License-Identifier: Apache-2.0
"""The spans of one upstream instance, and what is known of it. Pure: each change returns a book.

A book belongs to the record that pays. It is written in the transaction of the observation that
changed it, so nothing rests on memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from novitai.domain.billing import (
    IN_REMOVAL,
    REMOVED,
    STOPPED,
    Billing,
    Cost,
    GpuState,
    LedgerSpan,
    SpanKind,
    disk_rate,
    gpu_billing,
    gpu_rate,
)
from novitai.domain.billing_edges import (
    Before,
    BillingSight,
    Bounds,
    Look,
    disk_changes,
    gpu_edges,
    purge,
)

_LEAVING: Final = IN_REMOVAL | {REMOVED}


@dataclass(frozen=True, slots=True)
class BillingState:
    """The known state of an upstream instance that a record pays. Times in Unix milliseconds.

    Attributes:
        instance_id: The record.
        since: From when the record pays: the purchase or the adoption.
        adopted: Whether it pays from an adoption on.
        word: Novita's last known status; empty if it was not listed yet.
        known_at: The last time at which that status is known to have held.
        counts_after: A complete listing that began later shows that the status still holds, because
            it would have been written otherwise. None if listings say nothing, for example while
            the instance is missing.
        absent_by: When the first listing was read that lacked it; None if it is listed.
        started_at: Novita's time of the last start, by its clock; 0 if never, None if not told.
        stopped_at: As `started_at`, of the last stop.
        ended: Whether the record no longer pays it.
        least: The exact amount of its closed spans that is certainly billed.
        most: The exact amount of its closed spans that may be billed.
        unknown: Whether the price of a closed span is unknown.
        key_id: The API key that new spans bear.
        tags: The tags that new spans bear, as JSON.
    """

    instance_id: str
    upstream_id: str
    since: int
    known_at: int
    adopted: bool = False
    word: str = ""
    counts_after: int | None = None
    absent_by: int | None = None
    started_at: int | None = None
    stopped_at: int | None = None
    ended: bool = False
    least: int = 0
    most: int = 0
    unknown: bool = False
    key_id: str | None = None
    tags: str | None = None

    def shown_at(self, listed_at: int | None) -> int:
        """Return the last time at which its status is known to have held.

        Args:
            listed_at: When the last complete listing began, in Unix milliseconds.
        """
        if self.counts_after is None or listed_at is None or listed_at <= self.counts_after:
            return self.known_at
        return max(self.known_at, listed_at)


@dataclass(frozen=True, slots=True)
class Labels:
    """By what a span can be grouped besides its record: its API key and its tags, as JSON."""

    key_id: str | None = None
    tags: str | None = None


@dataclass(frozen=True, slots=True)
class Book:
    """The state and the open spans of an upstream instance, and the spans closed by a change."""

    state: BillingState
    spans: tuple[LedgerSpan, ...] = ()
    closed: tuple[LedgerSpan, ...] = ()

    @classmethod
    def bought(
        cls, instance_id: str, upstream_id: str, rootfs_gb: int, when: Bounds, labels: Labels
    ) -> Book:
        """Open the book of an instance that was bought within the bounds `when`."""
        state = BillingState(
            instance_id, upstream_id, when.after, when.after, key_id=labels.key_id, tags=labels.tags
        )
        rate = disk_rate(rootfs_gb, stopped=False, stopped_price=None)
        return _opened(cls(state), SpanKind.DISK, rate, when)

    @classmethod
    def adopted(
        cls,
        instance_id: str,
        upstream_id: str,
        sight: BillingSight,
        *,
        now: int,
        known_at: int,
        labels: Labels,
    ) -> Book:
        """Open the book of an instance that is adopted; the record pays from `now` on.

        Args:
            instance_id: The record.
            upstream_id: The instance.
            sight: Its state in the last listing.
            now: Unix milliseconds.
            known_at: When that listing began.
            labels: The labels of its spans.
        """
        state = BillingState(
            instance_id,
            upstream_id,
            now,
            min(known_at, now),
            adopted=True,
            word=sight.word,
            key_id=labels.key_id,
            tags=labels.tags,
        )
        book, when = cls(state), Bounds(now, now)
        if gpu_billing(sight.word) is Billing.BILLED:
            book = _opened(book, SpanKind.GPU, gpu_rate(sight.hourly_price), when)
        return _disk_at(book, sight, when, stopped=sight.word == STOPPED)

    @property
    def gpu(self) -> LedgerSpan | None:
        """The open span of the GPUs."""
        return _open(self, SpanKind.GPU)

    @property
    def disk(self) -> LedgerSpan | None:
        """The open span of the disk."""
        return _open(self, SpanKind.DISK)

    def seen(self, sight: BillingSight, look: Look, listed_at: int | None) -> Book:
        """Take in what a look showed.

        Args:
            sight: The status, the prices and Novita's own times.
            look: When it was asked.
            listed_at: When the last complete listing before it began, in Unix milliseconds.
        """
        since = self.state.shown_at(listed_at)
        if look.began_at < since:
            return self
        book = _with_disk(
            _with_gpu(_dated(self, sight, look), sight, look, since), sight, look, since
        )
        # Upstream's times may say that what was closed had held after the look began.
        held = [span.ended_after or 0 for span in book.closed]
        state = replace(
            book.state,
            word=sight.word,
            known_at=max(look.began_at, *held, 0),
            counts_after=look.began_at,
            absent_by=None,
            started_at=sight.started_at if sight.started_at is not None else book.state.started_at,
            stopped_at=sight.stopped_at if sight.stopped_at is not None else book.state.stopped_at,
            ended=sight.word == REMOVED,
        )
        return replace(book, state=state)

    def absent(self, read_at: int, listed_at: int | None) -> Book:
        """Note that a listing that was read at `read_at` lacks the instance."""
        if self.state.absent_by is not None or self.state.ended:
            return self
        frozen = _known(self, listed_at, counts_after=None)
        return replace(frozen, state=replace(frozen.state, absent_by=read_at))

    def acted(self, at: int, listed_at: int | None) -> Book:
        """Note a call that changes the instance: listings that began before it say nothing now."""
        counts_after = self.state.counts_after
        if counts_after is None or at <= counts_after:
            return self
        return _known(self, listed_at, counts_after=at)

    def ended(self, by: int, listed_at: int | None, rootfs_gb: int = 0) -> Book:
        """Close all spans: the instance is gone, or the record no longer pays it.

        Args:
            by: When that was known, in Unix milliseconds.
            listed_at: When the last complete listing began.
            rootfs_gb: The size of its disk, if it is gone.
        """
        if self.state.ended:
            return self
        after = self.state.shown_at(listed_at)
        book = _without_disk(self, rootfs_gb, Bounds(after, by))
        for span in book.spans:
            book = _closed(book, span, Bounds(after, by))
        state = replace(
            book.state, known_at=max(after, by), counts_after=None, absent_by=None, ended=True
        )
        return replace(book, state=state)

    def labelled(self, labels: Labels, now: int, listed_at: int | None) -> Book:
        """Close all spans now and open others with other labels."""
        if labels == Labels(self.state.key_id, self.state.tags):
            return self
        after = self.state.shown_at(listed_at)
        state = replace(self.state, key_id=labels.key_id, tags=labels.tags)
        book = replace(self, state=state)
        for span in self.spans:
            if _is_over(span, after):
                continue
            book = _closed(book, span, Bounds(after, now))
            begun = now if span.began_by is not None else None
            expires = _expiry(span)
            book = _opened(book, span.kind, span.rate, Bounds(now, begun), expires)
        return book

    def purge_moved(self, sight: BillingSight, look: Look) -> bool:
        """Return whether a look shows that the disk is purged at another time than expected."""
        told, span = purge(sight, look), self.disk
        if span is None or told is None or sight.word != STOPPED:
            return False
        known = _expiry(span)
        return known is None or told.within(known.after, known.by or known.after) is None


def _known(book: Book, listed_at: int | None, *, counts_after: int | None) -> Book:
    known_at = book.state.shown_at(listed_at)
    return replace(book, state=replace(book.state, known_at=known_at, counts_after=counts_after))


def _before(book: Book, known_at: int, state: GpuState) -> Before:
    now = book.state
    return Before(state, known_at, now.word, now.started_at, now.stopped_at)


def _dated(book: Book, sight: BillingSight, look: Look) -> Book:
    """Narrow the begin of the disk to the time of the purchase, if upstream tells it."""
    disk = book.disk
    if book.state.word or book.state.adopted or disk is None or not sight.created_at:
        return book
    if disk.began_by is None:
        return book
    when = look.window(sight.created_at).within(disk.began_after, disk.began_by)
    if when is None:
        return book
    return _with(book, disk, replace(disk, began_after=when.after, began_by=when.by))


def _with_gpu(book: Book, sight: BillingSight, look: Look, since: int) -> Book:
    rate, span = gpu_rate(sight.hourly_price), book.gpu
    state, shown_at = GpuState.OFF, since
    if span is not None:
        state = GpuState.ON if span.began_by is not None else GpuState.MAYBE
        since = span.began_after if span.began_by is None else since
    edges = gpu_edges(_before(book, since, state), sight, look)
    if not edges and span is not None and span.rate != rate and rate is not None:
        if span.rate is None:  # learnt, not changed
            return _with(book, span, replace(span, rate=rate))
        when = Bounds(shown_at, look.read_at)
        if span.began_by is None:
            return _repriced(book, span, rate, when)
        return _opened(_closed(book, span, when), SpanKind.GPU, rate, when)
    if span is not None and edges and _is_new_price(span, rate):
        first = edges[0]
        if first.on:  # the new price may have come after the begin
            first = replace(first, when=Bounds(first.when.after, look.read_at))
        book = _repriced(book, span, rate or 0, Bounds(shown_at, first.when.by or look.read_at))
        edges = [first, *edges[1:]]
    for edge in edges:
        span = book.gpu
        if not edge.on and span is not None:
            book = _closed(book, span, edge.when)
        elif edge.on and span is None:
            book = _opened(book, SpanKind.GPU, rate, edge.when)
        elif span is not None:
            begun = _clamped(book, edge.when)
            book = _with(book, span, replace(span, began_after=begun.after, began_by=begun.by))
    return book


def _is_new_price(span: LedgerSpan, rate: int | None) -> bool:
    return span.rate is not None and rate is not None and rate not in {0, span.rate}


def _repriced(book: Book, span: LedgerSpan, rate: int, when: Bounds) -> Book:
    """Change the rate of a run that may have ended: either may have been billed up to then.

    Nothing at the new rate is certain, because the run may have ended before the change.
    """
    return _opened(_closed(book, span, when), SpanKind.GPU, rate, Bounds(when.after, None))


def _with_disk(book: Book, sight: BillingSight, look: Look, since: int) -> Book:
    if sight.word == REMOVED:
        return _without_disk(book, sight.rootfs_gb, Bounds(since, look.read_at))
    changes = disk_changes(_before(book, since, GpuState.OFF), sight, look)
    for change in changes:
        book = _disk_at(book, sight, change.when, stopped=change.stopped)
        if change.stopped:
            book = _expiring(book, purge(sight, look, change.when), look)
    stopped = sight.word == STOPPED
    book = _disk_at(book, sight, Bounds(since, look.read_at), stopped=stopped)
    return _expiring(book, purge(sight, look), look) if stopped and not changes else book


def _expiring(book: Book, purged: Bounds | None, look: Look) -> Book:
    """Note when Novita purges the disk.

    If it was to be purged before the look, it may have been: then another time only widens.
    """
    span = book.disk
    if span is None or purged is None or purged.by is None:
        return book
    after = purged.after
    if _is_over(span, look.began_at, at_all=True):
        after = min(after, span.expires_after or after)
    return _with(book, span, replace(span, expires_after=after, expires_by=purged.by))


def _expiry(span: LedgerSpan) -> Bounds | None:
    if span.expires_after is None:
        return None
    return Bounds(span.expires_after, span.expires_by)


def _is_over(span: LedgerSpan, at: int, *, at_all: bool = False) -> bool:
    """Return whether the disk was purged by a time, for certain or perhaps (`at_all`)."""
    end = span.expires_after if at_all else span.expires_by
    return end is not None and end <= at


def _ran_by(book: Book, after: int) -> int | None:
    """Return by when the GPUs were billed in a run after a time; None if that is not certain."""
    runs = [
        span.began_by
        for span in (*book.closed, *book.spans)
        if span.kind is SpanKind.GPU
        and span.began_by is not None
        and (span.ended_after is None or span.ended_after > after)
    ]
    return min(runs, default=None)


def _is_lost(book: Book, span: LedgerSpan, at: int) -> bool:
    """Return whether the disk was purged by a time, and no run has made another one since."""
    return _is_over(span, at) and not any(
        one.kind is SpanKind.GPU and (one.ended_by is None or one.ended_by > (span.expires_by or 0))
        for one in (*book.closed, *book.spans)
    )


def _without_disk(book: Book, rootfs_gb: int, when: Bounds) -> Book:
    """End the disk: a stopped one may have cost the full price while it was being removed."""
    span = book.disk
    if span is None:
        return book
    full = disk_rate(rootfs_gb, stopped=False, stopped_price=None)
    lost = _is_lost(book, span, when.after)
    perhaps = _is_over(span, when.by or when.after, at_all=True)
    book = _closed(book, span, when)
    if lost or span.rate is None or (span.rate >= full and not perhaps):
        return book
    book = _opened(book, SpanKind.DISK, full, Bounds(when.after, None))
    return book if book.disk is None else _closed(book, book.disk, when)


def _disk_at(book: Book, sight: BillingSight, when: Bounds, *, stopped: bool) -> Book:
    rate = disk_rate(sight.rootfs_gb, stopped=stopped, stopped_price=sight.stopped_price)
    span = book.disk
    if span is None:
        return _opened(book, SpanKind.DISK, rate, when)
    if span.began_by is None:
        span = replace(span, began_by=_ran_by(book, span.began_after))
        book = _with(book, book.disk or span, span)
    if not stopped and span.expires_by is not None:
        if _is_over(span, when.by or when.after, at_all=True):
            return _disk_again(book, sight, span, when, rate)
        # It was no longer stopped when the purge was due.
        span = replace(span, expires_after=None, expires_by=None)
        book = _with(book, book.disk or span, span)
    if span.rate == rate or _is_lost(book, span, when.after):
        return book
    begun = when.by if span.began_by is not None else None
    expires = _expiry(span)
    return _opened(
        _closed(book, span, when), SpanKind.DISK, rate, Bounds(when.after, begun), expires
    )


def _disk_again(book: Book, sight: BillingSight, span: LedgerSpan, when: Bounds, rate: int) -> Book:
    """Follow an instance that is no longer stopped, and whose disk was or may have been purged.

    It gets another disk, which is billed for certain from when its GPUs are.
    """
    if sight.word in {*_LEAVING, STOPPED} and _is_lost(book, span, when.after):
        return book
    after = when.after
    if span.expires_after is not None and (span.rate or 0) >= rate:
        # Before the purge there was the first disk, and it is counted.
        after = max(after, span.expires_after)
    begun = _ran_by(book, when.after)
    return _opened(_closed(book, span, when), SpanKind.DISK, rate, Bounds(after, begun))


def _open(book: Book, kind: SpanKind) -> LedgerSpan | None:
    return next((span for span in book.spans if span.kind is kind), None)


def _opened(
    book: Book, kind: SpanKind, rate: int | None, when: Bounds, expires: Bounds | None = None
) -> Book:
    if rate == 0:
        return book
    when = _clamped(book, when)
    state = book.state
    span = LedgerSpan(
        kind,
        rate,
        when.after,
        when.by,
        expires_after=expires.after if expires else None,
        expires_by=expires.by if expires else None,
        key_id=state.key_id,
        tags=state.tags,
    )
    return replace(book, spans=(*book.spans, span))


def _closed(book: Book, span: LedgerSpan, when: Bounds) -> Book:
    when = _clamped(book, when)
    after, by = when.after, max(when.after, when.by or when.after)
    if span.expires_after is not None and span.expires_by is not None:
        after = max(span.began_after, min(after, span.expires_after))
        by = max(after, min(by, span.expires_by))
    done = replace(span, ended_after=after, ended_by=by)
    state = book.state
    state = replace(
        state,
        least=state.least + (span.rate or 0) * done.least(0),
        most=state.most + (span.rate or 0) * done.most(0),
        unknown=state.unknown or span.rate is None,
    )
    left = tuple(one for one in book.spans if one is not span)
    return Book(state, left, (*book.closed, done))


def _clamped(book: Book, when: Bounds) -> Bounds:
    """Return bounds that are in order and not before the record pays."""
    after = max(when.after, book.state.since)
    return Bounds(after, None if when.by is None else max(when.by, after))


def _with(book: Book, old: LedgerSpan, new: LedgerSpan) -> Book:
    spans = tuple(new if span is old else span for span in book.spans)
    return replace(book, spans=spans)


def cost_of(
    books: Sequence[Book], hourly_price: float | None, *, listed_at: int | None, event_at: int
) -> Cost:
    """Return what a record costs.

    Args:
        books: Its books: that of its instance, and those of surplus ones.
        hourly_price: The price to show.
        listed_at: When the last complete listing began, in Unix milliseconds.
        event_at: When the record was made. Until it has bought something, its costs are known for
            that time only: a create call without an answer may have bought something since.
    """
    least = most = 0
    shown = {id(book): book.state.shown_at(listed_at) for book in books}
    as_of = max((max(shown[id(one)], one.state.since) for one in books), default=event_at)
    unknown = False
    for book in books:
        state = book.state
        least, most = least + state.least, most + state.most
        unknown = unknown or state.unknown
        for span in book.spans:
            unknown = unknown or span.rate is None
            least += (span.rate or 0) * span.least(shown[id(book)])
            most += (span.rate or 0) * span.most(as_of)
    since = next((book.state.since for book in books if book.state.adopted), None)
    return Cost(hourly_price, least, most, as_of, unknown=unknown, since=since)
