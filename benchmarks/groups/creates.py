# SPDX-License-Identifier: Apache-2.0
"""Durable creates per second on both stores, and a thousand creates at once on PostgreSQL.

The yardstick of the first is the store's own one-row commits, that of the second what the upstream
limiter allows.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Final

import orjson

from benchmarks.bench import Bench
from benchmarks.load import Load, Requests, send
from benchmarks.machine import BenchmarkFailed, on_core
from benchmarks.processes import House, Process, call
from benchmarks.report import Goal, Line, against, at_least, at_most
from benchmarks.rounds import Sample, Target, compared, measure
from benchmarks.stores import POSTGRESQL, Store, postgresql, sqlite

GROUP: Final = "creates"
_LONGER: Final = 2
"""A measurement of creates lasts this many times as long as one of reads."""
_BOOT: Final = 2.0
_WORKERS: Final = 2
_SHARE_OF_BURST: Final = 5
_POLL: Final = 0.25


def creating() -> Requests:
    """Return creates, each with its own name."""
    numbers = itertools.count()
    body = {
        "productName": "gpu-basic",
        "templateId": "tmpl-12345",
        "gpuNum": 1,
        "rootfsSize": 60,
        "region": "US-WEST-01",
    }

    def requests() -> Iterator[bytes]:
        for number in numbers:
            whole = orjson.dumps({"name": f"burst-{number}", **body})
            yield send("POST", "/api/instances", whole)

    return requests


def run(bench: Bench) -> Iterator[Line]:
    """Measure creates on both stores, then the burst."""
    with bench.house() as house, sqlite(house) as store:
        house.emulator(core=bench.load_core)
        server = house.novitai("serve", core=bench.server_core, env=store.env)
        yield _durable(bench, house, store, server, at_least(0.40))
    if not bench.has_postgresql():
        return
    with bench.house() as house:
        store = house.stack.enter_context(postgresql(house))
        house.emulator(core=bench.load_core)
        server = house.novitai("api", core=bench.server_core, env=store.env)
        yield _durable(bench, house, store, server, at_least(0.30))
    with bench.house() as house:
        store = house.stack.enter_context(postgresql(house))
        yield _burst(bench, house, store)


def _durable(bench: Bench, house: House, store: Store, server: Process, goal: Goal) -> Line:
    target = Target([server], creating(), status=201)
    ours: list[Sample] = []
    commits: list[Sample] = []
    seconds = bench.scale.seconds * _LONGER
    with on_core(bench.load_core):
        for _ in range(bench.scale.rounds + 1):
            ours.append(asyncio.run(measure(target, bench.scale, seconds=seconds)))
            commits.append(Sample(_commits(bench, house, store, server, seconds), 0.0))
    # The first round warms up.
    return compared(GROUP, "creates, durable", store.name, ours[1:], commits[1:], goal)


def _commits(bench: Bench, house: House, store: Store, server: Process, seconds: float) -> float:
    """Measure the yardstick while the server, which goes on with what it accepted, is paused."""
    command = [sys.executable, "-m", "benchmarks.commits", store.url]
    command += [str(bench.scale.connections), str(seconds)]
    server.seen.suspend()
    try:
        with on_core(bench.server_core):
            done = subprocess.run(
                command,
                env=house.env,
                cwd=house.folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds + 60,
            )
    finally:
        server.seen.resume()
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise BenchmarkFailed(f"the yardstick of {store.name} failed: {said[-1]}")
    return float(done.stdout)


def _burst(bench: Bench, house: House, store: Store) -> Line:
    """Create many instances at once and wait until all run."""
    scale = bench.scale
    emulator = house.emulator(core=None)
    names = call(emulator.url, "GET", "/_emulator/settings")[1]["delays"]
    delays = {name: [_BOOT, _BOOT] if name == "boot" else [0, 0] for name in names}
    call(emulator.url, "PATCH", "/_emulator/settings", {"delays": delays})
    env = {**store.env, "NOVITAI_UPSTREAM_CALLS_PER_MINUTE": str(scale.calls_per_minute)}
    api = house.novitai("api", core=None, env=env)
    for _ in range(_WORKERS):
        house.novitai("worker", core=None, env=env)
    began = time.perf_counter()
    asyncio.run(_send_all(api.url, scale.burst, scale.connections))
    running = 0
    while running < scale.burst and time.perf_counter() < began + scale.burst_seconds:
        time.sleep(_POLL)
        running = call(api.url, "GET", "/api/instances?status=running&limit=1")[1]["total"]
    seconds = time.perf_counter() - began
    if running < scale.burst:
        bench.note(f"creates: only {running} of {scale.burst} instances run after {seconds:.0f} s")
    measured = f"{scale.burst:,} creates at once, all running"
    allowed = allowed_seconds(scale.burst, scale.calls_per_minute)
    return against(GROUP, measured, POSTGRESQL, seconds, allowed, "s", at_most(2))


async def _send_all(url: str, many: int, connections: int) -> None:
    async with Load([url], min(many, connections)) as load:
        await load.run(creating(), status=201, least=many, most=many)


def allowed_seconds(creates: int, calls_per_minute: int) -> float:
    """Return the seconds in which the workers' limiters let through one call per create.

    Each worker may send a fifth of its calls per minute at once, and the others at the rate at
    which no period of 60 s has more than its calls per minute. The boot comes on top.
    """
    burst = max(1, calls_per_minute // _SHARE_OF_BURST)
    interval = 60.0 / (calls_per_minute - burst + 1)
    return max(0.0, creates / _WORKERS - burst) * interval + _BOOT
