# SPDX-License-Identifier: Apache-2.0
"""Several simulated processes on one store, in one event loop and in virtual time.

Each has the real code, its own job engine and its own connection to the emulator. It touches the
outside only through a proxy of the database, of the clock and of the transports, so it can be
killed or frozen at any crash point: a killed process does nothing more, a frozen one goes on later.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2
from sqlalchemy import Connection

from novitai import crash_points
from novitai.app import Application, Outside
from novitai.crash_points import CrashPoint
from novitai.emulator import EmulatorConfig, create_app
from novitai.emulator.config import Delays
from novitai.emulator.config import Settings as EmulatorSettings
from novitai.emulator.state import Emulator as EmulatorState
from novitai.ids import Ids
from novitai.jobs.embedded import EmbeddedEngine
from novitai.jobs.supervision import Loop
from novitai.settings import Settings
from novitai.store.engine.database import Database
from novitai.store.engine.metrics import StoreMetrics
from novitai.store.engine.moments import Moment
from novitai.testing import ManualClock, calm
from tests.chaos.inline_store import InlineStore
from tests.lifecycle.world import NO_CERTIFICATES, Emulator, at_home, settings_for

T = TypeVar("T")

SWEEP_SECONDS: Final = 5.0
QUICK: Final = replace(Delays(**dict.fromkeys(Delays.names(), (0.5, 1.5))), migrating=(40.0, 50.0))
RECEIVER: Final = "http://93.184.215.1/hook"
_EPOCH: Final = 1_760_000_000.0
_SECRET: Final = "whsec_" + "c2VjcmV0IG9mIHRoZSBjaGFvcyB0ZXN0cyE="
_TURNS: Final = (0, 0, 0, 1, 1, 2, 4)
"""Turns of the event loop before a transaction, so that processes interleave at random."""

_member: ContextVar[Member | None] = ContextVar("member", default=None)


class Killed(BaseException):
    """The simulated process was killed; only its own tasks see this."""


@dataclass(eq=False)
class Member:
    """A simulated process.

    Attributes:
        name: Its name, for messages.
        works: Whether it runs jobs and lists the account.
        app: Its objects.
        dead: Whether it was killed.
        thawed: Set unless it is frozen.
        stalled: Whether it ever was frozen.
    """

    name: str
    works: bool
    app: Application = field(init=False)
    dead: bool = False
    stalled: bool = False
    thawed: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.thawed.set()

    async def contact(self) -> None:
        """Wait until the process is not frozen; call this before it touches the outside.

        Raises:
            Killed: it was killed.
        """
        await self.thawed.wait()
        self.insist()

    def insist(self) -> None:
        """Raise `Killed` if it was killed."""
        if self.dead:
            raise Killed


class MemberClock:
    """Virtual time, as one process sees it."""

    def __init__(self, clock: ManualClock, member: Member) -> None:
        self._clock = clock
        self._member = member
        self.now = clock.now
        self.monotonic = clock.monotonic
        self.boottime = clock.boottime

    async def sleep(self, seconds: float) -> None:
        """Wait for virtual time."""
        await self._clock.sleep(seconds)
        await self._member.contact()


class MemberDatabase(Database):
    """The shared store, as one process sees it."""

    def __init__(self, shared: Database, member: Member, chance: random.Random) -> None:
        self._shared = shared
        self._member = member
        self._chance = chance
        self.dialect = shared.dialect
        self.metrics = StoreMetrics()

    async def read(self, fn: Callable[[Connection], T], *, snapshot: bool = False) -> T:
        """Read, after a few turns of the event loop."""
        await self._turn()
        return await self._shared.read(fn, snapshot=snapshot)

    async def write(self, fn: Callable[[Connection], T], *, deadline: int | None = None) -> T:
        """Write, after a few turns of the event loop."""
        await self._turn()
        result = await self._shared.write(fn, deadline=deadline)
        await self._member.contact()
        return result

    def moment_at_once(self) -> Moment | None:
        """Return the moment of the shared store."""
        return self._shared.moment_at_once()

    async def moment(self) -> Moment:
        """Return the moment of the shared store."""
        return await self._shared.moment()

    async def ping(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Leave the shared store open."""

    async def _turn(self) -> None:
        for _ in range(self._chance.choice(_TURNS)):
            await asyncio.sleep(0)
        await self._member.contact()

    def _probe(self, connection: Connection) -> None: ...

    def _release(self) -> None: ...


