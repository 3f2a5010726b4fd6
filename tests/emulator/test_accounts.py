# SPDX-License-Identifier: Apache-2.0
"""Several accounts in one emulator, and the keys assigned to them."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import httpx2
import pytest

from novitai.emulator.calls import caller_label
from tests.emulator.client import Client, Json


def keyed(client: Client, key: str) -> Client:
    """Return a client of the same emulator with another API key."""
    http = httpx2.AsyncClient(
        transport=client.http._transport,
        base_url=client.http.base_url,
        headers={"Authorization": f"Bearer {key}"},
    )
    return replace(client, http=http)


@pytest.fixture
async def other(client: Client) -> Client:
    """A client with a second key, with one account per key."""
    await client.control("PATCH", "/settings", {"accountPerKey": True})
    return keyed(client, "other-key")


async def names(client: Client) -> list[object]:
    """Return the names of the instances that a client's key sees."""
    return [row["name"] for row in await client.rows()]


async def test_all_keys_share_one_account_by_default(client: Client) -> None:
    """By default, every key sees every instance."""
    await client.create()
    assert await names(keyed(client, "other-key")) == ["my-instance"]


async def test_a_key_lists_only_the_instances_of_its_account(client: Client, other: Client) -> None:
    """Rows and total exclude the instances of other accounts."""
    await client.create(name="mine")
    await other.create(name="theirs")
    assert await names(client) == ["mine"]
    reply = await other.get("/gpu/instances")
    assert [row["name"] for row in cast("list[Json]", reply["instances"])] == ["theirs"]
    assert reply["total"] == 1


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "delete", "edit", "migrate"])
async def test_another_accounts_instance_is_not_found_to_any_verb(
    client: Client, other: Client, verb: str
) -> None:
    """The call is refused as for an instance that does not exist, and changes nothing."""
    instance_id = await client.running()
    error = await other.refused(f"/gpu/instance/{verb}", {"instanceId": instance_id})
    assert error["reason"] == "RESOURCE_NOT_FOUND"
    assert await client.status(instance_id) == "running"


@pytest.mark.parametrize("status", [400, 404])
async def test_another_accounts_instance_is_not_found_to_get(
    client: Client, other: Client, status: int
) -> None:
    """The look-up returns the status that the settings define for missing resources."""
    await client.control("PATCH", "/settings", {"notFoundStatus": status})
    instance_id = await client.create()
    response = await other.raw("GET", "/gpu/instance", params={"instanceId": instance_id})
    assert response.status_code == status
    assert response.json()["reason"] == "RESOURCE_NOT_FOUND"


BILLS: dict[str, str | int] = {"cycleType": "Hour", "productCategory": "gpu"}


async def test_jobs_metrics_and_bills_belong_to_the_account(client: Client, other: Client) -> None:
    """None of them shows instances of other accounts, and bills have one user per account."""
    instance_id = await client.running()
    job = (await client.post("/gpu/instance/migrate", {"instanceId": instance_id}))["jobId"]
    assert (await client.get("/jobs"))["total"] == 1
    assert (await other.get("/jobs"))["total"] == 0
    error = await other.refused("/job/break", {"jobId": job})
    assert error["reason"] == "JOB_NOT_FOUND"
    params = {"instanceId": instance_id}
    response = await other.raw("GET", "/openapi/v1/metrics/gpu/instance", params=params)
    assert response.status_code == 400
    await other.running()
    await client.advance(2 * 3600)
    bills = [
        cast("list[Json]", (await each.get("/openapi/v1/billing/bill/list", **BILLS))["bills"])
        for each in (client, other)
    ]
    assert all(bills)
    assert {row["ownerID"] for row in bills[0]} == {instance_id}
    assert bills[0][0]["userId"] != bills[1][0]["userId"]


async def test_a_rotated_key_sees_what_the_old_one_sees(client: Client, other: Client) -> None:
    """Keys of one account share its instances; a key is given as itself or as its label."""
    await client.create()
    assigned = await client.control(
        "POST", "/accounts", {"keys": [caller_label("test-key"), "other-key"]}
    )
    assert assigned["keys"] == [caller_label("test-key"), caller_label("other-key")]
    assert assigned["account"] == caller_label("test-key")
    assert await names(other) == await names(client) == ["my-instance"]


async def test_a_key_can_be_moved_to_an_empty_account_and_back(client: Client) -> None:
    """Instances stay in the account in which they were created, even if their key is moved."""
    await client.control("PATCH", "/settings", {"accountPerKey": True})
    await client.create()
    home = caller_label("test-key")
    await client.control("POST", "/accounts", {"keys": ["test-key"], "account": "empty"})
    assert await client.get("/gpu/instances") == {"instances": [], "total": 0}
    await client.control("POST", "/accounts", {"keys": ["test-key"], "account": home})
    assert await names(client) == ["my-instance"]


async def test_seeded_instances_belong_to_the_account_that_is_named(
    client: Client, other: Client
) -> None:
    """`account`, or else `createdBy`, sets the account; it can be changed later."""
    await client.control("POST", "/accounts", {"keys": ["test-key"], "account": "ours"})
    [first] = await client.seed(names=["first"], account="ours")
    await client.seed(names=["second"], createdBy="ours")
    await client.seed(names=["stranger"])
    assert await names(client) == ["second", "first"]
    account = {"account": caller_label("other-key")}
    await client.control("PATCH", f"/instances/{first}", account)
    assert await names(client) == ["second"]
    assert await names(other) == ["first"]


async def test_the_control_side_shows_all_instances_with_their_account(
    client: Client, other: Client
) -> None:
    """Lists all instances or those of one account, and counts them per account."""
    await client.control("POST", "/accounts", {"keys": ["test-key"], "account": "ours"})
    await client.create(name="mine")
    doomed = await other.create(name="theirs")
    await client.control("POST", f"/instances/{doomed}/delete", {})
    reply = await client.control("GET", "/instances")
    label = caller_label("other-key")
    rows = cast("list[Json]", reply["instances"])
    assert {row["name"]: row["account"] for row in rows} == {"mine": "ours", "theirs": label}
    assert (await client.control("GET", f"/instances?account={label}"))["total"] == 1
    assert (await client.control("GET", "/accounts"))["accounts"] == [
        {"account": label, "keys": [], "instances": 1, "live": 0},
        {"account": "ours", "keys": [caller_label("test-key")], "instances": 1, "live": 1},
    ]
    await client.control("POST", "/reset")
    assert (await client.control("GET", "/accounts"))["accounts"] == []
