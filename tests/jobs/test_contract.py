# SPDX-License-Identifier: Apache-2.0
"""Promises of both engines; the embedded one runs in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from novitai.jobs.port import JobEngine

if TYPE_CHECKING:
    from tests.jobs.rig import Rig

NEVER = 3600.0
"""A sweep interval longer than any test, so that only the first sweep happens."""


def typed(rig: Rig) -> JobEngine:
    """Have the type checker check that each engine is a `JobEngine`."""
    return rig.engine


async def test_a_nudge_runs_its_key(rig: Rig) -> None:
    """A nudge in a transaction that commits runs the handler of its name with the key."""
    rig.rebuild(NEVER)
    rig.register("create_instance")
    rig.register("stop_instance")
    await rig.start()

    await rig.nudge("create_instance", "op_1")

    await rig.until(lambda: rig.runs == [("create_instance", "op_1")])


async def test_a_rolled_back_nudge_never_happened(rig: Rig) -> None:
    """A nudge in a transaction that is rolled back runs nothing."""
    rig.rebuild(NEVER)
    rig.register("create_instance")
    await rig.start()

    def fail(connection: sa.Connection) -> None:
        rig.engine.nudge(connection, "create_instance", "op_1")
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        await rig.database.write(fail)
    await rig.nudge("create_instance", "op_2")

    await rig.until(lambda: bool(rig.runs))
    assert rig.runs == [("create_instance", "op_2")]


async def test_a_due_row_needs_no_nudge(rig: Rig) -> None:
    """The sweep finds due rows without a nudge, both from before the start and after it."""
    rig.register("create_instance")
    await rig.due("create_instance", "op_1")
    await rig.start()
    await rig.until(lambda: rig.runs == [("create_instance", "op_1")])

    await rig.due("create_instance", "op_2")

    await rig.until(lambda: rig.runs[1:] == [("create_instance", "op_2")])


async def test_a_query_that_fails_holds_up_no_other_name(rig: Rig) -> None:
    """The due rows of other names are found, and the failure is logged once, as is its end."""
    fails = True

    def due(connection: sa.Connection, now: int, limit: int) -> Sequence[str]:
        if fails:
            connection.execute(sa.text("SELECT key FROM nowhere"))
        return rig.due_of("broken")(connection, now, limit)

    rig.engine.register("broken", rig.never, due=due, concurrency=1)
    rig.register("sound")
    with capture_logs() as lines:
        await rig.due("sound", "op_1")
        await rig.start()
        await rig.until(lambda: rig.runs == [("sound", "op_1")])
        await rig.due("sound", "op_2")
        await rig.until(lambda: rig.runs[1:] == [("sound", "op_2")])
        fails = False
        await rig.until(lambda: lines[-1]["event"] == "sweep_recovered")
    told = [(line["event"], line["job"]) for line in lines]
    assert told == [("sweep_failed", "broken"), ("sweep_recovered", "broken")]


async def test_a_nudge_during_the_run_is_not_lost(rig: Rig) -> None:
    """A key that is nudged during its run runs once more, and not concurrently."""
    rig.rebuild(NEVER)
    entered, release = [0], asyncio.Event()
    inside = most = 0

    async def handler(key: str) -> None:
        nonlocal inside, most
        entered[0] += 1
        inside += 1
        most = max(most, inside)
        await release.wait()
        inside -= 1

    rig.register("create_instance", handler)
    await rig.start()
    await rig.nudge("create_instance", "op_1")
    await rig.until(lambda: entered == [1])

    await rig.nudge("create_instance", "op_1")
    await rig.nudge("create_instance", "op_2")
    await rig.until(lambda: entered == [2])
    release.set()

    await rig.until(lambda: entered == [3])
    assert most == 2


async def test_a_name_keeps_to_its_concurrency(rig: Rig) -> None:
    """At most `concurrency` keys of a name run at once, and all of them run in the end."""
    inside = most = 0

    async def handler(key: str) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await rig.clock.sleep(0.01)
        inside -= 1
        await rig.done("deliver_webhook", key)
        rig.runs.append(("deliver_webhook", key))

    rig.register("deliver_webhook", handler, concurrency=3)
    await rig.start()
    keys = [f"dl_{number}" for number in range(40)]
    await rig.due("deliver_webhook", *keys)
    await rig.nudge("deliver_webhook", *keys)

    await rig.until(lambda: {key for _, key in rig.runs} == set(keys))
    assert most == 3


async def test_a_slow_name_holds_up_no_other(rig: Rig) -> None:
    """A key of one name runs even if many keys of another name hang."""
    hang = asyncio.Event()

    async def slow(key: str) -> None:
        await hang.wait()

    rig.rebuild(NEVER)
    rig.register("deliver_webhook", slow, concurrency=2)
    rig.register("create_instance")
    await rig.start()
    await rig.nudge("deliver_webhook", *(f"dl_{number}" for number in range(300)))
    await rig.until(lambda: rig.engine.metrics.snapshot()["deliver_webhook"].queued >= 20)

    await rig.nudge("create_instance", "op_1")

    await rig.until(lambda: rig.runs == [("create_instance", "op_1")])
    hang.set()


async def test_a_handler_says_when_to_look_again(rig: Rig) -> None:
    """The engine runs a key again at the time its handler returned, before the next sweep."""
    rig.rebuild(NEVER)
    times: list[int] = []

    async def handler(key: str) -> int | None:
        times.append(rig.clock.now())
        return times[0] + 500 if len(times) < 3 else None

    rig.register("create_instance", handler)
    await rig.start()
    await rig.nudge("create_instance", "op_1")

    await rig.until(lambda: len(times) == 3)
    assert 500 <= times[1] - times[0] < 700
    assert times[2] - times[1] < 200, "a time that has passed means at once"


async def test_a_handler_that_raises_is_counted_and_left_alone(rig: Rig) -> None:
    """A run that raises is counted as failed; other keys run, and the key backs off."""
    tries: list[int] = []

    async def handler(key: str) -> None:
        if key == "op_bad":
            tries.append(rig.clock.now())
            raise ArithmeticError(key)
        rig.runs.append(("create_instance", key))
        await rig.done("create_instance", key)

    rig.register("create_instance", handler)
    await rig.due("create_instance", "op_bad", "op_good")
    await rig.start()

    await rig.until(lambda: len(tries) == 2)
    assert tries[1] - tries[0] >= 900
    assert rig.runs == [("create_instance", "op_good")]
    stats = rig.engine.metrics.snapshot()["create_instance"]
    assert (stats.processed, stats.failed) == (1, 2)


async def test_a_nudge_cuts_the_pause_short_to_a_second(rig: Rig) -> None:
    """A key that failed repeatedly runs one second after its failure if it is nudged."""
    tries: list[int] = []

    async def handler(key: str) -> None:
        tries.append(rig.clock.now())
        raise ArithmeticError(key)

    rig.register("create_instance", handler)
    await rig.due("create_instance", "op_1")
    await rig.start()
    await rig.until(lambda: len(tries) == 2)

    await rig.nudge("create_instance", "op_1")

    await rig.until(lambda: len(tries) == 3)
    assert 900 <= tries[2] - tries[1] < 1500, "the pause itself would be two seconds"


async def test_stop_lets_running_handlers_finish(rig: Rig) -> None:
    """A handler that ends within the grace period is not cancelled, and no new run begins."""
    began, release = asyncio.Event(), asyncio.Event()

    async def handler(key: str) -> None:
        began.set()
        await release.wait()
        rig.runs.append(("create_instance", key))

    rig.register("create_instance", handler, concurrency=1)
    await rig.start()
    await rig.nudge("create_instance", "op_1", "op_2")
    await rig.until(began.is_set)

    stopping = asyncio.ensure_future(rig.engine.stop(30))
    await rig.nudge("create_instance", "op_3")
    await asyncio.sleep(0.01)
    assert not stopping.done()
    release.set()
    await rig.until(stopping.done)

    assert len(rig.runs) == 1
    assert rig.engine.metrics.snapshot()["create_instance"].processed == 1


async def test_stop_cancels_after_the_grace(rig: Rig) -> None:
    """A handler that exceeds the grace period is cancelled and awaited while it cleans up."""
    began = asyncio.Event()
    released: list[str] = []

    async def handler(key: str) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            released.append(key)

    rig.register("create_instance", handler)
    await rig.start()
    await rig.nudge("create_instance", "op_1")
    await rig.until(began.is_set)

    stopping = asyncio.ensure_future(rig.engine.stop(0.05))
    await rig.until(stopping.done)

    assert released == ["op_1"]
    assert rig.engine.metrics.snapshot()["create_instance"].cancelled == 1


async def test_what_a_stop_left_is_found_by_the_next_start(rig: Rig) -> None:
    """Keys that an engine did not run are run by the next one, since their rows are still due."""
    rig.register("create_instance")
    await rig.start()
    await rig.engine.stop(0)
    await rig.due("create_instance", "op_1")
    await rig.nudge("create_instance", "op_1")
    for _ in range(20):
        await asyncio.sleep(0)
    assert rig.runs == []

    rig.rebuild()
    rig.register("create_instance")
    await rig.start()

    await rig.until(lambda: ("create_instance", "op_1") in rig.runs)


async def test_metrics_count_by_name(rig: Rig) -> None:
    """Runs are counted by name, with their durations."""
    rig.rebuild(NEVER)
    rig.register("create_instance")
    rig.register("stop_instance")
    await rig.start()
    await rig.nudge("create_instance", "op_1", "op_2")

    await rig.until(lambda: rig.engine.metrics.snapshot()["create_instance"].processed == 2)
    stats = rig.engine.metrics.snapshot()
    assert stats["create_instance"].processed_last_minute == 2
    assert stats["create_instance"].running == 0
    assert stats["stop_instance"].processed == 0
    await rig.until(lambda: sizes_are(rig, {"create_instance": 0, "stop_instance": 0}))


async def sizes_are(rig: Rig, sizes: dict[str, int]) -> bool:
    """Whether the queue has exactly these sizes."""
    return await rig.engine.queue_sizes() == sizes


async def test_an_engine_that_works_is_seen(rig: Rig) -> None:
    """`last_seen` is the start at first, and advances while the engine works."""
    rig.register("create_instance")
    await rig.start()
    first = await typed(rig).last_seen()
    assert rig.clock.now() - first < 1000

    async def later() -> bool:
        return await typed(rig).last_seen() > first

    await rig.until(later)


def test_a_wrong_registration_is_refused(rig: Rig) -> None:
    """Registering a name twice, or with a concurrency of 0, is an error."""
    rig.register("create_instance")

    with pytest.raises(ValueError, match="create_instance: registered already"):
        rig.register("create_instance")
    with pytest.raises(ValueError, match="at least 1"):
        rig.register("stop_instance", concurrency=0)


async def test_a_late_registration_is_refused(rig: Rig) -> None:
    """Registering after the start of the engine is an error."""
    await rig.start()

    async def handler(key: str) -> None:
        """Never called."""

    with pytest.raises(ValueError, match="before the engine starts"):
        rig.engine.register(
            "create_instance", handler, due=rig.due_of("create_instance"), concurrency=1
        )
