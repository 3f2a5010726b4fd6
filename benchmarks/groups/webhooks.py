# SPDX-License-Identifier: Apache-2.0
"""Webhook delivery to many receivers, some of them dead, while workers are killed.

Uses PostgreSQL and real processes: this process writes events and runs all receivers, worker
processes deliver. Latency is measured from the commit of an event to its first attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import orjson
from sqlalchemy import Connection
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from benchmarks.bench import Bench
from benchmarks.report import Line, at_most
from benchmarks.stores import POSTGRESQL, postgresql_url
from novitai.clock import SystemClock
from novitai.domain.event import EventType
from novitai.domain.instance import Instance, InstanceStatus
from novitai.egress.guard import AddressGuard
from novitai.egress.sending import Sender
from novitai.egress.signing import secret_of
from novitai.ids import Ids
from novitai.jobs.postgresql import PostgresqlEngine
from novitai.jobs.upkeep import Presence
from novitai.lifecycle.events.outbox import Outbox
from novitai.lifecycle.events.recorder import Recorder
from novitai.lifecycle.webhooks.delivery_worker import Deliverer
from novitai.store import migrate
from novitai.store.engine.database import Database
from novitai.store.opening import open_database
from novitai.store.queries import coordination, instances
from novitai.store.vault import Vault
from novitai.testing import an_instance

SECRET: Final = secret_of("benchmarkbenchmarkbenchmarkbenchmark12345678")
_TYPES: Final = (EventType.STARTING, EventType.RUNNING, EventType.STOPPING, EventType.STOPPED)
_LONGEST: Final = 120.0


@dataclass(frozen=True)
class Plan:
    """The number and rate of messages, the receivers, the workers and the kills."""

    messages: int = 2000
    receivers: int = 40
    dead: int = 10
    instances_each: int = 5
    per_second: float = 100.0
    workers: int = 2
    kills: int = 3


@dataclass
class Outcome:
    """The counts and latencies of a run; latencies are seconds from commit to first attempt."""

    sent: int = 0
    lost: int = 0
    out_of_order: int = 0
    strange_duplicates: int = 0
    duplicates: int = 0
    unverified: int = 0
    latencies: list[float] = field(default_factory=list)
    undisturbed: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @staticmethod
    def p99(values: Sequence[float]) -> float:
        """Return the 99th percentile."""
        return statistics.quantiles(values, n=100)[98]


def run(bench: Bench) -> Iterator[Line]:
    """Measure with and without kills, once each; skipped if no PostgreSQL server is available."""
    if not bench.has_postgresql():
        return
    many = bench.scale.messages
    for name, plan in (
        ("no kill", Plan(many, kills=0)),
        ("1 of 2 workers killed, 3 times", Plan(many)),
        ("the only worker killed, 3 times", Plan(many, workers=1)),
    ):
        with postgresql_url() as url:
            migrate.upgrade(url, SystemClock())
            found = asyncio.run(storm(url, plan))
        wrong = found.lost + found.out_of_order + found.strange_duplicates + found.unverified
        for measure, figure, unit, goal in (
            ("lost, out of order or unverified", wrong, "messages", at_most(0)),
            ("duplicates with the same ID", found.duplicates, "messages", None),
            ("first attempt, median", 1000 * statistics.median(found.latencies), "ms", None),
            ("first attempt, p99", 1000 * found.p99(found.latencies), "ms", None),
        ):
            yield Line("webhooks", f"{name}: {measure}", POSTGRESQL, figure, unit, goal=goal)


async def storm(url: str, plan: Plan) -> Outcome:
    """Run a plan on a migrated, empty PostgreSQL database."""
    async with listening(plan) as receivers, telling(url) as (database, recorder):
        told = await _instances(database, recorder, receivers, plan)
        workers = [await _start(url) for _ in range(plan.workers)]
        try:
            began = time.monotonic()
            commits, kills = await _tell(url, database, recorder, told, workers, plan)
            await receivers.complete(commits)
            return receivers.judge(commits, kills, time.monotonic() - began)
        finally:
            for worker in workers:
                await _kill(worker)


class Receivers:
    """Receivers on real sockets; dead receivers hang, answer 500, or do not listen."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.urls: list[str] = []
        self.arrived: dict[str, tuple[float, str]] = {}
        self.order: dict[tuple[int, str], list[int]] = {}
        self.duplicates = 0
        self.strange_duplicates = 0
        self.unverified = 0
        self.wanted: set[str] = set()
        self.done = asyncio.Event()
        self.over = asyncio.Event()
        self.answering: set[asyncio.Task[None]] = set()

    def is_dead(self, number: int) -> bool:
        """Whether this receiver never accepts a message."""
        return number < self.plan.dead

    async def serve(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer one connection."""
        task = asyncio.current_task()
        if task is not None:
            self.answering.add(task)
            task.add_done_callback(self.answering.discard)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            rows = [row.split(": ", 1) for row in head.strip().split("\r\n")[1:]]
            headers = {row[0].lower(): row[1] for row in rows}
            body = await reader.readexactly(int(headers["content-length"]))
            if self.is_dead(number):
                if number % 3 == 0:
                    await self.over.wait()
                writer.write(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n")
            else:
                self.take(number, headers, body)
                writer.write(b"HTTP/1.1 204 X\r\n\r\n")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    def take(self, number: int, headers: dict[str, str], body: bytes) -> None:
        """Verify and record a message."""
        now = time.time()
        try:
            Verifier(SECRET).verify(body, headers)
        except WebhookVerificationError:
            self.unverified += 1
        data = orjson.loads(body)["data"]
        key = f"{number}/{data['id']}/{data['number']}"
        known = self.arrived.setdefault(key, (now, headers["webhook-id"]))
        if known[0] != now:
            self.duplicates += 1
            self.strange_duplicates += known[1] != headers["webhook-id"]
        self.wanted.discard(key)
        if not self.wanted:
            self.done.set()
        self.order.setdefault((number, data["id"]), []).append(data["number"])

    async def complete(self, commits: dict[str, float]) -> None:
        """Wait until the live receivers have all messages, for at most `_LONGEST` seconds."""
        wanted = {key for key in commits if not self.is_dead(int(key.split("/")[0]))}
        self.wanted = wanted - self.arrived.keys()
        if not self.wanted:
            return
        self.done.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.done.wait(), _LONGEST)

    def judge(self, commits: dict[str, float], kills: Sequence[float], seconds: float) -> Outcome:
        """Compute the outcome of the run."""
        living = {k: at for k, at in commits.items() if not self.is_dead(int(k.split("/")[0]))}
        latencies = {k: self.arrived[k][0] - at for k, at in living.items() if k in self.arrived}
        # A repeated message is in order as long as no later message has arrived.
        disorder = sum(_goes_back(numbers) for numbers in self.order.values())
        return Outcome(
            sent=len(commits),
            lost=len(living) - len(latencies),
            out_of_order=disorder,
            strange_duplicates=self.strange_duplicates,
            duplicates=self.duplicates,
            unverified=self.unverified,
            latencies=list(latencies.values()),
            undisturbed=[
                seconds
                for key, seconds in latencies.items()
                if not any(-0.5 <= living[key] - kill <= 10 for kill in kills)
            ],
            seconds=seconds,
        )


def _goes_back(numbers: Sequence[int]) -> int:
    """Count the messages that arrived after a later message of their line."""
    return sum(later < earlier for earlier, later in itertools.pairwise(numbers))


@asynccontextmanager
async def listening(plan: Plan) -> AsyncIterator[Receivers]:
    """Run the receivers."""
    receivers = Receivers(plan)
    servers = []
    for number in range(plan.receivers):
        server = await asyncio.start_server(partial(receivers.serve, number), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        receivers.urls.append(f"http://127.0.0.1:{port}/hook")
        if receivers.is_dead(number) and number % 3 == 1:
            server.close()  # the port refuses connections
        else:
            servers.append(server)
    try:
        yield receivers
    finally:
        receivers.over.set()
        for server in servers:
            server.close()
        # A handler that the loop cancels at its end makes asyncio print a traceback. The workers
        # have been killed, so every connection ends by itself.
        if receivers.answering:
            await asyncio.wait(receivers.answering, timeout=_LONGEST)


@asynccontextmanager
async def telling(url: str) -> AsyncIterator[tuple[Database, Recorder]]:
    """Open the database, and the recorder that writes events."""
    clock, ids = SystemClock(), Ids()
    database = await open_database(url, clock)
    engine = _engine(database, url)
    await engine.start(consume=False)
    try:
        yield database, Recorder(clock, ids, Outbox(clock, ids, engine))
    finally:
        await engine.stop(0)
        await database.close()


async def _instances(
    database: Database, recorder: Recorder, receivers: Receivers, plan: Plan
) -> list[tuple[int, Instance]]:
    made: list[tuple[int, Instance]] = []
    now = SystemClock().now()
    for number, url in enumerate(receivers.urls):
        for index in range(plan.instances_each):
            instance = an_instance(
                InstanceStatus.CREATING,
                id=f"inst_{number}_{index:010}",
                created_at=now,
                updated_at=now,
                upstream_id=None,
                webhook_url=url,
            )
            made.append((number, instance))

    def write(connection: Connection) -> None:
        for _, instance in made:
            instances.insert(connection, instance, b"sealed")

    await database.write(write)
    return made


async def _tell(
    url: str,
    database: Database,
    recorder: Recorder,
    told: Sequence[tuple[int, Instance]],
    workers: list[asyncio.subprocess.Process],
    plan: Plan,
) -> tuple[dict[str, float], list[float]]:
    """Write the events at the planned rate and kill workers; return the commit and kill times."""
    commits: dict[str, float] = {}
    kills: list[float] = []
    at_kill = [plan.messages * (n + 1) // (plan.kills + 1) for n in range(plan.kills)]
    began = time.monotonic()
    for count in range(plan.messages):
        number, instance = told[count % len(told)]
        index = count // len(told)
        if count in at_kill:
            kills.append(time.time())
            victim = len(kills) % len(workers)
            await _kill(workers[victim])
            workers[victim] = await _start(url, wait=False)

        def append(
            connection: Connection, instance: Instance = instance, index: int = index
        ) -> None:
            locked = instances.lock(connection, instance.id)
            if locked is None:
                raise LookupError(instance.id)
            event_type = _TYPES[index % len(_TYPES)]
            recorder.append(connection, locked, None, event_type, also={"number": index})

        await database.write(append)
        commits[f"{number}/{instance.id}/{index}"] = time.time()
        await asyncio.sleep(max(0.0, began + (count + 1) / plan.per_second - time.monotonic()))
    return commits, kills


async def _start(url: str, *, wait: bool = True) -> asyncio.subprocess.Process:
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.groups.webhooks", url, stdout=asyncio.subprocess.PIPE
    )
    if wait and worker.stdout is not None:
        await asyncio.wait_for(worker.stdout.readline(), 30)
    return worker


async def _kill(worker: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        worker.kill()
    await worker.communicate()


def _engine(database: Database, url: str) -> PostgresqlEngine:
    presence = Presence(coordination.note_worker, coordination.worker_seen_at)
    return PostgresqlEngine(database, url, SystemClock(), Ids(), presence=presence)


async def work(url: str) -> None:
    """Deliver webhooks until killed, like a worker process."""
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    clock, ids = SystemClock(), Ids()
    database = await open_database(url, clock)
    engine = _engine(database, url)
    sender = Sender(AddressGuard(allow_private=True), clock)
    recorder = Recorder(clock, ids, Outbox(clock, ids, engine))
    vault = Vault(b"a secret of at least thirty-two bytes")
    deliverer = Deliverer(database, clock, ids, engine, recorder, vault, sender, secrets=[SECRET])
    deliverer.register()
    await engine.start()
    print("working", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))
