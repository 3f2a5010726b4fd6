# SPDX-License-Identifier: Apache-2.0
"""Bills, balance and vouchers as the API shows them (upstream.md §8, §14)."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.emulator.client import Client, Json

HOUR, DAY = 3600, 86_400

BILL_FIELDS = {
    "userId", "startTime", "endTime", "billingMethod", "productName", "category", "ownerID",
    "billNum0", "billNum1", "basePrice0", "basePrice1", "discountPrice0", "discountPrice1",
    "amount", "voucherAmount", "payAmount", "payAmountDisplay", "pricePrecision", "productId",
}  # fmt: skip

BALANCE = "/openapi/v1/billing/balance/detail"
LIST = "/openapi/v1/billing/bill/list"


@pytest.fixture
async def hour(client: Client) -> int:
    """The time is moved to a full hour, which is returned; bills appear ten minutes late."""
    await client.control("PATCH", "/settings", {"billDelaySeconds": 600})
    now = client.emulator.clock.now()
    await client.advance(HOUR - now % HOUR)
    return round(client.emulator.clock.now())


def total(rows: list[dict[str, Any]], name: str = "amount") -> int:
    """Return the sum of a field."""
    return sum(int(row[name]) for row in rows)


async def test_a_bill_of_an_hour(client: Client, hour: int) -> None:
    """It has the fields of the documentation: two GPUs for an hour, at their hourly price."""
    [owner] = await client.seed(names=["x"], gpuNum=2, ageSeconds=0)
    await client.advance(HOUR + 600)
    [row] = await client.bills(startTime=hour)
    assert set(row) == BILL_FIELDS
    assert (row["startTime"], row["endTime"]) == (str(hour), str(hour + HOUR - 1))
    assert (row["ownerID"], row["category"], row["billingMethod"]) == (owner, "gpu", 1)
    assert (row["productId"], row["productName"]) == ("gpu-basic.8c32g", "gpu-basic")
    assert int(row["billNum0"]) == 2 * HOUR
    assert int(row["discountPrice0"]) / 10_000 / row["pricePrecision"] == pytest.approx(0.30)
    assert (row["amount"], row["voucherAmount"], row["payAmount"]) == ("6000", "0", "6000")
    assert row["payAmountDisplay"] == pytest.approx(0.60)


async def test_a_bill_appears_late(client: Client, hour: int) -> None:
    """The bill of an hour is absent until the delay after its end is over."""
    await client.seed(names=["x"], ageSeconds=0)
    await client.advance(HOUR + 599)
    assert await client.bills(startTime=hour) == []
    await client.advance(2)
    assert total(await client.bills(startTime=hour)) == 3000
    await client.control("PATCH", "/settings", {"billDelaySeconds": 2 * HOUR})
    assert await client.bills(startTime=hour) == []


async def test_gpu_time_is_billed_from_pulling_until_exited(client: Client, hour: int) -> None:
    """Neither what comes before nor a stopped time is billed, and starting is free."""
    instance_id = await client.running()
    await client.advance(HOUR)
    await client.post("/gpu/instance/stop", {"instanceId": instance_id})
    await client.advance(HOUR)
    first = await client.timeline(instance_id)
    await client.post("/gpu/instance/start", {"instanceId": instance_id})
    await client.advance(2 * HOUR)
    running = (await client.timeline(instance_id))["running"]
    shown = await client.control("GET", f"/instances/{instance_id}/billing")
    spans = [(span["begin"], span["end"]) for span in cast("list[Any]", shown["spans"])]
    now = client.emulator.clock.now()
    expected = [(first["pulling"], first["exited"]), (running, now)]
    assert spans == [pytest.approx(each, abs=0.002) for each in expected]
    assert shown["starts"] == [first["pulling"], running]


@pytest.mark.parametrize(
    ("status", "billed"),
    [
        ("pending", False),
        ("creating", False),
        ("starting", False),
        ("exited", False),
        ("pulling", True),
        ("restarting", True),
        ("stopping", True),
        ("migrating", True),
        ("freezing", True),
        ("resetting", True),
    ],
)
async def test_what_bills(client: Client, hour: int, status: str, billed: bool) -> None:
    """An hour in each status."""
    await client.seed(names=["x"], status=status, ageSeconds=0)
    await client.advance(HOUR + 600)
    assert total(await client.bills(startTime=hour)) == (3000 if billed else 0)


async def test_a_hold_bills_what_the_status_bills(client: Client, hour: int) -> None:
    """An instance that hangs in `migrating` is billed, one that hangs in `creating` is not."""
    held = await client.seed(names=["a", "b"], status="exited", ageSeconds=0)
    for instance_id, status in zip(held, ("migrating", "creating"), strict=True):
        await client.control("POST", f"/instances/{instance_id}/hold", {"status": status})
    await client.advance(HOUR + 600)
    [row] = await client.bills(startTime=hour)
    assert (row["ownerID"], row["amount"]) == (held[0], "3000")


async def test_a_reclaimed_spot_instance_is_billed_until_it_is_exited(
    client: Client, hour: int
) -> None:
    """It has the spot price, and the reclaim ends the bill."""
    [spot] = await client.seed(names=["x"], billingMode="spot", ageSeconds=0)
    await client.advance(HOUR / 2)
    await client.control("POST", f"/instances/{spot}/reclaim", {"immediately": True})
    await client.advance(2 * HOUR)
    assert [row["amount"] for row in await client.bills(startTime=hour)] == ["750"]
    assert int(str((await client.instance(spot))["lastStoppedAt"])) == hour + HOUR // 2


async def test_a_prepaid_instance_has_no_usage_bills(client: Client, hour: int) -> None:
    """Neither its GPU time nor its disk is billed by use."""
    await client.seed(names=["x"], billingMode="monthly", rootfsSize=500, ageSeconds=0)
    await client.advance(HOUR + 600)
    assert await client.bills(startTime=hour, productCategory="summary") == []


async def test_the_disk_above_the_free_size_is_billed(client: Client, hour: int) -> None:
    """$0.005 per GB-day while it runs, the price that the instance shows while it is stopped."""
    instance_id, _small = [
        (await client.seed(names=["x"], rootfsSize=size, ageSeconds=0))[0] for size in (160, 60)
    ]
    await client.advance(DAY)
    await client.control("POST", f"/instances/{instance_id}/stop", {})
    await client.advance(DAY + 600)
    disk: dict[str, str | int] = {"productCategory": "cloud_storage", "startTime": hour}
    rows = await client.bills(**disk)
    assert {row["ownerID"] for row in rows} == {instance_id}
    assert {row["category"] for row in rows} == {"cloud_storage"}
    assert total(rows) == 5000 + 2500
    assert len(rows) == 48
    await client.control("PATCH", "/settings", {"exitedStoragePrice": None})
    await client.advance(DAY)
    late = 600 / DAY  # of this time, the bills had not appeared when the price changed
    assert total(await client.bills(**disk)) == int(5000 + 2500 * (1 + late) + 5000 * (1 - late))


async def test_the_disk_of_a_stopped_instance_is_purged(client: Client, hour: int) -> None:
    """At `releaseDataAt` the bill of the disk ends, and the instance can only be migrated."""
    await client.control("PATCH", "/settings", {"keepDataDays": 2, "exitedStoragePrice": 500})
    [instance_id] = await client.seed(names=["x"], rootfsSize=160, ageSeconds=0)
    assert (await client.instance(instance_id))["releaseDataAt"] == "0"
    await client.control("POST", f"/instances/{instance_id}/stop", {})
    shown = await client.instance(instance_id)
    assert (shown["keepDataDay"], shown["releaseDataAt"]) == (2, str(hour + 2 * DAY))
    await client.advance(2 * DAY - 1)
    billing = f"/instances/{instance_id}/billing"
    assert (await client.control("GET", billing))["diskPurged"] is False
    await client.advance(DAY)
    shown = await client.control("GET", billing)
    assert shown["diskPurged"] is True
    assert shown["storageExact"] == 2 * DAY * 1000 * 100 * 500
    error = await client.refused("/gpu/instance/start", {"instanceId": instance_id})
    assert error["reason"] == "INSTANCE_LOCAL_STORAGE_NOT_FOUND"
    await client.post("/gpu/instance/migrate", {"instanceId": instance_id})
    assert (await client.control("GET", billing))["diskPurged"] is True
    await client.advance(HOUR)
    shown = await client.control("GET", billing)
    assert shown["diskPurged"] is False
    assert cast("int", shown["storageExact"]) > 2 * DAY * 1000 * 100 * 500


async def test_a_price_change_is_another_row(client: Client, hour: int) -> None:
    """Half an hour at each price; an instance that does not follow keeps its price."""
    follower = await client.seed(names=["x"], productId="4090.16c62g", ageSeconds=0)
    keeper = await client.seed(names=["y"], ageSeconds=0)
    await client.advance(HOUR / 2)
    change: Json = {"price": 70_000, "instancesFollow": True}
    await client.control("PATCH", "/products/4090.16c62g", change)
    await client.control("PATCH", "/products/gpu-basic.8c32g", {"price": 1})
    await client.advance(HOUR / 2 + 600)
    rows = await client.bills(startTime=hour)
    shown = [(row["ownerID"], row["discountPrice0"], row["amount"]) for row in rows]
    assert shown == [
        (follower[0], "35000", "1750"),
        (follower[0], "70000", "3500"),
        (keeper[0], "30000", "3000"),
    ]


@pytest.mark.parametrize(
    ("cycle", "rows"), [("Hour", 10 * 24), ("Day", 10), ("Week", 2), ("Month", 1)]
)
async def test_cycles(client: Client, cycle: str, rows: int) -> None:
    """A row per UTC hour, day, week from Monday, or month; the sums are the same."""
    monday = 1_806_278_400 - 21 * DAY  # 2027-03-08, a Monday
    await client.advance(monday - client.emulator.clock.now())
    await client.seed(names=["x"], ageSeconds=0)
    await client.advance(10 * DAY + HOUR)
    found = await client.bills(cycleType=cycle, startTime=monday, endTime=monday + 10 * DAY)
    assert len(found) == rows
    assert total(found) == 10 * 24 * 3000
    if cycle != "Month":
        assert int(found[0]["startTime"]) == monday
    else:
        assert (found[0]["startTime"], found[0]["endTime"]) == ("1803859200", "1806537599")


async def test_the_summary_has_one_row_per_category(client: Client, hour: int) -> None:
    """It adds up all instances and names none."""
    await client.seed(count=2, rootfsSize=1260, ageSeconds=0)
    await client.advance(HOUR + 600)
    rows = await client.bills(productCategory="summary", startTime=hour)
    shown = [(row["category"], row["ownerID"], row["amount"]) for row in rows]
    assert shown == [("gpu", "", "6000"), ("cloud_storage", "", "5000")]


async def test_bills_can_be_filtered(client: Client, hour: int) -> None:
    """By instance, by a part of the product's name, by category, and by window."""
    first, second = [
        (await client.seed(names=["x"], productId=product, ageSeconds=0))[0]
        for product in ("gpu-basic.8c32g", "4090.16c62g")
    ]
    await client.advance(3 * HOUR + 600)
    everything: dict[str, str | int] = {"startTime": hour}
    owners = [row["ownerID"] for row in await client.bills(**everything)]
    assert owners == [first, second] * 3
    assert len(await client.bills(ownerId=second, **everything)) == 3
    assert {row["ownerID"] for row in await client.bills(productName="4090", **everything)} == {
        second
    }
    assert await client.bills(category="cloud_storage", **everything) == []
    assert len(await client.bills(startTime=hour + 1, endTime=hour + 2 * HOUR)) == 2
    for empty in ("llm", "serverless"):
        assert await client.bills(productCategory=empty) == []


