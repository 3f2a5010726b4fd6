# SPDX-License-Identifier: Apache-2.0
"""Tests of the token buckets shared through a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from novitai.api.http.limits import Quota
from novitai.api.http.shared_limits import RETRY_SECONDS, SharedStore
from novitai.testing import ManualClock

pytestmark = pytest.mark.redis
QUOTA = Quota(capacity=120, per_minute=100)
SLOW = Quota(capacity=5, per_minute=1)


class Passage:
    """A TCP relay to Redis that can refuse and break connections."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 6379)
        self._rest = parts
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0

    @property
    def url(self) -> str:
        """The URL of Redis through this relay."""
        host = f"127.0.0.1:{self._port}"
        user, at, _ = self._rest.netloc.rpartition("@")
        return self._rest._replace(netloc=f"{user}{at}{host}").geturl()

    async def open(self) -> None:
        """Start to accept connections."""
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Break all connections and refuse new ones."""
        if self._server is not None:
            self._server.close()
        await self.hang_up()

    async def hang_up(self) -> None:
        """Break all connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        other_reader, other_writer = await asyncio.open_connection(*self._target)
        try:
            # Whichever side ends first ends both.
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, other_writer))
                group.create_task(_copy(other_reader, writer))
        except* (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            for one in (writer, other_writer):
                one.transport.abort()
            self._tasks.discard(task)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionError("the other side hung up")


@pytest.fixture
async def prefix(redis_url: str) -> AsyncIterator[str]:
    """Return a unique name prefix; keys with it are removed afterwards."""
    name = f"novitai-test:{secrets.token_hex(6)}"
    yield name
    redis = Redis.from_url(redis_url)
    keys = [key async for key in redis.scan_iter(f"{name}:*")]
    if keys:
        await redis.delete(*keys)
    await redis.aclose()


@pytest.fixture
async def passage(redis_url: str) -> AsyncIterator[Passage]:
    """Return an open relay to Redis."""
    made = Passage(redis_url)
    await made.open()
    yield made
    await made.shut()


@contextlib.asynccontextmanager
async def store(
    url: str, prefix: str, clock: ManualClock, answer_within: float = 60
) -> AsyncIterator[SharedStore]:
    """Open the store that one process would use."""
    made = SharedStore(url, prefix, clock, answer_within=answer_within)
    try:
        yield made
    finally:
        await made.aclose()


async def test_two_processes_share_one_bucket(
    redis_url: str, prefix: str, clock: ManualClock
) -> None:
    """Two processes together allow the capacity of one bucket, and both report what is left."""
    async with store(redis_url, prefix, clock) as one, store(redis_url, prefix, clock) as two:
        first, second = one.limiter("calls", SLOW), two.limiter("calls", SLOW)
        taken = [await limiter.take("k") for limiter in (first, second) * 4]
    assert [one.allowed for one in taken] == [True] * 5 + [False] * 3
    assert [one.remaining for one in taken] == [4, 3, 2, 1, 0, 0, 0, 0]
    assert 55 <= taken[5].retry_after <= 60
    assert 290 <= taken[4].reset <= 300


async def test_three_hundred_at_once_get_exactly_what_there_is(
    redis_url: str, prefix: str, clock: ManualClock
) -> None:
    """Taking is atomic, and a bounded pool serves more callers than it has connections."""
    # Redis may be slow while other tests run, which must not count as an outage.
    patient = 20
    async with (
        store(redis_url, prefix, clock, patient) as one,
        store(redis_url, prefix, clock, patient) as two,
    ):
        limiters = one.limiter("calls", QUOTA), two.limiter("calls", QUOTA)
        taken = await asyncio.gather(*(limiters[n % 2].take("k") for n in range(300)))
        # On a slow machine a token or two may have been added meanwhile.
        assert 120 <= sum(each.allowed for each in taken) <= 140
        assert one.fallbacks == two.fallbacks == 0


async def test_waiting_as_long_as_was_said_is_enough(
    redis_url: str, prefix: str, clock: ManualClock
) -> None:
    """By Redis's own clock, so the test really waits: a token is added each 100 ms."""
    async with store(redis_url, prefix, clock) as one:
        limiter = one.limiter("calls", Quota(capacity=2, per_minute=600))
        while (taken := await limiter.take("k")).allowed:
            pass
        assert taken.retry_after == 1
        await asyncio.sleep(0.11)
        assert (await limiter.take("k")).allowed


async def test_buckets_are_apart_and_vanish_when_they_are_full(
    redis_url: str, prefix: str, clock: ManualClock
) -> None:
    """Another key, limiter or installation has another bucket; a bucket expires when it is full."""
    async with store(redis_url, prefix, clock) as one:
        small = Quota(capacity=1, per_minute=60)
        for kind, key in (("calls", "a"), ("calls", "b"), ("failures", "a")):
            assert (await one.limiter(kind, small).take(key)).allowed
        assert not (await one.limiter("calls", small).take("a")).allowed
    redis = Redis.from_url(redis_url)
    assert 0 < await redis.pttl(f"{prefix}:calls:a") <= 1001
    await redis.aclose()


async def test_while_redis_is_away_each_process_limits_by_itself(
    prefix: str, passage: Passage, clock: ManualClock
) -> None:
    """No request is refused for the outage; it is counted, logged once and ends automatically."""
    async with store(passage.url, prefix, clock) as one:
        limiter = one.limiter("calls", SLOW)
        with capture_logs() as lines:
            assert (await limiter.take("k")).remaining == 4
            await passage.shut()
            # The process's own buckets are full when the outage begins.
            assert [(await limiter.take("k")).allowed for _ in range(6)] == [True] * 5 + [False]
            assert one.fallbacks == 6
            await clock.advance(RETRY_SECONDS)
            assert not (await limiter.take("k")).allowed
            await passage.open()
            assert not (await limiter.take("k")).allowed, "Redis was tried too early"
            await clock.advance(RETRY_SECONDS)
            assert (await limiter.take("k")).remaining == 3
        assert [line["event"] for line in lines] == [
            "rate_limit_store_away",
            "rate_limit_store_back",
        ]
        assert one.fallbacks == 8


async def test_a_connection_that_was_broken_off_is_no_outage(
    prefix: str, passage: Passage, clock: ManualClock
) -> None:
    """A dead idle connection is replaced within the call."""
    async with store(passage.url, prefix, clock) as one:
        limiter = one.limiter("calls", SLOW)
        assert (await limiter.take("k")).remaining == 4
        await passage.hang_up()
        assert (await limiter.take("k")).remaining == 3
        assert one.fallbacks == 0


async def test_a_redis_that_does_not_answer_costs_one_call_a_moment(
    prefix: str, clock: ManualClock
) -> None:
    """A Redis that accepts and does not answer delays one call, not every call."""
    loop = asyncio.get_running_loop()
    # The kernel accepts a connection, and nothing reads from it.
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    async with store(f"redis://127.0.0.1:{port}", prefix, clock, 0.3) as one:
        limiter = one.limiter("calls", QUOTA)
        began = loop.time()
        assert (await limiter.take("k")).allowed
        assert loop.time() - began < 30
        # Without the fallback, each of them would wait as long as the first.
        async with asyncio.timeout(5):
            for _ in range(50):
                assert (await limiter.take("k")).allowed
    silent.close()
