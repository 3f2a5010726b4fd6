# SPDX-License-Identifier: Apache-2.0
"""Live streams of events: complete, in order, and bounded.

TEST_STREAM_EVENTS=100000 and TEST_STREAM_READERS=20 run the long form of the test with many
writers.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, delete

from novitai.clock import SystemClock
from novitai.domain.event import Event, EventType
from novitai.domain.session import Credential
from novitai.errors import TooManyRequests
from novitai.lifecycle.queries.event_cursor import EventCursor
from novitai.lifecycle.queries.event_streams import (
    COMMENT_EVERY,
    MAX_BEHIND,
    MAX_PER_KEY,
    Comment,
    Ended,
    EventStream,
    EventStreams,
    Gap,
    Item,
    StreamTerms,
)
from novitai.lifecycle.queries.ready_views import ReadyViews, WantedPage
from novitai.store.engine import postgresql_server
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreUnavailable
from novitai.store.opening import open_database
from novitai.store.queries import events, instances
from novitai.store.queries.instances import Filter
from novitai.store.tables import events as table
from novitai.testing import ManualClock, an_instance
from tests.lifecycle.world import AtWork

T = TypeVar("T")

EVENTS = int(os.environ.get("TEST_STREAM_EVENTS", "2000"))
WRITERS = 8
READERS = int(os.environ.get("TEST_STREAM_READERS", "6"))
LIST = WantedPage(Filter(), None, 100)
NOW = StreamTerms()


@dataclass
class Rig:
    """The streams of a process, on virtual time."""

    database: Database
    clock: ManualClock
    streams: EventStreams
    at_work: AtWork = field(default_factory=AtWork)
    revoked: set[str] = field(default_factory=set)

    async def write(self, *names: str, instance_id: str | None = "inst_1") -> None:
        """Commit events in one transaction."""

        def act(connection: Connection) -> None:
            for name in names:
                append(connection, name, instance_id)

        await self.database.write(act)

    async def through(self, work: Awaitable[T], within: float = 2.0) -> T:
        """Advance virtual time until `work` is done; fail after `within` seconds."""
        task = asyncio.ensure_future(work)
        end = self.clock.monotonic() + within
        await self.at_work.rest()
        while not task.done():
            assert self.clock.monotonic() < end, f"not within {within} virtual seconds"
            await self.clock.advance(0.05)
            await self.at_work.rest()
        return await task

    async def usable(self, credentials: Collection[Credential]) -> set[Credential]:
        """Return the keys that are not revoked."""
        return {one for one in credentials if one.key_id not in self.revoked}

    async def got(self, stream: EventStream, count: int) -> list[str]:
        """Read `count` events and return their IDs."""
        seen: list[str] = []
        while len(seen) < count:
            seen += ids(await self.through(stream.items()))
        return seen


def append(connection: Connection, name: str, instance_id: str | None = "inst_1") -> None:
    """Append one event."""
    events.append(
        connection,
        event_id=name,
        instance_id=instance_id,
        event_type=EventType.DRIFT if instance_id else EventType.ACCOUNT_CHANGED,
        at=0,
        data={},
        actor=None,
    )


def ids(items: Sequence[Item]) -> list[str]:
    """Return the IDs of the events among some items."""
    return [item.id for item in items if isinstance(item, Event)]


def have_instances(connection: Connection) -> None:
    """Insert the instances that events are about."""
    for number in range(WRITERS):
        made = an_instance(id=f"inst_{number}", name=f"box-{number}", upstream_id=f"up-{number}")
        instances.insert(connection, made, b"sealed")


@pytest.fixture
async def rig(database: Database, clock: ManualClock) -> AsyncIterator[Rig]:
    """The streams over an empty log, on each store in turn."""
    await database.write(have_instances)

    async def usable(credentials: Collection[Credential]) -> set[Credential]:
        return await made.usable(credentials)

    made = Rig(database, clock, EventStreams(database, clock, usable))
    made.at_work.watch(database)
    yield made
    await made.streams.stop()


async def test_a_stream_begins_with_what_is_committed_next(rig: Rig) -> None:
    """Without a place to resume from, earlier events are not sent and all later ones are."""
    await rig.write("evt_1")
    stream = await rig.streams.open(Credential("key_1"), NOW)
    await rig.write("evt_2", "evt_3")
    assert await rig.got(stream, 2) == ["evt_2", "evt_3"]


async def test_a_stream_resumes_after_an_event(rig: Rig) -> None:
    """The events after the last one that the client got are sent, then the new ones."""
    await rig.write("evt_1", "evt_2", "evt_3")
    stream = await rig.streams.open(
        Credential("key_1"), StreamTerms(since="evt_1", last_event_id="evt_2")
    )
    assert await rig.got(stream, 1) == ["evt_3"]
    await rig.write("evt_4")
    assert await rig.got(stream, 1) == ["evt_4"]


async def test_only_wanted_events_are_sent(rig: Rig) -> None:
    """The filters by type and by instance hold together."""
    kinds = await rig.streams.open(Credential("key_1"), StreamTerms(event_type=EventType.DRIFT))
    about = await rig.streams.open(Credential("key_1"), StreamTerms(instance_id="inst_2"))
    await rig.write("evt_1", instance_id=None)
    await rig.write("evt_2")
    await rig.write("evt_3", instance_id="inst_2")
    assert await rig.got(kinds, 2) == ["evt_2", "evt_3"]
    assert await rig.got(about, 1) == ["evt_3"]


@pytest.mark.parametrize("given", ["evt_pruned", "cur_0", "cur_999"])
async def test_a_gap_is_told(rig: Rig, given: str) -> None:
    """A stream from a place that is not in the log tells so and begins at the oldest event."""
    await rig.write("evt_pruned", "evt_2", "evt_3")
    prune = delete(table).where(table.c.id == "evt_pruned")
    await rig.database.write(lambda connection: connection.execute(prune).close())
    stream = await rig.streams.open(Credential("key_1"), StreamTerms(last_event_id=given))
    assert await stream.items() == [Gap("evt_2")]
    assert await rig.got(stream, 2) == ["evt_2", "evt_3"]


async def test_a_gap_in_an_empty_log(rig: Rig) -> None:
    """The gap names no event, and later events are sent."""
    stream = await rig.streams.open(Credential("key_1"), StreamTerms(since="evt_unknown"))
    assert await stream.items() == [Gap(None)]
    await rig.write("evt_1")
    assert await rig.got(stream, 1) == ["evt_1"]


async def test_the_cursor_of_a_list_names_its_snapshot(rig: Rig) -> None:
    """A stream from it sends what the list did not see, also if the list is served again."""
    ready = ReadyViews(rig.database, rig.clock)
    empty = (await ready.page(LIST)).event_cursor
    await rig.write("evt_1", "evt_2")
    cursor = (await ReadyViews(rig.database, rig.clock).page(LIST)).event_cursor
    await rig.write("evt_3")
    # The page is kept, because no instance has changed; so its cursor is the earlier one.
    assert (await ready.page(LIST)).event_cursor == empty
    late = await rig.streams.open(Credential("key_1"), StreamTerms(since=cursor))
    early = await rig.streams.open(Credential("key_1"), StreamTerms(since=empty))
    assert await rig.got(late, 1) == ["evt_3"]
    assert await rig.got(early, 3) == ["evt_1", "evt_2", "evt_3"]


@pytest.mark.postgresql
async def test_the_cursor_is_exact_while_a_transaction_is_open(
    postgresql_database_url: str, clock: ManualClock
) -> None:
    """Events that the list saw are left out, and those of older open transactions are sent."""
    database = await open_database(postgresql_database_url, clock)
    await database.write(have_instances)
    engine = postgresql_server.make_engine(postgresql_database_url)

    async def usable(credentials: Collection[Credential]) -> Collection[Credential]:
        return credentials

    streams = EventStreams(database, clock, usable)
    rig = Rig(database, clock, streams)
    rig.at_work.watch(database)
    try:
        with engine.connect() as slow, engine.connect() as slower:
            append(slow, "evt_1")
            await rig.write("evt_2")
            append(slower, "evt_3")
            await rig.write("evt_4", "evt_5")
            cursor = (await ReadyViews(database, clock).page(LIST)).event_cursor
            assert cursor == "cur_0_2-2_4-5"
            stream = await streams.open(Credential("key_1"), StreamTerms(since=cursor))
            slower.commit()
            await rig.write("evt_6")
            slow.commit()
        assert await rig.got(stream, 3) == ["evt_1", "evt_3", "evt_6"]
        # A browser sends both after a cut.
        again = await streams.open(
            Credential("key_1"), StreamTerms(since=cursor, last_event_id="evt_1")
        )
        assert await rig.got(again, 2) == ["evt_3", "evt_6"]
    finally:
        engine.dispose()
        await streams.stop()
        await database.close()


def test_a_cursor_survives_its_text() -> None:
    """A cursor parses to what it was, and other texts are no cursors."""
    cursor = EventCursor(17, ((19, 19), (23, 40)))
    assert EventCursor.parse(cursor.text()) == cursor
    assert [one for one in range(15, 45) if not cursor.saw(one)] == [18, 20, 21, 22, *range(41, 45)]
    for text in ("", "evt_1", "cur_", "cur_1_2", "cur_-1", "cur_1_2-3_"):
        assert EventCursor.parse(text) is None


async def test_a_key_has_so_many_streams(rig: Rig) -> None:
    """The eleventh stream of a key is refused; another key and a freed place are not."""
    opened = [await rig.streams.open(Credential("key_1"), NOW) for _ in range(MAX_PER_KEY)]
    with pytest.raises(TooManyRequests) as refused:
        await rig.streams.open(Credential("key_1"), NOW)
    assert refused.value.retry_after is not None
    await rig.streams.open(Credential("key_2"), NOW)
    assert rig.streams.count == MAX_PER_KEY + 1
    opened[0].close()
    await rig.streams.open(Credential("key_1"), NOW)
    assert rig.streams.closed == {Ended.CLIENT: 1}


async def test_a_revoked_key_ends_its_streams(rig: Rig) -> None:
    """The streams of the key end within 2 seconds, and no others."""
    stream = await rig.streams.open(Credential("key_1"), NOW)
    other = await rig.streams.open(Credential("key_2"), NOW)
    rig.revoked.add("key_1")
    await rig.through(stream.ended.wait(), within=1.5)
    assert stream.reason is Ended.REVOKED
    assert await stream.items() == ()
    await rig.write("evt_1")
    assert await rig.got(other, 1) == ["evt_1"]


async def test_a_slow_reader_is_cut_off_and_resumes(rig: Rig) -> None:
    """A reader 1,000 events behind is closed; resuming from further back than that is no reason."""
    stream = await rig.streams.open(Credential("key_1"), NOW)
    await rig.write("evt_first")
    assert await rig.got(stream, 1) == ["evt_first"]
    names = [f"evt_{number}" for number in range(3 * MAX_BEHIND)]
    await rig.write(*names[:MAX_BEHIND])
    await rig.clock.advance(1)
    await rig.at_work.rest()
    assert not stream.ended.is_set()
    await rig.write(*names[MAX_BEHIND:])
    await rig.through(stream.ended.wait())
    assert stream.reason is Ended.SLOW
    resumed = await rig.streams.open(Credential("key_1"), StreamTerms(last_event_id="evt_first"))
    assert await rig.got(resumed, len(names)) == names


async def test_a_quiet_stream_gets_comments(rig: Rig) -> None:
    """A comment comes every 15 seconds."""
    stream = await rig.streams.open(Credential("key_1"), NOW)
    for _ in range(3):
        began = rig.clock.monotonic()
        assert await rig.through(stream.items(), within=COMMENT_EVERY + 0.1) == [Comment()]
        assert rig.clock.monotonic() - began >= COMMENT_EVERY - 0.1


async def test_one_reader_serves_all_streams(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round reads at most twice for all streams that have caught up; without streams, never."""
    opened = [await rig.streams.open(Credential(f"key_{number}"), NOW) for number in range(20)]
    await rig.through(rig.clock.sleep(0.3))
    reads = 0
    read = rig.database.read

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(*arguments, **options)

    monkeypatch.setattr(rig.database, "read", counted)
    await rig.write("evt_1")
    for stream in opened:
        assert await rig.got(stream, 1) == ["evt_1"]
    assert reads <= 4
    for stream in opened:
        stream.close()
    await rig.through(rig.clock.sleep(0.5))
    reads = 0
    await rig.through(rig.clock.sleep(5), within=6)
    assert reads == 0