@pytest.mark.parametrize(
    ("params", "status", "reason"),
    [
        ({"cycleType": "Year"}, 400, "INVALID_BILL_CYCLE"),
        ({"cycleType": ""}, 400, "INVALID_BILL_CYCLE"),
        ({"productCategory": "cpu"}, 400, "INVALID_PRODUCT_CATEGORY"),
        ({"startTime": "1", "endTime": str(31 * DAY + 2)}, 400, "VALIDATOR_PARAM"),
        ({"startTime": "9", "endTime": "5"}, 400, "VALIDATOR_PARAM"),
        ({"startTime": "soon"}, 400, "VALIDATOR_PARAM"),
    ],
)
async def test_a_wrong_list_is_refused(
    client: Client, params: dict[str, str], status: int, reason: str
) -> None:
    """Each with its reason."""
    wanted = {"cycleType": "Hour", "productCategory": "gpu", **params}
    response = await client.raw("GET", LIST, params=wanted)
    assert (response.status_code, response.json()["reason"]) == (status, reason)


async def test_bills_may_not_be_listed_too_often(client: Client) -> None:
    """So many a real minute for each key; virtual time does not help."""
    await client.control("PATCH", "/settings", {"billListsPerMinute": 2})
    wanted = {"cycleType": "Hour", "productCategory": "gpu"}
    for _ in range(2):
        await client.bills()
    await client.advance(HOUR)
    refused = await client.raw("GET", LIST, params=wanted)
    assert (refused.status_code, refused.json()["reason"]) == (429, "LIST_BILL_TOO_FAST")
    other = await client.raw("GET", LIST, params=wanted, headers={"Authorization": "Bearer b"})
    assert other.status_code == 200
    client.time.pass_(60)
    await client.bills()
    await client.control("PATCH", "/settings", {"billListsPerMinute": 0})
    for _ in range(40):
        await client.bills()


