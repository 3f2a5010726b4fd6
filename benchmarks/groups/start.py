# SPDX-License-Identifier: Apache-2.0
"""First start of a server, and a server with many idle instances. The figures are absolute."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final

from benchmarks.bench import Bench
from benchmarks.machine import BenchmarkFailed
from benchmarks.processes import House, Process, call, list_account
from benchmarks.report import Line, at_most
from benchmarks.stores import POSTGRESQL, SQLITE, Store, fill, postgresql, seed, sqlite

GROUP: Final = "start"
_REST: Final = 1.0
"""Seconds from the first response to the reading of the memory."""


def run(bench: Bench) -> Iterator[Line]:
    """Measure first starts, then idle servers on both stores side by side."""
    yield from _starts(bench, SQLITE)
    if bench.has_postgresql():
        yield from _starts(bench, POSTGRESQL)
    yield from _idle(bench)


def _starts(bench: Bench, store: str) -> Iterator[Line]:
    """Start on an empty folder on SQLite, on a migrated and empty database on PostgreSQL."""
    found = []
    for _ in range(bench.scale.rounds):
        with bench.house() as house:
            env = {}
            if store == POSTGRESQL:
                env = house.stack.enter_context(postgresql(house)).env
            found.append(_start(house, env))
    seconds, cpu, memory = (statistics.median(each[place] for each in found) for place in range(3))
    rounds = len(found)
    measure = "first start" if store == SQLITE else "start on an empty database"
    time_goal, memory_goal = at_most(2.0), at_most(105)
    yield Line(GROUP, f"{measure}: memory", store, memory, "MB", goal=memory_goal, rounds=rounds)
    ready = f"{measure}: to 200 on /health"
    yield Line(GROUP, ready, store, seconds, "s", goal=time_goal, rounds=rounds)
    yield Line(GROUP, f"{measure}: CPU time", store, cpu, "s", rounds=rounds)


def _start(house: House, env: dict[str, str]) -> tuple[float, float, float]:
    """Return seconds and CPU time to the first response, and the memory a little later."""
    began = time.perf_counter()
    server = house.novitai("serve", core=None, env=env)
    call(server.url, "GET", "/health")
    seconds = time.perf_counter() - began
    cpu = server.cpu()
    time.sleep(_REST)
    return seconds, cpu, server.rss()


def _idle(bench: Bench) -> Iterator[Line]:
    """Watch an empty server and one with many instances, at the same time."""
    scale = bench.scale
    with bench.house() as house:
        stores: list[Callable[[House, str], AbstractContextManager[Store]]] = [sqlite]
        if bench.has_postgresql():
            stores.append(lambda house, _name: postgresql(house))
        full: list[tuple[Store, Process]] = []
        empty: list[Process] = []
        emulator = house.emulator(core=None)
        upstream = seed(emulator.url, scale.crowd)
        for make in stores:
            store = house.stack.enter_context(make(house, "full"))
            fill(store, upstream)
            # The first listing writes what was observed of each instance; later ones change
            # nothing. A fleet at rest has only the later ones.
            server = house.novitai("serve", core=None, env=store.env)
            list_account(server)
            server.end()
            full.append((store, house.novitai("serve", core=None, env=store.env)))
        house.emulator(core=None)
        for make in stores:
            store = house.stack.enter_context(make(house, "empty"))
            empty.append(house.novitai("serve", core=None, env=store.env))
        # The same requests to both, because the first of each kind loads code.
        for server in [*(server for _, server in full), *empty]:
            list_account(server)
        time.sleep(scale.settle)
        before = [server.cpu() for _, server in full]
        began = time.perf_counter()
        time.sleep(scale.idle)
        seconds = time.perf_counter() - began
        for (store, server), cpu, other in zip(full, before, empty, strict=True):
            share = 100 * (server.cpu() - cpu) / seconds
            over = server.rss() - other.rss()
            _still_running(server, scale.crowd)
            measure = f"{scale.crowd:,} instances idle"
            yield Line(GROUP, f"{measure}: CPU", store.name, share, "%", goal=at_most(2))
            measure = f"{measure}: memory over empty"
            yield Line(GROUP, measure, store.name, over, "MB", goal=at_most(25))


def _still_running(server: Process, many: int) -> None:
    running = call(server.url, "GET", "/api/instances?status=running&limit=1")[1]["total"]
    if running != many:
        raise BenchmarkFailed(f"{many - running} of {many} idle instances do not run any more")