async def test_streams_survive_an_outage_of_the_database(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database does not answer, streams stay open; then they go on."""
    stream = await rig.streams.open(Credential("key_1"), NOW)

    async def away(*_arguments: object, **_options: object) -> None:
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(rig.database, "read", away)
        await rig.through(rig.clock.sleep(3), within=4)
    await rig.write("evt_1")
    assert await rig.got(stream, 1) == ["evt_1"]


async def test_the_end_of_the_process_ends_all_streams(rig: Rig) -> None:
    """Open streams end at once, and a stream that is opened later has ended already."""
    stream = await rig.streams.open(Credential("key_1"), NOW)
    await rig.streams.stop()
    assert stream.reason is Ended.SHUTDOWN
    assert (await rig.streams.open(Credential("key_1"), NOW)).reason is Ended.SHUTDOWN
    assert rig.streams.count == 0


@pytest.mark.timeout(60 + EVENTS // 100)
async def test_nothing_is_skipped_doubled_or_out_of_order(
    database: Database,
) -> None:
    """Readers that are cut at random and resume get each event once, in order per instance.

    Eight writers commit and roll back transactions of several sizes.
    """
    await database.write(have_instances)

    async def usable(credentials: Collection[Credential]) -> Collection[Credential]:
        return credentials

    streams = EventStreams(database, SystemClock(), usable)
    share = EVENTS // WRITERS
    cursor = (await ReadyViews(database, SystemClock()).page(LIST)).event_cursor
    writing = [asyncio.create_task(write(database, writer, share)) for writer in range(WRITERS)]
    reading = [
        asyncio.create_task(read(streams, number, cursor, share * WRITERS))
        for number in range(READERS)
    ]
    try:
        await asyncio.gather(*writing)
        for seen in await asyncio.gather(*reading):
            assert len(seen) == len(set(seen)) == share * WRITERS
            for writer in range(WRITERS):
                mine = [name for name in seen if name.startswith(f"evt_{writer}_")]
                assert mine == [f"evt_{writer}_{number}" for number in range(share)]
    finally:
        await streams.stop()


class UndoneError(Exception):
    """Rolls a transaction back."""


def append_all(connection: Connection, writer: int, numbers: Sequence[int], undo: bool) -> None:
    """Append the events of a writer, and roll them back if `undo`."""
    for number in numbers:
        append(connection, f"evt_{writer}_{number}", f"inst_{writer}")
    if undo:
        raise UndoneError


async def write(database: Database, writer: int, share: int) -> None:
    """Write `share` events about one instance, in transactions; roll some of them back."""
    draw = random.Random(writer)
    done = 0
    while done < share:
        size = min(draw.choice([1, 1, 2, 5, 40]), share - done)
        undo = draw.random() < 0.1

        def act(
            connection: Connection, first: int = done, size: int = size, undo: bool = undo
        ) -> None:
            for number in range(first, first + size):
                append(connection, f"evt_{writer}_{number}", f"inst_{writer}")
            if undo:
                raise UndoneError

        try:
            await database.write(act)
        except UndoneError:
            continue
        done += size


async def read(streams: EventStreams, number: int, cursor: str, count: int) -> list[str]:
    """Read until `count` events have come; be cut at random places, and resume after the last."""
    draw = random.Random(number)
    seen: list[str] = []
    while len(seen) < count:
        wanted = StreamTerms(since=cursor, last_event_id=seen[-1] if seen else None)
        stream = await streams.open(Credential(f"key_{number}"), wanted)
        left = draw.choice([1, 10, 300, 1000])
        while left > 0 and len(seen) < count:
            got = ids(await stream.items())
            if not got and stream.ended.is_set():
                break
            # The connection may be cut in the middle of what was sent.
            seen += got[:left]
            left -= len(got)
        stream.close()
    return seen
