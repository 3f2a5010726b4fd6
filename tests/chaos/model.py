# SPDX-License-Identifier: Apache-2.0
"""The model: thousands of lives in virtual time, on several processors, and their table."""

from __future__ import annotations

import asyncio
import logging
import math
import multiprocessing
import random
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from novitai.crash_points import CrashPoint
from novitai.store import migrate
from novitai.testing import ManualClock
from tests.chaos.cases import GROUPS, Case, Group, choose
from tests.chaos.inline_store import InlineStore
from tests.chaos.life import Result, live


@dataclass
class Lived:
    """The results of the lives of one group, without their stories unless they failed."""

    results: list[Result] = field(default_factory=list)
    cpu: float = 0.0


async def live_group(
    store: InlineStore, folder: Path, group: Group, numbers: Sequence[int]
) -> list[Result]:
    """Live a group: first without a crash, then the cases with these numbers."""
    plain = await live(store, folder, choose(group, 0, {}))
    results = [plain] if 0 in numbers else []
    if plain.violations:
        return results or [plain]
    crashes = [choose(group, number, plain.reached) for number in numbers if number]
    return results + [await live(store, folder, case) for case in crashes]


def run_groups(
    wanted: Sequence[tuple[Group, Sequence[int]]], *, folder: Path, url: str | None = None
) -> Iterator[Lived]:
    """Live groups in this process, on a new SQLite file or on the database at `url`."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    place = url or f"sqlite:///{folder / 'chaos.db'}"
    migrate.upgrade(place, ManualClock())
    with asyncio.Runner() as runner:
        store = runner.run(InlineStore.open(place, ManualClock()))
        try:
            for group, numbers in wanted:
                began = time.process_time()
                results = runner.run(live_group(store, folder, group, numbers))
                yield Lived(results, time.process_time() - began)
        finally:
            runner.run(store.close())


def plan(runs: int) -> list[tuple[Group, Sequence[int]]]:
    """Spread a number of runs over all groups; a life of several processes takes longest."""
    each = math.ceil(runs * 2 / 3 / len(GROUPS))
    return [(group, range(each if group.workers > 1 else 2 * each)) for group in GROUPS]


def find(name: str) -> tuple[Group, Sequence[int]]:
    """Return the group and the number of a case that a run has named."""
    index, _, number = name.partition("-")
    return GROUPS[int(index)], [int(number)]


def _part(wanted: tuple[Group, Sequence[int]]) -> list[Lived]:
    folder = Path(tempfile.mkdtemp(prefix="novitai-chaos-"))
    try:
        return list(run_groups([wanted], folder=folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_everywhere(
    wanted: Sequence[tuple[Group, Sequence[int]]],
    *,
    processors: int,
    seconds: float,
    tell: Callable[[str], None],
) -> tuple[list[Result], float]:
    """Live groups on several processors; return the results and the processor seconds.

    After `seconds`, no more groups are begun.
    """
    until = time.monotonic() + seconds
    # So that a run that ends early has met every verb, fault and crash point.
    shuffled = random.Random(0).sample(wanted, len(wanted))
    results: list[Result] = []
    cpu = 0.0
    # Not forked: threads of the test run must not be copied in the middle of their work.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processors, mp_context=context) as pool:
        begun = [pool.submit(_part, group) for group in shuffled]
        for done in as_completed(begun):
            if time.monotonic() > until:
                for waiting in begun:
                    waiting.cancel()
            if done.cancelled():
                continue
            for one in done.result():
                results += one.results
                cpu += one.cpu
                if text := broken(one.results):
                    tell(text)
            tell(f"{len(results)} runs, {cpu:.0f} s of processor time")
    return results, cpu


def table(results: Sequence[Result]) -> str:
    """Render what was run and found."""
    blocks: list[tuple[str, Callable[[Case], str]]] = [
        ("verb", lambda case: case.group.act.value),
        ("workers", lambda case: str(case.group.workers)),
        ("fault", lambda case: case.group.fault.name),
        ("crash point", lambda case: case.point.value if case.point else "(none)"),
        ("crash", lambda case: case.lot.value if case.point else "(none)"),
    ]
    lines = []
    for title, of in blocks:
        rows: dict[str, list[Result]] = defaultdict(list)
        for result in results:
            rows[of(result.case)].append(result)
        lines.append(
            f"{title:28} {'runs':>6} {'crashed':>8} {'broken':>7} {'rest p50':>9} {'max':>6}"
        )
        lines += [*(_row(name, rows[name]) for name in sorted(rows)), ""]
    missing = sorted(set(CrashPoint) - {point for one in results for point, _ in one.reached})
    lines.append(_row("all", results))
    lines.append(f"crash points that no life reached: {', '.join(missing) or 'none'}")
    return "\n".join(lines)


def _row(name: str, results: Sequence[Result]) -> str:
    crashed = [one.recovered for one in results if one.crashed and not one.violations] or [0.0]
    bad = sum(bool(one.violations) for one in results)
    return (
        f"{name:28} {len(results):6} {sum(one.crashed for one in results):8} {bad:7} "
        f"{statistics.median(crashed):8.0f}s {max(crashed):5.0f}s"
    )


def broken(results: Sequence[Result]) -> str:
    """Render the broken promises, each with the name that repeats it."""
    lines = []
    for one in results:
        if one.violations:
            lines += [str(one.case), *(f"    {text}" for text in one.violations)]
            lines += [f"        {text[:300]}" for text in one.story]
    return "\n".join(lines)
