# SPDX-License-Identifier: Apache-2.0
"""Get, list and edit instances."""

from __future__ import annotations

from typing import cast

import pytest

from tests.emulator.client import Client, Json


@pytest.mark.parametrize(
    "pages",
    [
        [{"pageNum": 0}, {"pageNum": 2}, {"pageNum": 3}],
        [{"pageNum": 1}, {"pageNum": 2}, {"pageNum": 3}],
        [{"pageNumber": 1}, {"pageNumber": 2}, {"pageNumber": 3}],
    ],
)
async def test_pages_0_and_1_are_both_the_first(
    client: Client, pages: list[dict[str, int]]
) -> None:
    """The pages add up to the whole list, for each name and first number of the page parameter."""
    await client.seed(count=25)
    ids = []
    for page in pages:
        ids += [row["id"] for row in await client.rows(pageSize=10, **page)]
    assert len(ids) == 25
    assert len(set(ids)) == 25


async def test_a_bare_list_needs_no_parameters(client: Client) -> None:
    """A list without a query returns the first rows, newest first, and the total."""
    await client.seed(names=["old"])
    await client.create(name="new")
    reply = await client.get("/gpu/instances")
    assert [row["name"] for row in await client.rows()] == ["new", "old"]
    assert reply["total"] == 2


async def test_filters_narrow_rows_and_total(client: Client) -> None:
    """Name and product match partially, status exactly."""
    await client.seed(names=["train-a", "train-b"], status="exited")
    await client.seed(names=["serve-a"], productId="4090.16c62g")
    assert len(await client.rows(name="TRAIN")) == 2
    assert len(await client.rows(productName="4090")) == 1
    assert len(await client.rows(status="exited")) == 2
    assert (await client.get("/gpu/instances", name="train-a"))["total"] == 1


async def test_the_id_of_a_get_may_come_in_its_body(client: Client) -> None:
    """A GET may send the ID in its body, as one client does."""
    instance_id = await client.create()
    response = await client.raw("GET", "/gpu/instance", json={"instanceId": instance_id})
    assert response.json()["id"] == instance_id


async def test_an_unknown_instance_is_400_or_in_the_other_mode_404(client: Client) -> None:
    """The reason is RESOURCE_NOT_FOUND, and the code equals the HTTP status."""
    for status in (400, 404):
        await client.control("PATCH", "/settings", {"notFoundStatus": status})
        response = await client.raw("GET", "/gpu/instance", params={"instanceId": "0" * 16})
        assert response.status_code == status
        assert response.json() == {
            "code": status,
            "reason": "RESOURCE_NOT_FOUND",
            "message": "instance not found",
            "metadata": {},
        }


async def test_removed_rows_vanish_or_linger(client: Client) -> None:
    """With a linger time, a removed row is shown as removed until that time has passed."""
    await client.control("PATCH", "/settings", {"removedLingerSeconds": 100})
    instance_id = await client.running()
    await client.post("/gpu/instance/delete", {"instanceId": instance_id})
    await client.advance(60)
    assert [row["status"] for row in await client.rows()] == ["removed"]
    await client.advance(100)
    assert await client.rows() == []


async def test_edit_replaces_ports_and_grows_the_disk(client: Client) -> None:
    """`ports` replaces the ports, and `expandRootDisk` is added to the disk size."""
    instance_id = await client.running(ports="80/http")
    await client.post(
        "/gpu/instance/edit",
        {"instanceId": instance_id, "ports": [{"port": 81, "type": "http"}], "expandRootDisk": 20},
    )
    shown = await client.instance(instance_id)
    assert shown["rootfsSize"] == 80
    mappings = cast("list[Json]", shown["portMappings"])
    assert [mapping["port"] for mapping in mappings] == [81]


async def test_the_monthly_calls(client: Client) -> None:
    """An on-demand instance can become monthly; only monthly instances can be renewed."""
    instance_id = await client.running(productId="4090.16c62g")
    month = {"instanceId": instance_id, "month": 1}
    error = await client.refused("/gpu/instance/renewInstance", month)
    assert error["reason"] == "UNSUPPORTED_BILLING_MODE"
    await client.post("/gpu/instance/transToMonthlyInstance", month)
    first = await client.instance(instance_id)
    assert first["billingMode"] == "monthly"
    await client.post("/gpu/instance/renewInstance", month)
    second = await client.instance(instance_id)
    assert int(str(second["endTime"])) - int(str(first["endTime"])) == 30 * 86_400
    renewal = {"instanceIds": [instance_id], "autoRenew": True, "autoRenewMonth": 2}
    await client.post("/gpu/instance/setAutoRenew", renewal)
    assert client.emulator.instances[instance_id].auto_renew_month == 2
    await client.post(
        "/gpu/instance/setAutoMigrate", {"instanceId": instance_id, "autoMigrateOpen": True}
    )
    assert client.emulator.instances[instance_id].auto_migrate


async def test_a_monthly_instance_still_being_created_is_not_renewed(client: Client) -> None:
    """The refusal has its own reason."""
    instance_id = await client.create(productId="4090.16c62g", billingMode="monthly")
    error = await client.refused(
        "/gpu/instance/renewInstance", {"instanceId": instance_id, "month": 1}
    )
    assert error["reason"] == "CREATING_INSTANCE_NOT_SUPPORT_RENEWAL"


async def test_a_long_list_comes_quickly(client: Client) -> None:
    """Ten thousand instances are listed in pages; rendered rows are cached."""
    await client.control("POST", "/seed", {"count": 10_000, "ports": "80/http"})
    total = 0
    for page in range(1, 11):
        total += len(await client.rows(pageSize=1000, pageNum=page))
    assert total == 10_000