async def balance(client: Client) -> dict[str, int]:
    """Return the balance, in numbers."""
    reply = await client.get(BALANCE)
    assert all(isinstance(value, str) for value in reply.values())
    return {name: int(str(value)) for name, value in reply.items()}


async def test_the_balance_falls_with_the_bills(client: Client, hour: int) -> None:
    """It falls when a bill appears; until then the amount is pending."""
    await client.control("PATCH", "/settings", {"balance": 10_000})
    await client.seed(names=["x"], ageSeconds=0)
    await client.advance(HOUR + 599)
    shown = await balance(client)
    assert shown["pendingCharges"] == 3000 + 3000 * 599 // 3600
    assert (shown["availableBalance"], shown["cashBalance"]) == (10_000, 10_000)
    await client.advance(1)
    shown = await balance(client)
    assert (shown["availableBalance"], shown["pendingCharges"]) == (7000, 500)
    await client.control("PATCH", "/settings", {"balance": 50_000})
    assert (await balance(client))["availableBalance"] == 50_000
    await client.advance(HOUR)
    assert (await balance(client))["availableBalance"] == 47_000


async def test_a_voucher_pays_first(client: Client, hour: int) -> None:
    """The bills show what it paid, and the balance falls by the rest."""
    await client.control("PATCH", "/settings", {"balance": 10_000, "voucher": 4000})
    await client.seed(names=["x"], ageSeconds=0)
    await client.advance(3 * HOUR + 600)
    rows = await client.bills(startTime=hour)
    assert [row["voucherAmount"] for row in rows] == ["3000", "1000", "0"]
    assert [row["payAmount"] for row in rows] == ["0", "2000", "3000"]
    assert (await balance(client))["cashBalance"] == 5000
    await client.control("PATCH", "/settings", {"voucher": 3500})
    await client.advance(2 * HOUR)
    rows = await client.bills(startTime=hour)
    assert [row["voucherAmount"] for row in rows] == ["3000", "1000", "0", "3000", "500"]
    assert await client.bills(startTime=hour + 4 * HOUR) == rows[4:]
    assert (await balance(client))["availableBalance"] == 10_000 - 5 * 3000 + 4000 + 3500


