# SPDX-License-Identifier: Apache-2.0
"""Random lives against the emulator: its bill always lies between the bounds of the ledger.

TEST_LEDGER_LIVES is the number of lives, and TEST_LEDGER_FIRST the first of them: a long run can be
made in parts.
"""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path
from typing import Any, Final

import pytest

from novitai.domain.instance import BillingMode
from novitai.domain.operation import OperationKind
from novitai.emulator import EmulatorConfig, create_app
from novitai.emulator.billing import exact
from novitai.emulator.instances import Status, phase
from novitai.emulator.metering import milliseconds
from novitai.errors import ApiError
from novitai.settings import FailedInstancePolicy
from novitai.testing import ManualClock
from tests.domain.making import TESTER
from tests.lifecycle.actions import directly, fault, heal
from tests.lifecycle.world import REQUEST, Emulator, World, settings_for

LIVES: Final = int(os.environ.get("TEST_LEDGER_LIVES", "2"))
FIRST: Final = int(os.environ.get("TEST_LEDGER_FIRST", "0"))
ACTIONS: Final = 8
VERBS: Final = (OperationKind.START, OperationKind.STOP, OperationKind.RESTART)
OUTCOMES: Final = ("statusError", "exited", "neverBoots")
SLACK: Final = 3 * 2 * 90_000 * 24
"""Three milliseconds of the dearest instance: both clocks are cut to milliseconds."""
OUTAGE: Final = {"kind": "call", "path": "/gpu/instances", "status": 503}
LOST: Final = {"kind": "call", "path": "/gpu/instance/create", "drop": True, "when": "after"}


class RandomLife:
    """A control plane with an emulator, and what happens to them."""

    def __init__(self, seed: int, url: str, folder: Path) -> None:
        self.random = random.Random(seed)
        choose = self.random.choice
        self.tells = choose([True, False])
        # The emulator begins at the real time; one of our clocks begins there too, one does not.
        self.clock = ManualClock()
        app = create_app(
            EmulatorConfig(
                time_source=self._seconds,
                seed=seed,
                public_url="http://emulator",
            )
        )
        self.books = app.state.emulator.books
        self.upstream = app.state.emulator
        if choose([True, False]):
            self.clock = ManualClock(round(self.upstream.clock.now() * 1000))
        self.app = app
        self.world = World(
            settings_for(
                url,
                folder,
                sync_interval_seconds=choose([5.0, 60.0]),
                failed_instance_policy=choose(list(FailedInstancePolicy)),
            ),
            self.clock,
            Emulator(app),
            seed=seed,
            sweep_interval=15,
        )
        self.ids: list[str] = []
        self.log: list[str] = []

    def _seconds(self) -> float:
        return self.clock.monotonic()

    async def live(self) -> None:
        """Live, and compare the bounds with the bill all the time."""
        async with self.app.router.lifespan_context(self.app):
            settings: dict[str, Any] = {
                "startStopTimes": self.tells,
                "creationTimes": True,
                "exitedStoragePrice": self.random.choice([None, 250]),
                "removedLingerSeconds": self.random.choice([0, 600]),
                "delays": {"migrating": [150, 300]},
            }
            await self.world.emulator.call("PATCH", "settings", json=settings)
            await self.world.open()
            await self._create()
            for _ in range(ACTIONS):
                await self._act()
                await self._pass(self.random.choice([30, 130, 300]))
            await heal(self.world)
            for one in self.ids:
                await self._ask(OperationKind.DELETE, one)
            await self._pass(900)
            await self.world.end()
        await self.world.emulator.aclose()

    async def _pass(self, seconds: float) -> None:
        while seconds > 0:
            await self.world.pass_time(15, step=5)
            seconds -= 15
            await self._compare()

    async def _compare(self) -> None:
        now = self.upstream.clock.now()
        ahead = milliseconds(now) - self.clock.now()
        for one in self.ids:
            cost = (await self.world.app.costs.of_instance(one)).cost
            names = {attempt.upstream_name for attempt in await self.world.attempts(one)}
            bought = [each for each in self.upstream.ever() if each.name in names]
            until = cost.as_of + ahead
            bill = sum(
                exact(line, until) for each in bought for line in self.books.meter(each, now).lines
            )
            assert cost.least - SLACK <= bill <= cost.most + SLACK, (one, *self.log)

    async def _act(self) -> None:
        act = self.random.choice(
            [
                self._create,
                self._verb,
                self._verb,
                self._verb,
                self._outside,
                self._outside,
                self._reprice,
                self._break,
                self._crash,
                self._delete,
            ]
        )
        self.log.append(act.__name__)
        await act()

    async def _create(self) -> None:
        if self.random.random() < 0.3:
            outcome = self.random.choice(OUTCOMES)
            await fault(self.world, kind="outcome", operation="create", result=outcome, times=1)
        if self.random.random() < 0.2:
            await fault(self.world, **LOST, times=1)
        request = REQUEST.__class__(
            name=f"box-{len(self.ids)}",
            product_name=REQUEST.product_name,
            template_id="107802",
            gpu_num=self.random.choice([1, 2]),
            rootfs_size=self.random.choice([40, 80, 160]),
            region="any",
            billing_mode=self.random.choice(list(BillingMode)),
        )
        self.ids.append(await self.world.create(request))

    async def _verb(self) -> None:
        await self._ask(self.random.choice(VERBS), self.random.choice(self.ids))

    async def _delete(self) -> None:
        await self._ask(OperationKind.DELETE, self.random.choice(self.ids))

    async def _ask(self, kind: OperationKind, one: str) -> None:
        self.log.append(f"{kind.value} {one[-4:]}")
        with contextlib.suppress(ApiError):
            await self.world.do(self.world.app.operating.ask(kind, one, actor=TESTER))

    async def _outside(self) -> None:
        """Let somebody else start, stop or migrate an instance, or reclaim it."""
        one = (await self.world.view(self.random.choice(self.ids))).get("upstreamId")
        found = self.upstream.instance_or_none(one) if isinstance(one, str) else None
        if found is None:
            return
        status = phase(found, self.upstream.clock.now()).status
        body = {"instanceId": one}
        if status is Status.EXITED:
            self.log.append("start outside")
            await directly(self.world, "start", body)
        elif status is Status.RUNNING:
            way = self.random.choice(["stop", "restart", "migrate"])
            self.log.append(f"{way} outside")
            await directly(self.world, way, body)

    async def _reprice(self) -> None:
        product = self.random.choice([one for one in self.upstream.products if "basic" in one])
        body = {"price": self.random.randrange(10_000, 90_000), "instancesFollow": True}
        await self.world.emulator.call("PATCH", f"products/{product}", json=body)

    async def _break(self) -> None:
        """Let listings fail for a while."""
        await fault(self.world, **OUTAGE)
        await self._pass(self.random.choice([60, 300]))
        await heal(self.world)

    async def _crash(self) -> None:
        """Kill the process; start another one later."""
        self.world.at_work.crash()
        await self.world.end()
        await self.world.pass_time(self.random.choice([10, 200]), step=10)
        await self.world.open()


@pytest.mark.parametrize("seed", range(FIRST, FIRST + LIVES))
async def test_the_bill_lies_between_the_bounds(
    seed: int, sqlite_database_url: str, tmp_path: Path
) -> None:
    """At any time of any life, the emulator's bill is within the bounds."""
    await RandomLife(seed, sqlite_database_url, tmp_path).live()
