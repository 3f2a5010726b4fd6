# SPDX-License-Identifier: Apache-2.0
"""A rig for deliveries: a real database, virtual time, receivers in memory, no job engine.

The rig queries the due lines and runs them at once, so that days pass without real time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeVar

import httpx2
import orjson
import pytest
import standardwebhooks.webhooks
from sqlalchemy import Connection
from standardwebhooks import Webhook as Verifier

from novitai.api.openapi.events import EVENTS
from novitai.domain.event import EventType
from novitai.domain.instance import InstanceStatus
from novitai.domain.webhook import Delivery
from novitai.egress.guard import AddressGuard
from novitai.egress.sending import Sender
from novitai.egress.signing import secret_of
from novitai.ids import Ids
from novitai.jobs.metrics import JobMetrics
from novitai.jobs.port import Due, Handler
from novitai.jobs.supervision import Loop
from novitai.lifecycle.commands.idempotency import Command, Commands, Transaction
from novitai.lifecycle.events.outbox import Outbox
from novitai.lifecycle.events.recorder import Recorder
from novitai.lifecycle.webhooks.deliveries import Deliveries
from novitai.lifecycle.webhooks.delivery_worker import Deliverer
from novitai.lifecycle.webhooks.endpoints import Webhooks
from novitai.store.engine.database import Database
from novitai.store.queries import deliveries, events, instances
from novitai.store.vault import Vault
from novitai.testing import ManualClock, an_instance
from tests.lifecycle.world import AtWork

T = TypeVar("T")

SECRET = secret_of("installationinstallationinstallation12345678")
FIRST = "http://93.184.215.1/hook"
SECOND = "http://93.184.215.2/hook"

Reaction = int | tuple[int, Mapping[str, str]] | Callable[[], Awaitable[int]]


@dataclass(frozen=True)
class Received:
    """A message as a receiver got it; `at` in virtual Unix milliseconds."""

    url: str
    at: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The message's id."""
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        """The message."""
        return orjson.loads(self.body)


class Receivers(httpx2.AsyncBaseTransport):
    """Receivers in memory. `reactions` sets their answers by URL; the default is 200."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.received: list[Received] = []
        self.reactions: dict[str, Reaction] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = str(request.url)
        got = Received(url, self.clock.now(), dict(request.headers), await request.aread())
        self.received.append(got)
        reaction = self.reactions.get(url, 200)
        if callable(reaction):
            reaction = await reaction()
        status, headers = reaction if isinstance(reaction, tuple) else (reaction, {})
        return httpx2.Response(status, headers=dict(headers), stream=httpx2.ByteStream(b"seen"))

    def at(self, url: str) -> list[Received]:
        """Return the messages of one receiver, in order."""
        return [one for one in self.received if one.url == url]

    def types(self, url: str = FIRST) -> list[str]:
        """Return the event types of one receiver's messages, in order."""
        return [one.json["type"].removeprefix("instance.") for one in self.at(url)]


class ByHand:
    """A job engine that runs nothing: the rig queries the due lines."""

    is_only = True

    def __init__(self, clock: ManualClock) -> None:
        self.metrics = JobMetrics(clock)
        self.handler: Handler
        self.due: Due
        self.nudged: list[str] = []

    def register(self, name: str, handler: Handler, *, due: Due, concurrency: int) -> None:
        self.handler, self.due = handler, due

    def nudge(self, connection: Connection, name: str, key: str) -> None:
        self.nudged.append(key)

    def offer(self, name: str, key: str) -> None:
        self.nudged.append(key)

    async def start(self, *, consume: bool = True) -> tuple[Loop, ...]:
        return ()

    async def stop(self, grace: float) -> None: ...

    async def last_seen(self) -> int:
        return 0

    async def queue_sizes(self) -> dict[str, int]:
        return {}