class SharedEngine(EmbeddedEngine):
    """The embedded engine as one of several: a nudge goes to any process, and leases stay."""

    def __init__(
        self, fleet: Fleet, database: Database, clock: MemberClock, ids: Ids, *, alone: bool
    ) -> None:
        super().__init__(database, clock, ids, sweep_interval=SWEEP_SECONDS)
        self._fleet = fleet
        self._alone = alone

    @property
    def is_only(self) -> bool:
        """Whether all leases belong to processes that have ended."""
        return self._alone

    def nudge(self, connection: Connection, name: str, key: str) -> None:
        """Offer the key to one of the processes after the commit."""
        Database.after_commit(connection, partial(self._fleet.offer, name, key))

    async def start(self, *, consume: bool = True) -> tuple[Loop, ...]:
        """Start, unless this process only serves requests."""
        return tuple(await super().start()) if consume else ()


class Road(httpx2.AsyncBaseTransport):
    """The way of one process to the emulator. Like the real pool, it reports a trace."""

    def __init__(self, emulator: Emulator, member: Member) -> None:
        self._inner = httpx2.ASGITransport(app=emulator.app, raise_app_exceptions=False)
        self._member = member

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; its response is lost if the process is killed meanwhile."""
        await self._member.contact()
        trace = request.extensions.get("trace")
        if trace is not None:  # a frozen process checks its window again before the first byte
            await trace("http11.send_request_headers.started", {"request": None})
        try:
            response = await self._inner.handle_async_request(request)
        finally:
            if trace is not None:
                await trace("http11.send_request_body.complete", {"request": None})
        await self._member.contact()
        return response


@dataclass
class Receiver:
    """A receiver of webhooks in memory.

    Attributes:
        got: The message IDs and types, in the order of arrival.
        failures: How many of the next messages are refused with 503.
        losses: How many of the next messages are taken without an answer.
    """

    got: list[tuple[str, bytes]] = field(default_factory=list)
    failures: int = 0
    losses: int = 0


class Post(httpx2.AsyncBaseTransport):
    """The way of one process to the receiver."""

    def __init__(self, receiver: Receiver, member: Member) -> None:
        self._receiver = receiver
        self._member = member

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Deliver a message."""
        await self._member.contact()
        body = await request.aread()
        receiver = self._receiver
        if receiver.failures:
            receiver.failures -= 1
            return httpx2.Response(503)
        receiver.got.append((request.headers["webhook-id"], body))
        if receiver.losses:
            receiver.losses -= 1
            raise httpx2.ReadError("the receiver closed the connection")
        await self._member.contact()
        return httpx2.Response(200)


async def _nothing() -> None:
    return None


Hit = Callable[[Member, CrashPoint, str], None]


