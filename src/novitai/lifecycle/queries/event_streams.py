# SPDX-License-Identifier: Apache-2.0
"""Live streams of events: one reader of the log for all streams of a process.

In each round the reader asks up to which number the log is complete, and reads on for each group of
streams at the same number. Streams that have caught up are one group. A stream that resumes further
back gets one page at a time, when it has room for it, until it has caught up.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.event import Event, EventType
from novitai.domain.session import Credential
from novitai.errors import TooManyRequests
from novitai.lifecycle.queries.event_cursor import EventCursor
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreError
from novitai.store.queries import events
from novitai.store.queries.events import LoggedEvent

MAX_PER_KEY: Final = 10
"""Streams of one API key that may be open at a time, in one process."""
MAX_BEHIND: Final = 1000
"""Events that may wait for a reader that had caught up."""
LOOK_EVERY: Final = 0.25
COMMENT_EVERY: Final = 15.0
_KEYS_EVERY: Final = 1.0
_PAGE: Final = 500
_RETRY_SECONDS: Final = 5

_log = structlog.get_logger(__name__)


class Ended(StrEnum):
    """Why a stream ended."""

    CLIENT = "client"
    SLOW = "slow"
    REVOKED = "revoked"
    SHUTDOWN = "shutdown"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Gap:
    """Tells that the event to resume from is not in the log; the stream begins at its oldest one.

    `oldest` is the ID of that event; None if the log is empty.
    """

    oldest: str | None


@dataclass(frozen=True, slots=True)
class Comment:
    """Shows that the connection is alive."""


Item = Event | Gap | Comment

_COMMENT: Final = Comment()


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTerms:
    """Which events a stream sends, and from where on.

    Attributes:
        event_type: Only events of this type.
        instance_id: Only events about this instance.
        since: The ID of an event or a cursor; None begins with the next event.
        last_event_id: The last ID that the client got from this stream; it continues after it.
    """

    event_type: EventType | None = None
    instance_id: str | None = None
    since: str | None = None
    last_event_id: str | None = None

    def matches(self, logged: LoggedEvent) -> bool:
        """Whether an event meets the filters."""
        return self.event_type in {None, logged.event.type} and self.instance_id in {
            None,
            logged.instance_id,
        }


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a stream begins: after a number, without the events that a snapshot saw.

    `place` names it, for a client that did not.
    """

    after: int
    seen: EventCursor
    gap: Gap | None = None
    place: EventCursor | None = None


class EventStream:
    """One stream. Read it with `items` until it has ended, and always close it.

    Attributes:
        place: The cursor at which it begins, if the client named no place: to continue after it if
            the connection is lost before the first event.
        ended: Set when the stream has ended.
        reason: Why it ended; None while it is open.
    """

    def __init__(
        self, credential: Credential, wanted: StreamTerms, start: _Start, left: Left
    ) -> None:
        self.credential = credential
        self.position = start.after
        self.place = None if start.place is None else start.place.text()
        self.live = False
        self.ended = asyncio.Event()
        self.reason: Ended | None = None
        self._wanted = wanted
        self._seen = start.seen
        self._left = left
        self._items: list[Item] = [] if start.gap is None else [start.gap]
        self._filled = asyncio.Event()
        if self._items:
            self._filled.set()

    async def items(self) -> Sequence[Item]:
        """Wait for items and return all that there are; nothing once the stream has ended."""
        await self._filled.wait()
        if self.ended.is_set():
            return ()
        self._filled.clear()
        items, self._items = self._items, []
        return items

    def close(self, reason: Ended = Ended.CLIENT) -> None:
        """End the stream; of several reasons, the first counts."""
        if self.reason is None:
            self.reason = reason
            self._items = []
            self.ended.set()
            self._filled.set()
            self._left(self)

    @property
    def reads_on(self) -> bool:
        """Whether to read for it: one that has not caught up must have room for a page."""
        return self.live or len(self._items) < _PAGE

    def take(self, found: Sequence[LoggedEvent], until: int) -> None:
        """Take the next events of the log, which is read up to a number."""
        self.position = until
        self._put(
            [
                one.event
                for one in found
                if self._wanted.matches(one) and not self._seen.saw(one.sequence)
            ]
        )

    def comment(self) -> None:
        """Add a comment, unless something else waits to be sent."""
        if not self._items:
            self._put([_COMMENT])

    def _put(self, items: Sequence[Item]) -> None:
        if not items or self.reason is not None:
            return
        self._items += items
        self._filled.set()
        if self.live and len(self._items) > MAX_BEHIND:
            self.close(Ended.SLOW)


Left = Callable[[EventStream], None]
Usable = Callable[[Collection[Credential]], Awaitable[Collection[Credential]]]
"""Returns those of some API keys and sessions that are still usable."""