async def test_a_bill_that_has_appeared_never_changes(client: Client, hour: int) -> None:
    """Not by later stops, prices and removals, nor when the removed instance is set aside."""
    await client.control("PATCH", "/settings", {"voucher": 4000})
    owners = await client.seed(count=3, gpuNum=1, rootfsSize=160, ageSeconds=0)
    await client.advance(HOUR + 600)
    window = {"startTime": hour, "endTime": hour + HOUR}
    before = await client.bills(**window)
    assert [row["voucherAmount"] for row in before] == ["3000", "792", "0"]
    await client.control("POST", f"/instances/{owners[1]}/delete", {})
    change = {"price": 1, "instancesFollow": True}
    await client.control("PATCH", "/products/gpu-basic.8c32g", change)
    await client.control("PATCH", "/settings", {"exitedStoragePrice": 1, "balance": 5_000_000})
    await client.advance(3 * DAY)
    assert len(await client.rows()) == 2
    assert owners[1] in client.emulator.past
    assert await client.bills(**window) == before


async def test_bills_follow_the_speed_of_the_clock(client: Client, hour: int) -> None:
    """A real second at speed 3600 is an hour of the bill."""
    await client.seed(names=["x"], ageSeconds=0)
    await client.control("POST", "/clock", {"speed": 3600})
    client.time.pass_(5.5)
    assert total(await client.bills(startTime=hour)) == 5 * 3000


