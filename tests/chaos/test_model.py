# SPDX-License-Identifier: Apache-2.0
"""A slice of the model: lives in virtual time whose process crashes at a named point.

`make chaos` runs ten thousand of them (`tests/chaos/model.py`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from novitai.crash_points import CrashPoint
from novitai.testing import ManualClock
from tests.chaos.cases import GROUPS, NO_FAULT, Act, Case, Group, Lot, choose
from tests.chaos.inline_store import InlineStore
from tests.chaos.life import Result, live
from tests.chaos.model import broken, run_groups

EVERY = 24
"""The slice takes each 24th group, and of each the life without a crash and two with one."""


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Restore the logging, which the model turns off."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_promises_hold_at_crashes(tmp_path: Path) -> None:
    """All promises hold after a crash, at any point, with any fault, with one worker and three."""
    wanted = [(group, (0, 5, 23)) for group in GROUPS[3::EVERY]]
    results = [one for lived in run_groups(wanted, folder=tmp_path) for one in lived.results]
    assert not broken(results), broken(results)
    assert sum(one.crashed for one in results) > len(results) / 3


def test_every_point_is_reached(tmp_path: Path) -> None:
    """Each crash point is reached in one of a few lives, so that a kill there can be tested."""
    named = {group.seed: group for group in GROUPS}
    lives = [
        (named["create/create hidden/1"], (0,)),
        (named["restart/none/3"], (0,)),
    ]
    reached: Counter[CrashPoint] = Counter()
    results = [one for lived in run_groups(lives, folder=tmp_path) for one in lived.results]
    results.append(_late_call(tmp_path))
    assert not broken(results), broken(results)
    for result in results:
        reached.update({point: count for (point, _), count in result.reached.items()})
    assert set(reached) == set(CrashPoint)


def _late_call(folder: Path) -> Result:
    """Live a life whose worker stalls between its call and the answer, beyond its lease."""
    named = {group.seed: group for group in GROUPS}
    group = named["start/none/3"]

    async def find() -> Result:
        store = await InlineStore.open(f"sqlite:///{folder / 'chaos.db'}", ManualClock())
        try:
            for number in range(1, 40):
                case = Case(group, number, CrashPoint.CALL_SENT, "start", 1, Lot.FREEZE)
                result = await live(store, folder, case)
                if (CrashPoint.LATE_CALL_NOTED, "start") in result.reached:
                    return result
        finally:
            await store.close()
        raise AssertionError("no life had a late call")

    return asyncio.run(find())


def test_a_name_repeats_a_life(tmp_path: Path) -> None:
    """The same case gives the same life: the same points in the same number, the same duration."""
    group = next(one for one in GROUPS if one.seed == "create/none/3")
    again = [(group, (4,)), (group, (4,))]
    first, second = (lived.results[0] for lived in run_groups(again, folder=tmp_path))
    assert (first.case, first.reached, first.recovered) == (
        second.case,
        second.reached,
        second.recovered,
    )
    assert first.crashed


def test_a_broken_promise_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the attempt is not stored before its call is sent, the model reports it."""
    monkeypatch.setattr("novitai.store.queries.attempts.insert", lambda _connection, _attempt: None)
    group = next(one for one in GROUPS if one.seed == "create/none/1")
    (lived,) = run_groups([(group, (0,))], folder=tmp_path)
    assert "bought without a stored attempt" in broken(lived.results)


async def test_both_stores_keep_the_promises(database_url: str, tmp_path: Path) -> None:
    """A process that dies between the sending and the answer of a create leaves one instance."""
    store = await InlineStore.open(database_url, ManualClock())
    try:
        for number, point in enumerate(
            (CrashPoint.ATTEMPT_COMMITTED, CrashPoint.CALL_SENT, CrashPoint.STEP_DECIDED)
        ):
            subject = "" if point is CrashPoint.ATTEMPT_COMMITTED else "create"
            group = Group(Act.CREATE, NO_FAULT, 3)
            result = await live(store, tmp_path, Case(group, number + 1, point, subject))
            assert not result.violations, broken([result])
            assert result.crashed
    finally:
        await store.close()


def test_each_point_has_cases() -> None:
    """Successive numbers go through all points of a group."""
    points = {(point, ""): 1 for point in CrashPoint}
    chosen = {choose(GROUPS[0], number, points).point for number in range(1, len(points) + 1)}
    assert chosen == set(CrashPoint)
