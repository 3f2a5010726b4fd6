# SPDX-License-Identifier: Apache-2.0
"""The duration of `stop-all` for 10,000 running instances, in one transaction.

The yardstick is reading the same instances once, in bulk.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.groups.sync import fill
from benchmarks.report import Line, against
from benchmarks.stores import SQLITE
from novitai.clock import SystemClock
from novitai.domain.actor import Actor
from novitai.ids import Ids
from novitai.jobs.embedded import EmbeddedEngine
from novitai.lifecycle.commands.idempotency import Commands
from novitai.lifecycle.commands.instance_actions import InstanceActions
from novitai.lifecycle.core import Core
from novitai.lifecycle.events.outbox import Outbox
from novitai.lifecycle.events.recorder import Recorder
from novitai.lifecycle.limits.reviews import LimitReviews
from novitai.lifecycle.operations.follow_ups import FollowUps
from novitai.settings import FailedInstancePolicy
from novitai.store.opening import open_database
from novitai.store.queries import instances
from novitai.store.vault import Vault


def run(bench: Bench) -> Iterator[Line]:
    """Measure `stop-all` once per round, each time in a new database."""
    many = bench.scale.account
    rounds = []
    for _ in range(bench.scale.few_rounds):
        with bench.house() as house:
            rounds.append(asyncio.run(_measure(house.folder, many)))
    stopping, reading = (statistics.median(each[place] for each in rounds) for place in range(2))
    measure = f"stop-all of {many:,} instances"
    yield against("operating", measure, SQLITE, stopping, reading, "ms", rounds=len(rounds))


async def _measure(folder: Path, many: int) -> tuple[float, float]:
    clock, ids = SystemClock(), Ids()
    database = await open_database(f"sqlite:///{folder / 'novitai.db'}", clock)
    try:
        await database.write(partial(fill, many=many))
        engine = EmbeddedEngine(database, clock, ids)
        vault = Vault(b"a secret for the benchmark alone")
        recorder = Recorder(clock, ids, Outbox(clock, ids, engine))
        core = Core(database, vault, clock, ids, engine, recorder)
        follow_ups = FollowUps(core, FailedInstancePolicy.STOP)
        operating = InstanceActions(core, follow_ups, LimitReviews(core, follow_ups))
        began = time.perf_counter()
        await database.read(lambda c: instances.load_many(c, instances.live_ids(c)))
        reading = time.perf_counter() - began
        began = time.perf_counter()
        stop_all = operating.stop_all(actor=Actor("key_bench", "benchmark"))
        done = await Commands(database, clock).apply(stop_all)
        stopping = time.perf_counter() - began
    finally:
        await database.close()
    if len(done.accepted) != many:
        raise RuntimeError(f"{len(done.skipped)} instances were not stopped")
    return stopping * 1000, reading * 1000