async def test_at_zero_what_runs_is_frozen(client: Client, hour: int) -> None:
    """At the moment the bill appears: running and starting instances, not stopped or prepaid ones.

    Then creates and starts are refused until there is a balance again.
    """
    await client.control("PATCH", "/settings", {"balance": 5000})
    run, stopped, prepaid = [
        (await client.seed(names=["x"], ageSeconds=0, **more))[0]
        for more in ({}, {"status": "exited"}, {"billingMode": "monthly"})
    ]
    await client.advance(2 * HOUR + 570)
    starting = await client.create()
    await client.advance(29)
    assert await client.status(run) == "running"
    await client.advance(1)
    assert [await client.status(each) for each in (run, starting)] == ["freezing"] * 2
    assert [await client.status(each) for each in (stopped, prepaid)] == ["exited", "running"]
    assert (await client.timeline(run))["freezing"] == hour + 2 * HOUR + 600
    shown = await balance(client)
    assert shown["availableBalance"] == -shown["outstandingInvoices"] < 0
    error = await client.refused("/gpu/instance/start", {"instanceId": stopped})
    assert error["reason"] == "BALANCE_NOT_ENOUGH"
    body = {"productId": "gpu-basic.8c32g", "gpuNum": 1, "rootfsSize": 10, "imageUrl": "u"}
    assert (await client.refused("/gpu/instance/create", body))["reason"] == "BALANCE_NOT_ENOUGH"
    await client.advance(600)
    assert await client.status(run) == "exited"
    await client.control("PATCH", "/settings", {"balance": 10_000})
    await client.post("/gpu/instance/start", {"instanceId": run})


async def test_the_freeze_comes_at_its_time_however_late_it_is_read(
    client: Client, hour: int
) -> None:
    """After a jump of days, the timeline and the bill are as if each hour had been looked at."""
    await client.control("PATCH", "/settings", {"balance": 5000})
    [run] = await client.seed(names=["x"], ageSeconds=0)
    await client.advance(10 * DAY)
    assert await client.status(run) == "exited"
    steps = await client.timeline(run)
    assert steps["freezing"] == hour + 2 * HOUR + 600
    shown = await client.control("GET", f"/instances/{run}/billing")
    billed_ms = int(steps["exited"] * 1000) - hour * 1000
    assert shown["gpuExact"] == billed_ms * 24 * 30_000


async def test_a_balance_that_is_taken_away_freezes_at_once(client: Client) -> None:
    """The control API sets the balance to 0."""
    instance_id = await client.running()
    await client.control("PATCH", "/settings", {"balance": 0})
    assert await client.status(instance_id) == "freezing"


async def test_the_control_side_shows_the_account(client: Client, hour: int) -> None:
    """Exact sums up to now, and which bills have appeared."""
    [instance_id] = await client.seed(names=["x"], gpuNum=2, rootfsSize=160, ageSeconds=0)
    await client.advance(HOUR + 660)
    shown = await client.control("GET", "/billing")
    assert shown["billsKnownUntil"] == hour + HOUR
    [row] = cast("list[Json]", shown["instances"])
    milliseconds = (HOUR + 660) * 1000
    assert (row["id"], row["billing"]) == (instance_id, True)
    assert row["gpuExact"] == milliseconds * 24 * 60_000
    assert row["storageExact"] == milliseconds * 100 * 500
    assert row["billedUnits"] == 6000 + 208
    assert shown["exactPerUnit"] == 10 * DAY * 1000
    assert shown["balance"] == 1_000_000_000_000 - 6208