class EventStreams:
    """The open streams of one process, and their reader.

    Attributes:
        closed: How many streams have ended, by reason.
    """

    def __init__(self, database: Database, clock: Clock, usable: Usable) -> None:
        self._database = database
        self._clock = clock
        self._usable = usable
        self._streams: dict[EventStream, None] = {}
        self._keys: Counter[str] = Counter()
        self._keys_seen = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False
        self.closed: Counter[Ended] = Counter()

    @property
    def count(self) -> int:
        """The number of open streams."""
        return len(self._streams)

    async def open(self, credential: Credential, wanted: StreamTerms) -> EventStream:
        """Open a stream for an API key or a session. Each event committed after this is sent.

        Raises:
            TooManyRequests: the key has `MAX_PER_KEY` open streams.
        """
        key_id = credential.key_id
        if self._keys[key_id] >= MAX_PER_KEY:
            raise TooManyRequests(
                f"This API key has {MAX_PER_KEY} open event streams: close one first",
                retry_after=_RETRY_SECONDS,
            )
        self._keys[key_id] += 1
        try:
            start = await self._database.read(partial(_start, wanted=wanted))
        except BaseException:  # also if cancelled: the key gets its place back; re-raise
            self._leave(key_id)
            raise
        stream = EventStream(credential, wanted, start, self._left)
        self._streams[stream] = None
        if self._stopped:
            stream.close(Ended.SHUTDOWN)
        elif all(task.done() for task in self._tasks):
            self._begin()
        return stream

    async def stop(self) -> None:
        """End all streams and the reader."""
        self._stopped = True
        self._end_all(Ended.SHUTDOWN)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self) -> None:
        self._keys_seen = self._clock.monotonic()
        reading = asyncio.create_task(self._read_on(), name="event-streams")
        comments = asyncio.create_task(self._comment(), name="event-stream-comments")
        reading.add_done_callback(partial(self._reading_ended, comments))
        self._tasks = [reading, comments]

    def _reading_ended(self, comments: asyncio.Task[None], reading: asyncio.Task[None]) -> None:
        comments.cancel()
        error = None if reading.cancelled() else reading.exception()
        if error is not None:
            _log.error("event_streams_failed", exc_info=error)
            self._end_all(Ended.ERROR)

    def _end_all(self, reason: Ended) -> None:
        for stream in list(self._streams):
            stream.close(reason)

    def _left(self, stream: EventStream) -> None:
        del self._streams[stream]
        self._leave(stream.credential.key_id)
        if stream.reason is not None:
            self.closed[stream.reason] += 1

    def _leave(self, key_id: str) -> None:
        self._keys[key_id] -= 1
        if not self._keys[key_id]:
            del self._keys[key_id]

    async def _comment(self) -> None:
        while True:
            await self._clock.sleep(COMMENT_EVERY)
            for stream in self._streams:
                stream.comment()

    async def _read_on(self) -> None:
        """Serve the streams until none is open."""
        while self._streams:
            try:
                await self._check_keys()
                more = await self._round()
            except StoreError as error:
                # The streams stay open and go on where they were.
                _log.warning("event_streams_wait", error=type(error).__name__)
                more = False
            await self._clock.sleep(0 if more else LOOK_EVERY)

    async def _check_keys(self) -> None:
        now = self._clock.monotonic()
        if now - self._keys_seen < _KEYS_EVERY:
            return
        self._keys_seen = now
        usable = await self._usable({stream.credential for stream in self._streams})
        for stream in list(self._streams):
            if stream.credential not in usable:
                stream.close(Ended.REVOKED)

    async def _round(self) -> bool:
        """Read on once for each group of streams; return whether there is more to read at once."""
        until = await self._database.read(events.settled)
        groups: dict[int, list[EventStream]] = {}
        for stream in self._streams:
            if stream.reads_on:
                groups.setdefault(stream.position, []).append(stream)
        more = False
        for position, group in sorted(groups.items()):
            found: Sequence[LoggedEvent] = ()
            if position < until:
                read = partial(events.stretch, after=position, until=until, limit=_PAGE)
                found = await self._database.read(read)
            whole = len(found) < _PAGE
            more |= not whole
            for stream in group:
                stream.take(found, max(position, until) if whole else found[-1].sequence)
                stream.live |= whole
        return more


def _start(connection: Connection, wanted: StreamTerms) -> _Start:
    """Find where a stream begins.

    The events that the snapshot of `since` saw stay out after the client has resumed, too.
    """
    # First: below the oldest settled event, none can be committed any more.
    settled = events.settled(connection)
    cursor = EventCursor.parse(wanted.since or "")
    seen = cursor or EventCursor(0)
    given = wanted.last_event_id or wanted.since
    if given is None:
        return _Start(settled, seen, place=EventCursor(settled))
    oldest = next(iter(events.stretch(connection, after=0, until=settled, limit=1)), None)
    resumed = EventCursor.parse(given)
    if resumed is None:
        number = events.sequence_of(connection, given)
    else:
        seen = resumed
        pruned = oldest is not None and oldest.sequence > resumed.number + 1
        number = None if pruned or resumed.number > events.last(connection) else resumed.number
    if number is not None:
        return _Start(number, seen)
    if oldest is None:
        return _Start(0, EventCursor(0), Gap(None))
    # A cursor whose place was pruned still says which of the later events its snapshot saw.
    seen = seen if seen.number < oldest.sequence else EventCursor(0)
    return _Start(oldest.sequence - 1, seen, Gap(oldest.event.id))
