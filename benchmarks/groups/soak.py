# SPDX-License-Identifier: Apache-2.0
"""What takes too long for every run: lists of a long table, and memory after many requests."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from typing import Final

from benchmarks.bench import Bench
from benchmarks.groups.creates import creating
from benchmarks.load import Load, Requests, get
from benchmarks.machine import on_core
from benchmarks.processes import House, Process
from benchmarks.report import Line, at_least, at_most
from benchmarks.rounds import Target, compared, interleave
from benchmarks.stores import POSTGRESQL, SQLITE, Store, fill, postgresql, seed, sqlite

GROUP: Final = "soak"
_TIMES: Final = 10
"""The long table has this many times as many instances as the idle server."""
_STEPS: Final = 20
"""Memory is read after each of these parts; the first, 5 %, is the reference."""
_NOWHERE: Final = "http://127.0.0.1:1"
_WITHIN: Final = 1_800.0
"""Seconds for the requests of one memory measure; it ends early when they are over."""


def run(bench: Bench) -> Iterator[Line]:
    """Measure both on each store."""
    names = [SQLITE, POSTGRESQL] if bench.has_postgresql() else [SQLITE]
    for name in names:
        yield _long_table(bench, name)
    for name in names:
        yield from _memory(bench, name)


def _served(
    bench: Bench, house: House, name: str, instances: int, *, listed: bool
) -> tuple[Process, list[str]]:
    """Start a server on a new store with this many instances; return it and their IDs.

    Unless `listed`, no emulator runs: the first listing of a large account, which writes what was
    observed of each instance, would go on during the measurement.
    """
    if listed:
        upstream = seed(house.emulator(core=bench.load_core).url, instances)
    else:
        house.env["NOVITAI_UPSTREAM_URL"] = _NOWHERE
        upstream = [f"{number:016x}" for number in range(instances)]
    store: Store
    if name == SQLITE:
        store = house.stack.enter_context(sqlite(house, f"with-{instances}"))
    else:
        store = house.stack.enter_context(postgresql(house))
    ids = fill(store, upstream)
    command = "serve" if name == SQLITE else "api"
    return house.novitai(command, core=bench.server_core, env=store.env), ids


def _long_table(bench: Bench, name: str) -> Line:
    scale = bench.scale
    path = f"/api/instances?limit={scale.listed}"
    counts = scale.instances, _TIMES * scale.crowd
    with bench.house() as house:
        targets = [
            Target(
                [_served(bench, house, name, count, listed=False)[0]],
                lambda: itertools.repeat(get(path)),
            )
            for count in counts
        ]
        with on_core(bench.load_core):
            short, long = asyncio.run(interleave(targets, scale))
    measure = f"list of {scale.listed}: {counts[1]:,} instances ÷ {counts[0]:,}"
    return compared(GROUP, measure, name, long, short, at_least(0.9))


def _memory(bench: Bench, name: str) -> Iterator[Line]:
    scale = bench.scale
    with bench.house() as house, on_core(bench.load_core):
        server, ids = _served(bench, house, name, scale.instances, listed=True)
        one = [get(f"/api/instances/{each}") for each in ids]
        mixed = itertools.cycle([*one, get(f"/api/instances?limit={scale.listed}")])
        for what, requests, many, status in (
            ("GETs", lambda: mixed, scale.gets, 200),
            ("creates", creating(), scale.creates, 201),
        ):
            growth, sent = asyncio.run(_growth(bench, server, requests, many, status))
            measure = f"memory after {sent:,} {what}, over the first 5 %"
            yield Line(GROUP, measure, name, growth, "MB", goal=at_most(10))
            if sent < many:
                bench.note(f"soak: {sent:,} of {many:,} {what} on {name} within {_WITHIN:.0f} s")


async def _growth(
    bench: Bench, server: Process, requests: Requests, many: int, status: int
) -> tuple[float, int]:
    """Send requests; return by how much memory grew after the first part, and the number sent."""
    part = many // _STEPS
    memory: list[float] = []
    began = time.perf_counter()
    async with Load([server.url], bench.scale.connections) as load:
        while len(memory) < _STEPS and time.perf_counter() < began + _WITHIN:
            await load.run(requests, status=status, least=part, most=part, within=_WITHIN)
            memory.append(server.rss())
    return max(memory) - memory[0], part * len(memory)
