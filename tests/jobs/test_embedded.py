# SPDX-License-Identifier: Apache-2.0
"""Promises of the embedded engine alone, in virtual time."""

from __future__ import annotations

import asyncio
import gc
import itertools
import tracemalloc
from typing import TYPE_CHECKING

from novitai.ids import Ids
from novitai.jobs.dispatcher import Dispatcher
from novitai.jobs.embedded import EmbeddedEngine
from novitai.jobs.metrics import JobMetrics
from novitai.jobs.port import JobType
from novitai.testing import ManualClock

if TYPE_CHECKING:
    from tests.jobs.rig import Rig


async def test_a_million_nudges_leave_memory_flat(embedded: Rig) -> None:
    """Memory stays bounded after a million nudges of a few keys or of different keys."""
    clock = ManualClock()
    dispatcher = Dispatcher(clock, Ids(), JobMetrics(clock))

    async def hang(key: str) -> None:
        await asyncio.Event().wait()

    dispatcher.register(JobType("x", hang, embedded.due_of("x"), 2))
    dispatcher.start()
    for number in range(20_000):
        dispatcher.offer("x", f"op_{number}")
    few = [f"op_{number}" for number in range(100)]
    many = [f"op_{number}" for number in range(50_000)]
    gc.collect()
    tracemalloc.start()
    for turn in range(500_000):
        dispatcher.offer("x", few[turn % len(few)])
        dispatcher.offer("x", many[turn % len(many)])
    gc.collect()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await dispatcher.stop(0)

    assert grown < 100_000


async def test_what_does_not_fit_is_left_to_the_sweep(embedded: Rig) -> None:
    """Keys beyond the capacity run as soon as there is room, before the next interval."""
    embedded.replace(
        EmbeddedEngine(embedded.database, embedded.clock, Ids(), sweep_interval=10, capacity=10)
    )
    embedded.register("x", concurrency=1)
    keys = [f"op_{number}" for number in range(100)]
    await embedded.due("x", *keys)
    await embedded.start()
    await embedded.nudge("x", *keys)

    await embedded.advance(9.5)

    assert sorted(embedded.runs) == sorted(("x", key) for key in keys)


async def test_a_long_backlog_does_not_wait_out_the_interval(embedded: Rig) -> None:
    """More due rows than one page are run without waiting for the interval between pages."""
    embedded.rebuild(10)
    embedded.register("x", concurrency=8)
    await embedded.due("x", *(f"op_{number}" for number in range(3_500)))
    await embedded.start()

    await embedded.until(lambda: len(embedded.runs) >= 3_500)

    assert embedded.clock.monotonic() < 10


async def test_broken_rows_do_not_hide_good_ones(embedded: Rig) -> None:
    """A row runs even if many rows that always fail have been due for longer."""
    good: list[str] = []

    async def handler(key: str) -> None:
        if key != "op_good":
            raise ArithmeticError(key)
        good.append(key)
        await embedded.done("x", key)

    embedded.register("x", handler)
    await embedded.due("x", *(f"op_{number}" for number in range(1_500)))
    await embedded.advance(1)
    await embedded.due("x", "op_good")
    await embedded.start()

    await embedded.until(lambda: good == ["op_good"])


async def test_a_row_that_always_fails_is_tried_ever_more_rarely(embedded: Rig) -> None:
    """The pause after each failure doubles up to one minute."""
    tries: list[int] = []

    async def handler(key: str) -> None:
        tries.append(embedded.clock.now())
        raise ArithmeticError(key)

    embedded.register("x", handler)
    await embedded.due("x", "op_1")
    await embedded.start()

    await embedded.advance(300)

    pauses = [(after - before) / 1000 for before, after in itertools.pairwise(tries)]
    assert 8 <= len(tries) <= 12
    assert pauses[0] < 1.5
    assert max(pauses) <= 60.5


async def test_a_handler_that_nudges_itself_and_fails_does_not_spin(embedded: Rig) -> None:
    """A key whose handler nudges it and then raises runs about once a second."""
    tries: list[str] = []

    async def handler(key: str) -> None:
        tries.append(key)
        await embedded.nudge("x", key)
        raise ArithmeticError(key)

    embedded.register("x", handler)
    await embedded.start()
    await embedded.nudge("x", "op_1")

    await embedded.advance(20)

    assert 10 <= len(tries) <= 22


async def test_a_database_that_goes_away_ends_nothing(embedded: Rig) -> None:
    """While the sweep fails, `last_seen` does not advance; when it succeeds, work continues."""
    embedded.register("x")
    await embedded.start()
    await embedded.advance(1)
    embedded.database.broken = True
    await embedded.advance(60)
    assert embedded.clock.now() - await embedded.engine.last_seen() > 59_000

    embedded.database.broken = False
    await embedded.due("x", "op_1")
    await embedded.advance(1)

    assert embedded.runs == [("x", "op_1")]
    assert embedded.clock.now() - await embedded.engine.last_seen() < 1_000


async def test_a_failed_key_waits_no_longer_after_the_clock_is_set_back(embedded: Rig) -> None:
    """The pause of a failed key is a duration: the time of day does not change it."""
    tries: list[str] = []

    async def handler(key: str) -> None:
        tries.append(key)
        if len(tries) == 1:
            raise ArithmeticError(key)
        await embedded.done("x", key)

    embedded.register("x", handler)
    await embedded.start()
    await embedded.due("x", "op_1")
    await embedded.advance(0.3)
    assert tries == ["op_1"]

    assert isinstance(embedded.clock, ManualClock)
    embedded.clock.jump(-86_400)
    await embedded.done("x", "op_1")
    await embedded.due("x", "op_1")
    await embedded.advance(2)

    assert tries == ["op_1", "op_1"]


async def test_a_success_wipes_the_slate_clean(embedded: Rig) -> None:
    """After a successful run, the next failure starts with the first pause again."""
    tries: list[int] = []

    async def handler(key: str) -> None:
        tries.append(embedded.clock.now())
        if len(tries) != 3:
            raise ArithmeticError(key)

    embedded.register("x", handler)
    await embedded.due("x", "op_1")
    await embedded.start()

    await embedded.until(lambda: len(tries) == 5)

    assert tries[2] - tries[1] > 1_700
    assert tries[4] - tries[3] < 1_500


async def test_the_latest_hint_counts(embedded: Rig) -> None:
    """The time that a run returns replaces the time of an earlier run."""
    start = embedded.clock.now()
    hints = iter([start + 5_000, start + 2_000, start + 8_000, None])
    times: list[int] = []

    async def handler(key: str) -> int | None:
        times.append(embedded.clock.now() - start)
        return next(hints)

    embedded.rebuild(3600)
    embedded.register("x", handler)
    await embedded.start()
    await embedded.nudge("x", "op_1")
    await embedded.advance(1)
    await embedded.nudge("x", "op_1")
    await embedded.advance(2)
    await embedded.nudge("x", "op_1")
    await embedded.advance(10)

    assert times == [0, 1_000, 2_000, 3_000]
