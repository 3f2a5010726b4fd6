# SPDX-License-Identifier: Apache-2.0
"""Property: after any lifecycle, the bills of an instance add up to price times billed time.

The reference sums are computed here, from what the test did and from the timelines that the
control API shows, and not with the code that makes the bills.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import httpx2
from hypothesis import given, settings
from hypothesis import strategies as st

from novitai.emulator import EmulatorConfig, create_app
from tests.emulator.client import KEY, Client, ManualTime

HOUR, DAY = 3600, 86_400

BILLED = {"pulling", "running", "restarting", "stopping", "migrating", "freezing", "resetting"}
FREE = {"pending", "toCreate", "creating", "toStart", "starting", "exited", "removed"}


@dataclass
class Changes:
    """The values of one property over time."""

    times: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def set(self, at: float, value: object) -> None:
        """Set a value from a time on; later values are dropped."""
        kept = bisect_right(self.times, at)
        while kept and self.times[kept - 1] == at:
            kept -= 1
        self.times[kept:], self.values[kept:] = [at], [value]

    def at(self, at: float) -> Any:
        """Return the value that holds at a time."""
        return self.values[bisect_right(self.times, at) - 1]


@dataclass
class Lifecycle:
    """An instance, and everything about it that its bills depend on."""

    client: Client
    id: str
    status: Changes = field(default_factory=Changes)
    price: Changes = field(default_factory=Changes)
    size: Changes = field(default_factory=Changes)
    stopped_price: Changes = field(default_factory=Changes)
    reclaimed: bool = False  # the plan of its timeline no longer holds

    @property
    def now(self) -> float:
        return self.client.emulator.clock.now()

    async def observe(self) -> None:
        """Take over the timeline from now on."""
        shown = await self.client.control("GET", f"/instances/{self.id}")
        for step in cast("list[dict[str, Any]]", shown["timeline"]):
            if step["at"] >= self.now:
                self.status.set(step["at"], step["status"])

    async def verb(self, path: str, **body: object) -> bool:
        """Send an operation; return whether it was accepted."""
        sent = {"instanceId": self.id, **body}
        reply = await self.client.raw("POST", f"/gpu/instance/{path}", json=sent)
        if reply.status_code != 200:
            return False
        if path in {"start", "migrate", "delete"}:
            self.reclaimed = False
        if not self.reclaimed:
            await self.observe()
        return True

    async def act(self, what: str, number: int) -> None:
        """Do one thing; the number sets how long, how much or at which price."""
        client = self.client
        match what:
            case "wait":
                await client.advance(number * 7.3)
            case "wait long":
                await client.advance(number * 1234.567)
            case "start" | "stop" | "restart" | "delete" | "migrate":
                await self.verb(what)
            case "upgrade":
                await self.verb("upgrade", imageUrl="debian:13")
            case "grow":
                if await self.verb("edit", expandRootDisk=number):
                    self.size.set(self.now, self.size.at(self.now) + number)
            case "reclaim":
                if (await self.shown())["live"]:
                    await client.control(
                        "POST", f"/instances/{self.id}/reclaim", {"immediately": True}
                    )
                    if self.status.at(self.now) not in {"toRemove", "removing", "exited"}:
                        self.status.set(self.now, "exited")
                        self.reclaimed = True
            case "reprice":
                change = {"spotPrice": 997 * number, "instancesFollow": True}
                await client.control("PATCH", "/products/4090.16c62g", change)
                if (await self.shown())["live"]:
                    self.price.set(self.now, 2 * 997 * number)
            case "price of the disk":
                value = None if number % 3 == 0 else number
                await client.control("PATCH", "/settings", {"exitedStoragePrice": value})
                self.stopped_price.set(self.now, 500 if value is None else value)

    async def shown(self) -> dict[str, Any]:
        """Return what the control API shows."""
        return cast("dict[str, Any]", await self.client.control("GET", f"/instances/{self.id}"))

    def expected(self) -> tuple[int, int]:
        """Return the bills for GPU time and disk up to now, in 1/10000 USD, rounded down once."""
        series = (self.status, self.price, self.size, self.stopped_price)
        edges = sorted({at for each in series for at in each.times if at < self.now} | {self.now})
        gpu = disk = 0
        runs, purged, stopped_at = False, False, 0.0
        for begin, end in pairwise(edges):
            status = self.status.at(begin)
            runs = status in BILLED or (runs and status not in FREE)
            purged = purged and status not in BILLED
            passed = int(end * 1000) - int(begin * 1000)
            if runs:
                gpu += self.price.at(begin) * passed
            if begin in self.status.times and status == "exited":
                stopped_at = begin
            size = max(0, self.size.at(begin) - 60)
            if status == "exited":
                last = stopped_at + 7 * DAY
                passed = max(0, int(min(end, last) * 1000) - int(begin * 1000))
                disk += size * self.stopped_price.at(begin) * passed
                purged = purged or end >= last
            elif status != "removed" and not purged:
                disk += size * 500 * passed
        return gpu // (10 * HOUR * 1000), disk // (10 * DAY * 1000)


ACTIONS = [
    "wait", "wait", "wait long", "start", "stop", "restart", "delete", "migrate", "upgrade",
    "grow", "reclaim", "reprice", "price of the disk",
]  # fmt: skip


async def add_up(client: Client, begin: float, end: float, **params: str) -> dict[str, int]:
    """Return the sums of amount, voucher and payment, from windows of at most 31 days."""
    sums = {"amount": 0, "voucherAmount": 0, "payAmount": 0}
    at = int(begin) // HOUR * HOUR
    while at < end:
        after = min(at + 31 * DAY, int(end) // HOUR * HOUR + HOUR)
        for row in await client.bills(startTime=at, endTime=after, **params):
            assert int(row["amount"]) == int(row["voucherAmount"]) + int(row["payAmount"])
            for name in sums:
                sums[name] += int(row[name])
        at = after
    return sums


async def live(actions: list[tuple[str, int]], delay: int, voucher: int) -> None:
    """Live through the actions, and compare the bills with the reference."""
    time = ManualTime()
    app = create_app(EmulatorConfig(seed=7, time_source=time))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://emulator.test", headers=KEY
    ) as http:
        client = Client(http, app.state.emulator, time)
        money = {"billDelaySeconds": delay, "billListsPerMinute": 0, "voucher": voucher}
        await client.control("PATCH", "/settings", money)
        begin = client.emulator.clock.now()
        # A second instance shares vouchers and windows, so that sums are those of one owner.
        await client.seed(names=["other"], gpuNum=1, ageSeconds=0)
        body: dict[str, object] = {"productId": "4090.16c62g", "gpuNum": 2, "billingMode": "spot"}
        mine = Lifecycle(client, await client.create(**body, rootfsSize=90))
        mine.price.set(mine.now, 2 * 17_500)
        mine.size.set(mine.now, 90)
        mine.stopped_price.set(mine.now, 250)
        await mine.observe()
        for what, number in actions:
            await mine.act(what, number)
        gpu, disk = mine.expected()
        truth = await client.control("GET", f"/instances/{mine.id}/billing")
        assert truth["units"] == gpu + disk

        # Later the bills of all that time have appeared; what is added since is not asked for.
        await mine.verb("delete")
        await client.advance(600 + HOUR + delay)
        gpu, disk = mine.expected()
        end = client.emulator.clock.now()
        hourly = await add_up(client, begin, end, ownerId=mine.id)
        assert hourly["amount"] == gpu
        stored = await add_up(client, begin, end, ownerId=mine.id, productCategory="cloud_storage")
        assert stored["amount"] == disk
        everything = await add_up(client, begin, end, productCategory="summary")
        for cycle in ("Day", "Week", "Month"):
            assert everything == await add_up(
                client, begin, end, productCategory="summary", cycleType=cycle
            )
        assert everything["voucherAmount"] == min(voucher, everything["amount"])
        account = await client.control("GET", "/billing")
        left = client.emulator.settings.balance - everything["payAmount"]
        assert (account["balance"], account["voucher"]) == (
            left,
            voucher - everything["voucherAmount"],
        )


@settings(max_examples=100, deadline=None)
@given(
    actions=st.lists(
        st.tuples(st.sampled_from(ACTIONS), st.integers(min_value=1, max_value=60)), max_size=25
    ),
    delay=st.sampled_from([0, 61, 900, 5 * HOUR]),
    voucher=st.sampled_from([0, 777, 50_000]),
)
def test_bills_add_up_to_price_times_billed_time(
    actions: list[tuple[str, int]], delay: int, voucher: int
) -> None:
    """For GPU time and disk, to the last unit, in each cycle; vouchers and balance agree."""
    asyncio.run(live(actions, delay, voucher))