@dataclass
class Rig:
    """The parts that deliveries need, and methods to cause events."""

    database: Database
    clock: ManualClock
    ids: Ids = field(default_factory=lambda: Ids(random.Random(11)))

    def __post_init__(self) -> None:
        clock, ids, database = self.clock, self.ids, self.database
        self.receivers = Receivers(clock)
        self.engine = ByHand(clock)
        self.vault = Vault(b"a secret of at least thirty-two bytes")
        self.outbox = Outbox(clock, ids, self.engine)
        self.recorder = Recorder(clock, ids, self.outbox)
        self.sender = Sender(AddressGuard(allow_private=False), clock, transport=self.receivers)
        self.deliverer = self.another_deliverer()
        self.webhooks = Webhooks(
            database,
            clock,
            ids,
            self.vault,
            self.outbox,
            self.deliverer,
            self.sender,
        )
        self.record = Deliveries(database, clock, self.engine)
        self.commands = Commands(database, clock)
        self.at_work = AtWork()
        self.at_work.watch(database)

    async def do(self, command: Transaction[T] | Command[T], *, deadline: int | None = None) -> T:
        """Have a command carried out; return what came of it."""
        return await self.commands.apply(command, deadline=deadline)

    def another_deliverer(self) -> Deliverer:
        """Make a deliverer, as another process would have one."""
        made = Deliverer(
            self.database,
            self.clock,
            self.ids,
            self.engine,
            self.recorder,
            self.vault,
            self.sender,
            secrets=[SECRET],
        )
        made.register()
        return made

    async def instance(self, url: str | None = FIRST, **more: Any) -> str:
        """Insert an instance; its first event is delivered."""
        now = self.clock.now()
        instance = an_instance(
            InstanceStatus.CREATING,
            id=self.ids.instance(now),
            created_at=now,
            updated_at=now,
            webhook_url=url,
            **more,
        )

        def write(connection: Connection) -> None:
            instances.insert(connection, instance, b"sealed")
            self.recorder.append(connection, instance, None, EventType.CREATED)

        await self.database.write(write)
        return instance.id

    async def happen(self, instance_id: str, *types: EventType) -> None:
        """Append events to an instance's log, with the facts of their examples."""

        def write(connection: Connection) -> None:
            instance = instances.lock(connection, instance_id)
            assert instance is not None
            for event_type in types:
                facts = EVENTS[event_type].example
                self.recorder.append(connection, instance, None, event_type, also=facts)

        await self.database.write(write)

    async def work(self) -> None:
        """Run due lines until none is left."""
        for _ in range(1000):
            keys = await self.database.read(
                lambda connection: self.engine.due(connection, self.clock.now(), 100)
            )
            if not keys:
                return
            await asyncio.gather(*(self.engine.handler(key) for key in keys))
        raise AssertionError("there is always something due")

    async def after(self, seconds: float) -> None:
        """Advance virtual time, and run the lines due then."""
        await self.clock.advance(seconds)
        await self.work()

    async def deliveries(self, instance_id: str) -> Sequence[Delivery]:
        """List the deliveries of an instance."""
        return (await self.record.of_instance(instance_id)).deliveries

    async def statuses(self, instance_id: str) -> list[str]:
        """List the delivery statuses of an instance."""
        return [one.status.value for one in await self.deliveries(instance_id)]

    async def log(self, instance_id: str) -> list[str]:
        """List the types of an instance's events."""
        found = await self.database.read(lambda c: events.of_instance(c, instance_id))
        return [event.type.value for event in found]

    async def waiting(self) -> int | None:
        """Return since when the oldest message has been pending."""
        return await self.database.read(deliveries.oldest_waiting)


def verify(message: Received, secret: str) -> None:
    """Verify a message with the independent verifier at the virtual time of its arrival.

    Raises:
        WebhookVerificationError: the message is not valid.
    """

    class Then(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Then:
            return cls.fromtimestamp(message.at / 1000, tz or UTC)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standardwebhooks.webhooks, "datetime", Then)
        Verifier(secret).verify(message.body, dict(message.headers))