class Fleet:
    """The simulated processes, the emulator, the receiver, and their time."""

    def __init__(
        self, store: InlineStore, folder: Path, *, workers: int, seed: int, **settings: Any
    ) -> None:
        """Prepare; `running` starts everything.

        Args:
            store: The store, which is emptied.
            folder: The data folder.
            workers: 1 is one process that does everything; more are workers beside an API.
            seed: The source of all random choices.
            settings: Settings that differ from those of the rig.
        """
        self.store = store
        self.chance = random.Random(seed)
        self.clock = ManualClock()
        self.receiver = Receiver()
        self.members: list[Member] = []
        self.reached: Counter[tuple[CrashPoint, str]] = Counter()
        self.hit: Hit | None = None
        self.workers = workers
        self.overlaps = 0
        self._lister: Member | None = None
        self._number = 0
        self.settings: Settings = settings_for(
            store.url,
            folder,
            **{
                "sync_interval_seconds": 2.5,
                "absent_after_seconds": 20.0,
                "capacity_wait_seconds": 60.0,
                "placement_deadline_seconds": 900.0,
                **settings,
            },
        )
        app = create_app(
            EmulatorConfig(
                time_source=self.clock.monotonic,
                seed=seed,
                public_url="http://emulator",
                settings=EmulatorSettings(delays=QUICK),
            )
        )
        self.emulator = Emulator(app)
        self.upstream: EmulatorState = app.state.emulator
        # Not the time of day, so that a run can be repeated exactly.
        self.upstream.clock._anchor_virtual = _EPOCH

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Fleet]:
        """Start the processes on an empty store; kill them at the end."""
        loop = asyncio.get_running_loop()
        loop.set_task_factory(self._task)  # type: ignore[arg-type]  # typeshed has it more general
        loop.set_exception_handler(self._unheard)
        self.store.reset(self.clock)
        with self._watching():
            try:
                for works in (True,) * self.workers + ((False,) if self.workers > 1 else ()):
                    await self.start(works=works)
                yield self
            finally:
                for member in self.members:
                    await self.kill(member)
                await self.emulator.aclose()
                loop.set_task_factory(None)

    @property
    def api(self) -> Member | None:
        """The living process that serves requests; None while there is none."""
        if self.workers == 1:
            return next((one for one in self.living), None)
        return next((one for one in self.living if not one.works), None)

    @property
    def living(self) -> list[Member]:
        """The processes that were not killed."""
        return [one for one in self.members if not one.dead]

    async def start(self, *, works: bool) -> Member:
        """Start a process."""
        self._number += 1
        member = Member(f"{'worker' if works else 'api'}-{self._number}", works)
        self.members.append(member)
        await self.as_member(member, self._open(member))
        return member

    async def as_member(self, member: Member, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine as a task of a process.

        Raises:
            Killed: the process was killed before it ended.
        """
        context = Context()
        context.run(_member.set, member)
        task = asyncio.get_running_loop().create_task(work, context=context)
        await asyncio.wait({task})
        if task.cancelled():
            raise Killed
        return task.result()

    def kill_soon(self, member: Member) -> None:
        """Kill a process from within one of its tasks, which must raise `Killed` now."""
        member.dead = True
        member.app.loops.close()
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: loop.create_task(self.kill(member)), context=Context())

    async def kill(self, member: Member) -> None:
        """Kill a process: from now on, it does nothing."""
        member.dead = True
        member.thawed.set()
        member.app.loops.close()
        for _ in range(50):
            left = [task for task in member.tasks if not task.done()]
            if not left:
                break
            for task in left:
                task.cancel()
            await calm(20)
        member.tasks.clear()

    def offer(self, name: str, key: str) -> None:
        """Wake a job in one of the living processes that work."""
        able = [one for one in self.living if one.works and one.thawed.is_set()]
        if able:
            member = self.chance.choice(able)
            context = Context()
            context.run(_member.set, member)
            context.run(member.app.jobs.offer, name, key)

    async def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Advance virtual time, and let everything run that is due."""
        end = self.clock.monotonic() + seconds
        while (left := end - self.clock.monotonic()) > 0:
            await self.clock.advance(min(step, left))
            await calm(5_000)

    async def _open(self, member: Member) -> None:
        clock = MemberClock(self.clock, member)
        database = MemberDatabase(self.store.database, member, self.chance)
        member.app = Application(
            self.settings,
            clock,
            Ids(random.Random(self.chance.getrandbits(64))),
            database,
            self.store.vault,
            (self.store.installation_id,),
            [_SECRET],
            outside=Outside(
                upstream=Road(self.emulator, member),
                probes=Road(self.emulator, member),
                webhooks=Post(self.receiver, member),
                resolve=at_home,
                tls=NO_CERTIFICATES,
            ),
            engine=lambda _settings, its, _clock, ids: SharedEngine(
                self, its, clock, ids, alone=self.workers == 1
            ),
        )
        # It corrects times after a clock jump, which these lives do not have, and takes a tenth of
        # the time of a life.
        member.app.clock_watch.begin = _nothing  # type: ignore[method-assign]  # left out for its time
        await member.app.start(work=member.works)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        crash_points.install(self._reach)
        try:
            yield
        finally:
            crash_points.install(None)

    def _reach(self, point: CrashPoint, subject: str) -> None:
        member = _member.get()
        if member is None:
            return
        member.insist()
        self.reached[point, subject] += 1
        self._watch_listing(member, point)
        if self.hit is not None:
            self.hit(member, point, subject)
            member.insist()

    def _watch_listing(self, member: Member, point: CrashPoint) -> None:
        """Note if two processes list the account at once, though none was killed or frozen."""
        if point is CrashPoint.LISTING_READ:
            other = self._lister
            if other is not None and other is not member and other in self.living:
                self.overlaps += other.thawed.is_set() and not other.stalled
            self._lister = member
        elif point is CrashPoint.LISTING_RECORDED and self._lister is member:
            self._lister = None

    def _task(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, Any],
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(work, loop=loop, context=context)
        member = _member.get() if context is None else context.get(_member)
        if member is not None:
            member.tasks.add(task)
            task.add_done_callback(member.tasks.discard)
        return task

    @staticmethod
    def _unheard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), Killed | asyncio.CancelledError):
            loop.default_exception_handler(context)
