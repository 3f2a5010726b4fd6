# SPDX-License-Identifier: Apache-2.0
"""Reads over real sockets: one instance, lists, conditional reads, at rest and under updates.

The yardstick is a bare Starlette route that encodes the same object (`benchmarks/yardstick.py`), on
the same core in the same rounds.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks import peers
from benchmarks.bench import Bench
from benchmarks.load import Requests, get, send, updating
from benchmarks.machine import on_core
from benchmarks.processes import House, Process, call, list_account
from benchmarks.report import Goal, Line, at_least
from benchmarks.rounds import Target, compared, interleave
from benchmarks.stores import POSTGRESQL, SQLITE, fill, postgresql, seed, sqlite

GROUP: Final = "reads"
_TWO: Final = f"{POSTGRESQL} × 2"
_TWO_SHARE: Final = 0.8
"""The share of a goal that two API processes on PostgreSQL have to reach."""
_PEER: Final = "FastAPI + ORM"
_LISTENING: Final = r"listening on (http://\S+)\n"
_LARGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Measure:
    """Paths that are read in turn, and the goal."""

    name: str
    paths: Sequence[str]
    goal: float
    updated: bool = False
    large: bool = False
    by_peer: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """A store and the processes that serve it."""

    store: str
    servers: Sequence[Process]
    writer: Process
    """Takes the updates: the server itself on SQLite, another process on PostgreSQL."""
    share: float = 1.0
    """The share of each goal that it has to reach."""


def run(bench: Bench) -> Iterator[Line]:
    """Measure all reads on both stores."""
    with bench.house() as house:
        emulator = house.emulator(core=bench.load_core)
        upstream = seed(emulator.url, bench.scale.instances)
        served: list[Served] = []
        store = house.stack.enter_context(sqlite(house))
        ids = fill(store, upstream)
        copy = house.folder / "copy.db"
        shutil.copyfile(house.folder / "novitai.db", copy)
        one = house.novitai("serve", core=bench.server_core, env=store.env)
        list_account(one)  # what it writes of each instance must not be counted
        served.append(Served(SQLITE, [one], one))
        if bench.has_postgresql():
            store = house.stack.enter_context(postgresql(house))
            fill(store, upstream)
            first, second = (
                house.novitai("api", core=bench.server_core, env=store.env) for _ in range(2)
            )
            writer = house.novitai("api", core=bench.load_core, env=store.env)
            served.append(Served(POSTGRESQL, [first], writer))
            served.append(Served(_TWO, [first, second], writer, _TWO_SHARE))
        measures = _measures(bench, ids, one.url)
        bare = _yardstick(bench, house, measures, one.url)
        peer = _peer(bench, house, copy)
        with on_core(bench.load_core):
            for measure in measures:
                yield from _compare(bench, measure, served, bare, peer, ids)
            yield from _conditional(bench, served, ids)


def _measures(bench: Bench, ids: Sequence[str], url: str) -> list[Measure]:
    """Return what is measured; the cursors are those of the server."""
    listed = bench.scale.listed
    small, large = f"/api/instances?limit={listed}", f"/api/instances?limit={_LARGE}"
    one = [f"/api/instances/{ids[0]}"]
    each = [f"/api/instances/{instance_id}" for instance_id in ids]
    random.Random(1).shuffle(each)
    many = f"one instance of {len(ids):,} in turn"
    pages = _pages(bench, ids, url)
    rate = f"{bench.scale.updates} updates/s"
    return [
        Measure("one instance", one, 0.50, by_peer=True),
        Measure(many, each, 0.45),
        Measure(f"{many}, {rate}", each, 0.40, updated=True),
        Measure(f"list of {listed}", [small], 0.70, by_peer=True),
        Measure(f"list of {listed}, {len(pages)} queries in turn", pages, 0.40),
        Measure(f"list of {listed}, {rate}", [small], 0.50, updated=True),
        Measure(f"list of {_LARGE:,}", [large], 0.60, large=True, by_peer=True),
    ]


def _pages(bench: Bench, ids: Sequence[str], url: str) -> list[str]:
    """Return different queries that each have a full page: filters, cursors, and both."""
    wanted = bench.scale.queries
    filters = ("", "&status=running", "&region=US-WEST-01", "&status=running&region=US-WEST-01")
    found = []
    step = max(1, (len(ids) - bench.scale.listed) // wanted)
    for number, chosen in zip(range(wanted), itertools.cycle(filters), strict=False):
        query = f"limit={bench.scale.listed}{chosen}"
        if number >= len(filters):
            skipped = call(url, "GET", f"/api/instances?limit={number * step}")[1]
            query += f"&cursor={skipped['nextCursor']}"
        found.append(f"/api/instances?{query}")
    return found


def _yardstick(bench: Bench, house: House, measures: Sequence[Measure], url: str) -> Process:
    """Start the yardstick with the bodies that the server answers."""
    paths = dict.fromkeys(path for measure in measures for path in measure.paths)
    bodies: dict[str, Any] = {path: call(url, "GET", path)[1] for path in paths}
    file = house.folder / "bodies.json"
    file.write_bytes(orjson.dumps(bodies))
    command = [sys.executable, "-m", "benchmarks.yardstick", str(file)]
    return house.run("the yardstick", command, says=_LISTENING, core=bench.server_core)


def _peer(bench: Bench, house: House, copy: Path) -> Process | None:
    if not peers.is_installed():
        bench.note(
            "FastAPI skipped: not installed; make bench installs it (dependency group bench)"
        )
        return None
    command = [sys.executable, "-m", "benchmarks.peers", str(copy)]
    return house.run("the FastAPI peer", command, says=_LISTENING, core=bench.server_core)


def _compare(
    bench: Bench,
    measure: Measure,
    served: Sequence[Served],
    bare: Process,
    peer: Process | None,
    ids: Sequence[str],
) -> Iterator[Line]:
    requests = _in_turn([get(path) for path in measure.paths])
    targets = [Target([bare], requests, few=measure.large)]
    for each in served:
        during = partial(_writing, bench, each.writer, ids) if measure.updated else nullcontext
        targets.append(Target(each.servers, requests, few=measure.large, during=during))
    if peer is not None and measure.by_peer:
        targets.append(Target([peer], requests, few=measure.large))
    yardstick, *ours = asyncio.run(interleave(targets, bench.scale))
    for each, samples in zip(served, ours, strict=False):
        goal = at_least(round(measure.goal * each.share, 3))
        yield compared(GROUP, measure.name, each.store, samples, yardstick, goal)
    if len(ours) > len(served):
        yield compared(GROUP, f"{_PEER}: {measure.name}", SQLITE, ours[-1], yardstick, None)


def _conditional(bench: Bench, served: Sequence[Served], ids: Sequence[str]) -> Iterator[Line]:
    """Compare a 304 with a 200 of the same instance from the same servers."""
    path = f"/api/instances/{ids[0]}"
    targets = []
    for each in served:
        tag = call(each.servers[0].url, "GET", path)[0]["ETag"]
        targets.append(Target(each.servers, _in_turn([get(path)])))
        unchanged = _in_turn([get(path, **{"If-None-Match": tag})])
        targets.append(Target(each.servers, unchanged, status=304))
    samples = asyncio.run(interleave(targets, bench.scale))
    goal: Goal = at_least(1)
    for number, each in enumerate(served):
        whole, unchanged_ones = samples[2 * number : 2 * number + 2]
        yield compared(GROUP, "a 304 against a 200", each.store, unchanged_ones, whole, goal)


def _writing(
    bench: Bench, writer: Process, ids: Sequence[str]
) -> AbstractAsyncContextManager[None]:
    """Update rows while the block runs, one after the other in random order."""
    order = random.Random(2).sample(list(ids), len(ids))
    puts = [send("PUT", f"/api/instances/{each}/last-used", b"{}") for each in order]
    return updating(writer.url, _in_turn(puts), bench.scale.updates)


def _in_turn(requests: Sequence[bytes]) -> Requests:
    """Return a function that goes on with the series where the last measurement ended."""
    series = itertools.cycle(requests)
    taken: Callable[[], Iterator[bytes]] = lambda: series  # noqa: E731 - named for its type
    return taken
