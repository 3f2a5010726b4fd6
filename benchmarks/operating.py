# SPDX-License-Identifier: Apache-2.0
"""The duration of `stop-all` for 10,000 running instances, in one transaction.

The yardstick is reading the same instances once, in bulk.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from benchmarks.report import Result
from benchmarks.sync import INSTANCES, fill
from novitai.clock import SystemClock
from novitai.ids import Ids
from novitai.jobs.embedded import EmbeddedEngine
from novitai.lifecycle.commands.idempotency import Commands
from novitai.lifecycle.commands.instance_actions import InstanceActions
from novitai.lifecycle.core import Core
from novitai.lifecycle.events.outbox import Outbox
from novitai.lifecycle.events.recorder import Recorder
from novitai.lifecycle.operations.follow_ups import FollowUps
from novitai.settings import FailedInstancePolicy
from novitai.store.opening import open_database
from novitai.store.queries import instances
from novitai.store.vault import Vault


def run() -> list[Result]:
    """Measure one `stop-all`."""
    with tempfile.TemporaryDirectory() as folder:
        stopping, reading = asyncio.run(_measure(Path(folder)))
    return [Result(f"operating: stop-all of {INSTANCES} instances", stopping, reading, "ms")]


async def _measure(folder: Path) -> tuple[float, float]:
    clock, ids = SystemClock(), Ids()
    database = await open_database(f"sqlite:///{folder / 'novitai.db'}", clock)
    try:
        await database.write(fill)
        engine = EmbeddedEngine(database, clock, ids)
        vault = Vault(b"a secret for the benchmark alone")
        recorder = Recorder(clock, ids, Outbox(clock, ids, engine))
        core = Core(database, vault, clock, ids, engine, recorder)
        operating = InstanceActions(core, FollowUps(core, FailedInstancePolicy.STOP))
        began = time.perf_counter()
        await database.read(lambda c: instances.load_many(c, instances.live_ids(c)))
        reading = time.perf_counter() - began
        began = time.perf_counter()
        done = await Commands(database, clock).apply(operating.stop_all())
        stopping = time.perf_counter() - began
    finally:
        await database.close()
    if len(done.accepted) != INSTANCES:
        raise RuntimeError(f"{len(done.skipped)} instances were not stopped")
    return stopping * 1000, reading * 1000
