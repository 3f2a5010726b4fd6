# SPDX-License-Identifier: Apache-2.0
"""Answers about instances as ready bytes, never older than the last commit before the request.

Each request asks the database for its moment. While it is that of the kept answers, they are
current, even if another process wrote last. If it is another one, the numbers of the changes say
which instances to read again.

What changes with every listing of the account, `observedAt` and `cost`, is not part of the text
that is kept for an instance: it is made once for each listing and appended.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Final, NamedTuple, TypeVar

import orjson
from sqlalchemy import Connection

from novitai.clock import Clock, iso
from novitai.domain.billing_book import Book, cost_of
from novitai.domain.instance import Instance
from novitai.domain.view import cost_view, view
from novitai.errors import NotFound
from novitai.lifecycle.catalogue.cache import Cache
from novitai.lifecycle.queries.event_cursor import EventCursor
from novitai.lifecycle.queries.pagination import cut
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreUnavailable
from novitai.store.engine.moments import Moment
from novitai.store.engine.shared import Shared
from novitai.store.queries import billing, changes, coordination, instances, snapshots
from novitai.store.queries.changes import Changes, Mark
from novitai.store.queries.instances import Filter
from novitai.store.queries.snapshots import InstanceSnapshot, Version

T = TypeVar("T")

KEPT_SECONDS: Final = 600.0
"""Seconds after which unused copies may be removed."""
MAX_DETAILS: Final = 50_000
MAX_LISTS: Final = 1_000
MAX_BYTES: Final = 32 * 1024 * 1024
"""Bytes of the kept views, and also of the kept lists."""
READ_SECONDS: Final = 30.0
"""Seconds that one read of the database may take."""
_OVERHEAD: Final = 600
"""Bytes of a kept view beside its text."""


@dataclass(slots=True)
class ReadyView:
    """The view of an instance as JSON.

    Attributes:
        id: The ID of the instance.
        version: The version of the record from which it was made.
        text: The view without its closing brace and without what changes with each listing.
        digest: The digest of the view, for its `ETag`.
        observed_at: When the listing that last changed the record began, in Unix milliseconds.
        listed: Whether the instance was in the last complete listing.
        books: Its books in the ledger; each listing makes its costs of them.
        hourly_price: Its price, in USD.
        created_at: When the record was made, in Unix milliseconds.
        listed_at: When the last complete listing began, as of the read.
    """

    id: str
    version: Version
    text: bytes
    digest: str
    observed_at: int | None
    listed: bool
    books: Sequence[Book]
    hourly_price: float | None
    created_at: int
    listed_at: int | None
    _shown: tuple[int, bytes] | None = None

    @property
    def weight(self) -> int:
        """The bytes of memory that it takes, about."""
        return len(self.text) + _OVERHEAD

    def body(self, listed_at: int | None) -> bytes:
        """Return the complete view as of the last complete listing, made once for each listing."""
        key = -1 if listed_at is None else listed_at
        if self._shown is None or self._shown[0] != key:
            self._shown = (key, self._body(listed_at))
        return self._shown[1]

    def _body(self, listed_at: int | None) -> bytes:
        parts = [self.text]
        if self.observed_at is not None:
            newer = self.listed and listed_at is not None
            seen_at = max(self.observed_at, listed_at or 0) if newer else self.observed_at
            parts.append(b',"observedAt":"%b"' % _iso(seen_at))
        cost = cost_of(self.books, self.hourly_price, listed_at=listed_at, event_at=self.created_at)
        parts.append(b',"cost":%b}' % orjson.dumps(cost_view(cost)))
        return b"".join(parts)


class ReadyAnswer(NamedTuple):
    """The view of one instance, complete, and the digest of what its `ETag` covers."""

    body: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class WantedPage:
    """Which instances to list, from where on and how many."""

    wanted: Filter
    after: tuple[int, str] | None
    limit: int


@dataclass(frozen=True, slots=True)
class ReadyPage:
    """A page of a list as JSON.

    Attributes:
        body: The whole body.
        next_cursor: The cursor of the next page; None on the last one.
        total: The number of all matches.
        views: The instances on it.
        generation: The state of the kept answers of which it is a part.
        event_cursor: The events that the snapshot of its rows saw, as a cursor of the event stream.
    """

    body: bytes
    next_cursor: str | None
    total: int
    views: Sequence[ReadyView]
    generation: int
    event_cursor: str

    @property
    def weight(self) -> int:
        """The bytes of memory that it takes, about."""
        return len(self.body) + sum(view.weight for view in self.views)


@dataclass(eq=False, slots=True)
class _Flight:
    """One read of the records of instances.

    Attributes:
        changed: The versions of the instances that have changed since it began.
        void: Whether everything may have changed.
        waiting: Who waits for which instance.
    """

    waiting: list[tuple[str, asyncio.Future[ReadyView]]] = field(default_factory=list)
    changed: dict[str, Version] = field(default_factory=dict)
    void: bool = False

    def serves(self, instance_id: str) -> bool:
        """Whether what it reads of an instance is still current for those who come now."""
        return not self.void and instance_id not in self.changed

    def keeps(self, ready: ReadyView) -> bool:
        """Whether a view that it has read is still current."""
        return not self.void and self.changed.get(ready.id, ready.version) == ready.version


class ReadyViews:
    """The kept answers of one process."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self.details: Cache[ReadyView] = Cache(
            "instance-details",
            clock,
            ttl=KEPT_SECONDS,
            max_size=MAX_DETAILS,
            max_weight=MAX_BYTES,
            weigh=lambda one: one.weight,
        )
        self.lists: Cache[ReadyPage] = Cache(
            "instance-lists",
            clock,
            ttl=KEPT_SECONDS,
            max_size=MAX_LISTS,
            max_weight=MAX_BYTES,
            weigh=lambda one: one.weight,
        )
        self._moment: Moment | None = None
        self._mark: Mark | None = None
        self._changed: Mapping[str, Version] = {}
        self._listed_at: int | None = None
        self._settled: int | None = None
        # Grows with each change that is learnt of.
        self._generation = 0
        self._totals: dict[Filter, int] = {}
        self._catching_up = Shared(self._catch_up, "catch-up")
        self._collecting: _Flight | None = None
        self._flights: set[_Flight] = set()
        self._by_id: dict[str, _Flight] = {}
        self._pages: dict[tuple[WantedPage, int], asyncio.Task[ReadyPage]] = {}
        self._tasks: set[asyncio.Task[Mapping[str, ReadyView]]] = set()

    async def one(self, instance_id: str) -> ReadyAnswer:
        """Return the view of an instance.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
        """
        if self._database.moment_at_once() != self._moment or self._moment is None:
            await self._be_current()
        ready = self.details.peek(instance_id)
        if ready is not None:
            return ReadyAnswer(ready.body(self._listed_at), ready.digest)
        ready = await self._load(instance_id)
        # A listing that was learnt of meanwhile may have changed the record.
        return ReadyAnswer(ready.body(ready.listed_at), ready.digest)

    async def page(self, listed: WantedPage) -> ReadyPage:
        """Return a page of a list, newest first."""
        await self._be_current()
        key = _key(listed)
        generation = self._generation
        page = self.lists.peek(key, lambda kept: kept.generation == generation)
        if page is not None:
            return page
        task = self._pages.get((listed, generation))
        if task is None:
            task = asyncio.create_task(self._load_page(listed, key), name="list")
            self._pages[listed, generation] = task
            task.add_done_callback(partial(self._landed, (listed, generation)))
        return await asyncio.shield(task)

    async def _be_current(self) -> None:
        """Learn of all that was committed before this call."""
        moment = self._database.moment_at_once()
        if moment is None:
            moment = await self._database.moment()
        if moment != self._moment:
            await self._catching_up.ask()

    async def _catch_up(self) -> None:
        moment = await self._database.moment()
        if moment == self._moment:
            return
        known = self._moment is not None and self._moment.session == moment.session
        found = await self._read(partial(changes.since, mark=self._mark if known else None))
        self._learn(found, everything=not known)
        self._moment = moment

    async def _read(self, fn: Callable[[Connection], T], *, snapshot: bool = False) -> T:
        """Read for several callers, so that no deadline of one of them applies."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                return await self._database.read(fn, snapshot=snapshot)
        except TimeoutError:
            raise StoreUnavailable("The database does not answer.", retry_after=1) from None

    def _learn(self, found: Changes, *, everything: bool) -> None:
        """Drop what is no longer current."""
        earlier = {} if everything else self._changed
        changed = {
            instance_id: version
            for instance_id, version in found.versions.items()
            if earlier.get(instance_id) != version
        }
        listed_at = found.listed_at
        self._mark, self._changed, self._settled = found.mark, found.versions, found.settled
        if not (everything or changed or listed_at != self._listed_at):
            return
        self._generation += 1
        self._listed_at = listed_at
        if everything:
            self.details.clear()
            self.lists.clear()
        if everything or changed:
            self._totals.clear()
        for instance_id in changed:
            self.details.discard(instance_id)
        for flight in self._flights:
            flight.changed |= changed
            flight.void |= everything

    async def _load(self, instance_id: str) -> ReadyView:
        """Wait for the read of an instance that is not kept."""
        flight = self._by_id.get(instance_id)
        if flight is None or not flight.serves(instance_id):
            flight = self._collecting
            if flight is None:
                flight = self._collecting = _Flight()
                self._flights.add(flight)
                task = asyncio.create_task(self._fly(flight), name="views")
                task.add_done_callback(partial(self._land, flight))
                self._tasks.add(task)
            self._by_id[instance_id] = flight
        future: asyncio.Future[ReadyView] = asyncio.get_running_loop().create_future()
        flight.waiting.append((instance_id, future))
        return await future

    async def _fly(self, flight: _Flight) -> Mapping[str, ReadyView]:
        """Read the instances for which somebody waits; others may wait for them until it ends."""
        self._collecting = None
        return await self._read(
            partial(_read_views, ids=sorted({one for one, _ in flight.waiting}))
        )

    def _land(self, flight: _Flight, task: asyncio.Task[Mapping[str, ReadyView]]) -> None:
        """Keep what is still current, and give it to those who wait, in one step."""
        self._tasks.discard(task)
        self._flights.discard(flight)
        if self._collecting is flight:  # cancelled before it began
            self._collecting = None
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        found = task.result() if error is None else {}
        for instance_id, ready in found.items():
            if flight.keeps(ready):
                self.details.put(instance_id, ready)
        for instance_id, future in flight.waiting:
            if self._by_id.get(instance_id) is flight:
                del self._by_id[instance_id]
            if future.done():
                continue
            if isinstance(error, asyncio.CancelledError):
                future.cancel()
            elif error is not None:
                future.set_exception(error)
            elif instance_id in found:
                future.set_result(found[instance_id])
            else:
                future.set_exception(unknown(instance_id))

    async def _load_page(self, listed: WantedPage, key: str) -> ReadyPage:
        generation = self._generation
        earlier = self.lists.last(key)
        known = {one.id: one for one in earlier.views} if earlier else {}
        total = self._totals.get(listed.wanted)
        read = partial(_list, listed=listed, known=known, total=total, settled=self._settled)
        found = await self._read(read, snapshot=True)
        page = found.page(generation)
        if generation == self._generation:
            if len(self._totals) >= MAX_LISTS:
                self._totals.clear()
            self._totals[listed.wanted] = page.total
            self.lists.put(key, page)
        return page

    def _landed(self, key: tuple[WantedPage, int], task: asyncio.Task[ReadyPage]) -> None:
        self._pages.pop(key, None)
        if not task.cancelled():
            task.exception()  # marks it as retrieved; those who waited have it


@dataclass(frozen=True, slots=True)
class _Found:
    """The result of reading a page."""

    views: Sequence[ReadyView]
    total: int
    next_cursor: str | None
    listed_at: int | None
    event_cursor: EventCursor

    def page(self, generation: int) -> ReadyPage:
        """Return the page as of the last complete listing that the read saw."""
        shown = b",".join([one.body(self.listed_at) for one in self.views])
        more = "" if self.next_cursor is None else f',"nextCursor":"{self.next_cursor}"'
        body = b'{"instances":[%b],"total":%d%b}' % (shown, self.total, more.encode())
        cursor = self.event_cursor.text()
        return ReadyPage(body, self.next_cursor, self.total, self.views, generation, cursor)


def unknown(instance_id: str) -> NotFound:
    """Return the error for an instance that does not exist."""
    return NotFound(f"Instance '{instance_id}' not found", code="INSTANCE_NOT_FOUND")


def observed_at(instance: Instance, listed_at: int | None) -> int | None:
    """Return when Novita last showed the instance: the last listing, unless absent from it."""
    seen_at = instance.observed.at
    if seen_at is None or listed_at is None or instance.observed.missing_count:
        return seen_at
    return max(seen_at, listed_at)


def _read_views(connection: Connection, ids: Sequence[str]) -> dict[str, ReadyView]:
    # The rows first: their versions must not be newer than the books.
    found = snapshots.read(connection, ids)
    return {one.id: one for one in _make(found, billing.books_of(connection, ids))}


def _list(
    connection: Connection,
    listed: WantedPage,
    known: Mapping[str, ReadyView],
    total: int | None,
    settled: int | None,
) -> _Found:
    """Read a page; the records of known views are read only if their versions differ.

    `settled` is from before this snapshot; None on SQLite.
    """
    heads = snapshots.heads(connection, listed.wanted, after=listed.after, limit=listed.limit + 1)
    if total is None:
        total = instances.count(connection, listed.wanted)
    shown, more = cut(heads, listed.limit, lambda head: (head.created_at, head.id))
    views = {
        head.id: known[head.id]
        for head in shown
        if head.id in known and known[head.id].version == head.version
    }
    views |= _read_views(connection, [head.id for head in shown if head.id not in views])
    listed_at = coordination.listed_at(connection)
    event_cursor = EventCursor.of_snapshot(connection, settled)
    return _Found([views[head.id] for head in shown], total, more, listed_at, event_cursor)


def _make(
    found: Iterable[InstanceSnapshot], books: Mapping[str, Sequence[Book]]
) -> Iterable[ReadyView]:
    for snapshot in found:
        instance = snapshot.instance()
        plain = orjson.dumps(view(instance, snapshot.operation()))
        observed = instance.observed
        yield ReadyView(
            instance.id,
            snapshot.version,
            plain[:-1],
            digest_of(plain),
            observed.at,
            listed=not observed.missing_count,
            books=books.get(instance.id, ()),
            hourly_price=instance.current_hourly_price,
            created_at=instance.created_at,
            listed_at=snapshot.listed_at,
        )


@lru_cache(4096)
def _iso(at: int) -> bytes:
    return iso(at).encode()


def _key(listed: WantedPage) -> str:
    """Return the key of a page in its cache."""
    wanted = listed.wanted
    parts = (
        wanted.status and wanted.status.value,
        wanted.region,
        wanted.name,
        wanted.include_terminated,
        wanted.tags,
        listed.limit,
        listed.after and f"{listed.after[0]}.{listed.after[1]}",
    )
    return repr(parts)  # unlike a join, it cannot be the same for two pages


def digest_of(plain: bytes) -> str:
    """Return the digest of a view as JSON, without the fields that each listing changes."""
    return hashlib.blake2b(plain, digest_size=12).hexdigest()
