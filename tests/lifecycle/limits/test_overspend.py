# SPDX-License-Identifier: Apache-2.0
"""Random runs in virtual time: no instance bills longer beyond a limit than is promised.

Beyond a limit an instance bills for at most 60 seconds, and the time that the upstream rate limit
needs for the stops of all instances, while Novita answers, a worker lives, and Novita takes a stop
in the instance's status.

TEST_LIMIT_RUNS sets the number of instances (10,000 is a long run), TEST_LIMIT_SIZE how many of
them one life has, and TEST_LIMIT_FIRST the first life: a long run can be made in parts.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
import structlog

from novitai.domain.instance import InstanceStatus
from novitai.domain.limit_review import LONGEST_LEAD
from novitai.domain.limits import MINUTE, LimitAction, LimitSettings
from novitai.domain.operation import OperationKind
from novitai.emulator import EmulatorConfig, create_app
from novitai.errors import ApiError
from novitai.testing import ManualClock
from tests.domain.making import TESTER
from tests.lifecycle.actions import fault
from tests.lifecycle.world import REQUEST, Emulator, World, settings_for

RUNS = int(os.environ.get("TEST_LIMIT_RUNS", "16"))
FIRST = int(os.environ.get("TEST_LIMIT_FIRST", "0"))
SIZE = int(os.environ.get("TEST_LIMIT_SIZE", "8"))
"""Instances of one life."""
LIFE = 4500
STEP = 5
PROMISE = 60.0
CALLS_PER_SECOND = 5.0
DISK_SHARE = 0.02
"""The disk ends the money of a run earlier by less than this share of it."""
FREE = {"pending", "toCreate", "creating", "toStart", "starting", "exited", "removed"}
NO_STOP = {"pulling", "migrating", "toRestart", "restarting", "toReset", "resetting"}
"""Statuses that bill and in which Novita takes no stop."""
LOST: list[dict[str, Any]] = [
    {"path": "/gpu/instance/stop", "drop": True, "when": "after", "times": 2},
    {"path": "/gpu/instance/stop", "drop": True, "when": "before", "times": 2},
    {"path": "/gpu/instance/stop", "status": 500, "when": "after", "times": 2},
    {"path": "/gpu/instance/stop", "status": 429, "retryAfter": 3, "times": 2},
    {"path": "/gpu/instance/delete", "drop": True, "when": "after", "times": 2},
]
OUTAGES: list[dict[str, Any]] = [
    {"path": "*", "drop": True},
    {"path": "*", "status": 503},
    {"path": "/gpu/instance/stop", "status": 503},
    {"path": "/gpu/instances", "status": 503},
]


@dataclass(frozen=True)
class Promised:
    """An instance of a life: its limits, and what a person did to it."""

    instance_id: str
    limits: LimitSettings | None


@dataclass
class Life:
    """One control plane with random instances, and the times at which nothing could be done."""

    world: World
    dice: random.Random
    made: list[Promised] = field(default_factory=list)
    dark: list[tuple[float, float]] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)

    @property
    def at(self) -> float:
        """Virtual seconds."""
        return self.world.clock.monotonic()

    async def live(self) -> None:
        """Create the instances, then let random things happen to them."""
        for number in range(SIZE):
            limits = self._limits() if number else None
            request = replace(REQUEST, name=f"box-{number}", limits=limits)
            self.made.append(Promised(await self.world.create(request), limits))
        end = self.at + LIFE
        while self.at < end:
            await self.world.pass_time(self.dice.choice([30, 60, 120, 240]), step=STEP)
            await self.dice.choice(
                [self._outage, self._downtime, self._lose, self._verb, self._nothing]
            )()
        await self.world.pass_time(1200, step=STEP)

    def _limits(self) -> LimitSettings:
        dice, now = self.dice, self.world.clock.now()
        kind = dice.choice(["run", "at", "both", "spend"])
        return LimitSettings(
            max_spend=dice.randint(5_000, 60_000) if kind == "spend" else None,
            max_run_minutes=dice.randint(2, 45) if kind in {"run", "both"} else None,
            stop_at=now + dice.randint(6, 70) * MINUTE if kind in {"at", "both"} else None,
            on_limit=dice.choice([LimitAction.STOP, LimitAction.STOP, LimitAction.DELETE]),
        )

    async def _nothing(self) -> None:
        pass

    async def _outage(self) -> None:
        began = self.at
        made = await fault(self.world, kind="call", **self.dice.choice(OUTAGES))
        await self.world.pass_time(self.dice.choice([20, 90, 400]), step=STEP)
        await self.world.emulator.call("DELETE", f"faults/{made}")
        # An open circuit breaker tries again within its longest pause.
        self.dark.append((began, self.at + 60))

    async def _downtime(self) -> None:
        began = self.at
        await self.world.end()
        await self.world.pass_alone(self.dice.choice([5, 60, 600]))
        await self.world.open()
        self.dark.append((began, self.at))

    async def _lose(self) -> None:
        await fault(self.world, kind="call", **self.dice.choice(LOST))

    async def _verb(self) -> None:
        one = self.dice.choice(self.made).instance_id
        kind = self.dice.choice([OperationKind.STOP, OperationKind.START, OperationKind.RESTART])
        self.touched.add(one)
        try:
            await self.world.do(self.world.app.operating.ask(kind, one, actor=TESTER))
        except ApiError:
            return

    async def check(self) -> None:
        """Compare the billed times at Novita with the limits.

        Raises:
            AssertionError: an instance billed longer than promised, or was stopped too early.
        """
        emulator = self.world.emulator.app.state.emulator
        ahead = emulator.clock.now() - self.at
        now = self.world.clock.now() / 1000
        for one in self.made:
            view = await self.world.view(one.instance_id)
            record = emulator.instance_or_none(view.get("upstreamId", ""))
            if record is None:
                continue
            steps = [(step.at - ahead, str(step.status)) for step in record.steps]
            if one.limits is None:
                if one.instance_id not in self.touched:
                    assert view["status"] == InstanceStatus.RUNNING, "stopped without a limit"
                continue
            stop_at = None
            if one.limits.stop_at is not None:
                stop_at = self.at - (now - one.limits.stop_at / 1000)
            # The disk costs a little too, so the amount is spent somewhat earlier.
            left = math.inf
            if one.limits.max_spend is not None:
                left = one.limits.max_spend / record.price * 3600
            for run in _runs(steps):
                self._check_run(one, run, stop_at, left)
                left -= run[-1][0] - run[0][0]

    def _check_run(
        self, one: Promised, run: list[tuple[float, str]], stop_at: float | None, left: float
    ) -> None:
        assert one.limits is not None
        began, ended = run[0][0], run[-1][0]
        caps = [began + max(0.0, left)]
        if one.limits.max_run_minutes is not None:
            caps.append(began + one.limits.max_run_minutes * 60)
        if stop_at is not None and stop_at > began:
            caps.append(stop_at)
        cap = min(caps)
        allowed = cap
        blind = [*self.dark, *_unstoppable(run)]
        for since, until in sorted(blind):
            if since <= allowed + PROMISE and until > cap - LONGEST_LEAD / 1000:
                allowed = max(allowed, until)
        limit = allowed + PROMISE + SIZE / CALLS_PER_SECOND
        billed_until = min(ended, self.at)
        assert billed_until <= limit, (one, f"{billed_until - cap:.0f} s beyond", run, self.dark)
        if one.instance_id not in self.touched and ended < math.inf:
            early = cap - ended
            lead = LONGEST_LEAD / 1000 + DISK_SHARE * max(0.0, cap - began)
            assert early <= lead, (one, f"{early:.0f} s early", run)


def _runs(steps: list[tuple[float, str]]) -> Iterator[list[tuple[float, str]]]:
    """Split a timeline into its billed runs; each ends with the status that ends it."""
    run: list[tuple[float, str]] = []
    for at, status in steps:
        if run and status in FREE:
            yield [*run, (at, status)]
            run = []
        elif status not in FREE:
            run.append((at, status))
    if run:
        yield [*run, (math.inf, "")]


def _unstoppable(run: list[tuple[float, str]]) -> list[tuple[float, float]]:
    """Return the times in which Novita takes no stop."""
    return [(at, until) for (at, status), (until, _) in pairwise(run) if status in NO_STOP]


@pytest.mark.parametrize("seed", range(FIRST, FIRST + math.ceil(RUNS / SIZE)))
async def test_no_run_bills_beyond_its_limits(
    sqlite_database_url: str, tmp_path: Any, seed: int
) -> None:
    """Even if calls fail, answers are lost and processes are down."""
    structlog.reset_defaults()
    clock = ManualClock()
    app = create_app(
        EmulatorConfig(time_source=clock.monotonic, seed=seed, public_url="http://emulator")
    )
    emulator = Emulator(app)
    async with app.router.lifespan_context(app):
        world = World(settings_for(sqlite_database_url, tmp_path), clock, emulator, seed=seed)
        await world.open()
        try:
            life = Life(world, random.Random(seed))
            await life.live()
            await life.check()
        finally:
            await world.end()
    await emulator.aclose()
