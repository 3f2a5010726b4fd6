# SPDX-License-Identifier: Apache-2.0
"""Exact field sets and types of API responses (upstream.md §2 to §5)."""

from __future__ import annotations

from typing import cast

import pytest

from tests.emulator.client import Client, Json

ALWAYS_STRINGS = ("cpuNum", "memory", "gpuNum", "endTime", "spotReclaimTime", "createdAt")

INSTANCE_FIELDS = {
    "id", "name", "clusterId", "clusterName", "status", "imageUrl", "imageAuthId", "command",
    "entrypoint", "cpuNum", "memory", "gpuNum", "productId", "productName", "rootfsSize",
    "portMappings", "volumeMounts", "statusError", "network", "node", "envs", "tools", "jobs",
    "kind", "billingMode", "endTime", "spotStatus", "spotReclaimTime", "createdAt",
    "lastStartedAt", "lastStoppedAt", "instancePrice", "freeStorageSize", "keepDataDay",
    "releaseDataAt", "exitedLocalStoragePrice",
    "connectComponentSSH", "connectComponentWebTerminal", "connectComponentJupyter",
    "connectComponentLog",
}  # fmt: skip

PRODUCT_FIELDS = {
    "id", "name", "cpuPerGpu", "memoryPerGpu", "diskPerGpu", "availableDeploy", "canBuy",
    "minRootFS", "maxRootFS", "minLocalStorage", "maxLocalStorage", "regions", "price",
    "monthlyPrice", "billingMethods", "inventoryState", "prices", "spotPrice",
}  # fmt: skip


async def test_an_instance_has_the_field_set_of_the_api(client: Client) -> None:
    """An instance has every field in every status, and 64-bit numbers are strings."""
    instance_id = await client.create()
    for _ in range(2):
        shown = await client.instance(instance_id)
        assert set(shown) == INSTANCE_FIELDS
        for name in ALWAYS_STRINGS:
            assert isinstance(shown[name], str), name
        assert isinstance(shown["rootfsSize"], int)
        assert isinstance(shown["node"], dict)
        await client.advance(300)


@pytest.mark.parametrize(
    ("setting", "value", "fields"),
    [
        ("creationTimes", False, {"createdAt"}),
        ("instancePrices", False, {"instancePrice"}),
        ("startStopTimes", False, {"lastStartedAt", "lastStoppedAt"}),
        ("releaseTimes", False, {"releaseDataAt"}),
        ("exitedStoragePrice", None, {"exitedLocalStoragePrice"}),
    ],
)
async def test_fields_that_are_not_documented_can_be_left_out(
    client: Client, setting: str, value: object, fields: set[str]
) -> None:
    """The setting removes the fields from get and list, and restores them."""
    instance_id = await client.create()
    await client.rows()
    before = (await client.control("GET", "/settings"))[setting]
    await client.control("PATCH", "/settings", {setting: value})
    assert set(await client.instance(instance_id)) == INSTANCE_FIELDS - fields
    assert set((await client.rows())[0]) == INSTANCE_FIELDS - fields
    await client.control("PATCH", "/settings", {setting: before})
    assert set((await client.rows())[0]) == INSTANCE_FIELDS


@pytest.mark.parametrize(("mode", "price"), [("onDemand", 2 * 30_000), ("spot", 2 * 15_000)])
async def test_the_price_is_that_of_the_purchase_for_all_gpus(
    client: Client, mode: str, price: int
) -> None:
    """A price change affects new instances only; the price covers all GPUs."""
    body: Json = {"gpuNum": 2, "billingMode": mode}
    old = await client.create(**body)
    change = {"price": 90_000, "spotPrice": 90_000}
    await client.control("PATCH", "/products/gpu-basic.8c32g", change)
    new = await client.create(**body)
    assert (await client.instance(old))["instancePrice"] == str(price)
    assert (await client.instance(new))["instancePrice"] == str(180_000)


async def test_instances_follow_a_price_if_told_so(client: Client) -> None:
    """Each has the price of its mode for all its GPUs; a prepaid one keeps what was paid."""
    product = {"productId": "4090.16c62g", "gpuNum": 2}
    prices = {"onDemand": "80000", "spot": "60000", "monthly": "70000"}
    found = {mode: await client.create(billingMode=mode, **product) for mode in prices}
    change = {"price": 40_000, "spotPrice": 30_000, "instancesFollow": True}
    await client.control("PATCH", "/products/4090.16c62g", change)
    for mode, price in prices.items():
        assert (await client.instance(found[mode]))["instancePrice"] == price


async def test_starts_and_stops_are_told_with_their_time(client: Client) -> None:
    """The times are 0 at first, then the Unix seconds of the last start and stop.

    A run starts when its billing does: with `pulling` after a create, with `running` after a start.
    """
    instance_id = await client.create()
    shown = await client.instance(instance_id)
    assert (shown["lastStartedAt"], shown["lastStoppedAt"]) == ("0", "0")
    await client.advance(300)
    started = (await client.instance(instance_id))["lastStartedAt"]
    assert int(str(started)) > int(str(shown["createdAt"]))
    await client.post("/gpu/instance/stop", {"instanceId": instance_id})
    await client.advance(300)
    shown = await client.instance(instance_id)
    assert shown["lastStartedAt"] == started
    assert int(str(shown["lastStoppedAt"])) > int(str(started))
    steps = await client.timeline(instance_id)
    assert int(str(started)) == int(steps["pulling"])
    assert int(str(shown["lastStoppedAt"])) == int(steps["exited"])
    await client.post("/gpu/instance/start", {"instanceId": instance_id})
    await client.advance(300)
    again = int(str((await client.instance(instance_id))["lastStartedAt"]))
    assert again == int((await client.timeline(instance_id))["running"])
    assert again > int(str(started))


async def test_get_and_list_show_the_same_row(client: Client) -> None:
    """Get and list return the same row."""
    instance_id = await client.running(ports="80/http", tools=[jupyter()])
    assert await client.rows() == [await client.instance(instance_id)]


async def test_docs_mode_has_the_types_of_the_documentation(client: Client) -> None:
    """In docs mode, `node` is a list, and volume sizes and prices are numbers."""
    storage = await client.post(
        "/networkstorage/create",
        {"clusterId": "us-west-1", "storageName": "data", "storageSize": 50},
    )
    mounts = [{"Id": storage["storageId"], "mountPoint": "/data"}]
    instance_id = await client.create(networkStorages=mounts, clusterId="us-west-1")
    volume = {"type": "network", "size": "50", "id": storage["storageId"], "mountPath": "/data"}
    assert (await client.instance(instance_id))["volumeMounts"] == [volume]

    await client.control("PATCH", "/settings", {"docsMode": True})
    shown = await client.instance(instance_id)
    assert shown["node"] == [{"maxRootfsSize": 6144}]
    assert shown["volumeMounts"] == [{**volume, "size": 50}]
    product = cast("list[Json]", (await client.get("/products"))["data"])[0]
    assert product["price"] == 30000


async def test_a_product_has_the_field_set_of_the_api(client: Client) -> None:
    """Prices are strings, and only spotPrice may be absent."""
    rows = cast("list[Json]", (await client.get("/products"))["data"])
    assert len(rows) >= 8
    for row in rows:
        assert set(row) | {"spotPrice"} == PRODUCT_FIELDS
        assert isinstance(row["price"], str)
        assert row["inventoryState"] in {"none", "low", "normal", "high"}
    assert any("spotPrice" not in row for row in rows)
    assert any(row["spotPrice"] == "0" for row in rows if "spotPrice" in row)


async def test_a_cluster_has_the_field_set_of_the_api(client: Client) -> None:
    """A cluster has all five keys, and names that differ from their IDs."""
    rows = cast("list[Json]", (await client.get("/clusters"))["data"])
    names = {str(row["name"]).split(" ")[0] for row in rows}
    assert {"US-WEST-01", "CN-HK-01", "EU-WEST-01"} <= names
    assert len(rows) >= 6
    for row in rows:
        assert set(row) == {
            "id",
            "name",
            "availableGpuType",
            "supportNetworkStorage",
            "supportInstanceNetwork",
        }


async def test_connect_components_appear_with_running_and_change_with_each_start(
    client: Client,
) -> None:
    """SSH, Jupyter and terminal data is empty before the first start and new after each start."""
    instance_id = await client.create(tools=[jupyter()], ports="8888/http")
    shown = await client.instance(instance_id)
    assert shown["connectComponentSSH"] == {"sshCommand": "", "password": "", "isRunning": False}
    assert shown["portMappings"] == []
    await client.advance(300)
    first = await client.instance(instance_id)
    ssh = cast("Json", first["connectComponentSSH"])
    assert str(ssh["sshCommand"]).startswith("ssh -p ")
    assert str(ssh["sshCommand"]).endswith(" root@127.0.0.1")
    assert cast("Json", first["connectComponentJupyter"])["isRunning"] is True

    await client.post("/gpu/instance/stop", {"instanceId": instance_id})
    await client.advance(60)
    assert (await client.instance(instance_id))["portMappings"] == []
    await client.post("/gpu/instance/start", {"instanceId": instance_id})
    await client.advance(300)
    second = await client.instance(instance_id)
    for name in ("connectComponentSSH", "connectComponentWebTerminal", "portMappings"):
        assert first[name] != second[name], name


async def test_a_rendered_row_is_never_stale(client: Client) -> None:
    """A cached row is refreshed when its instance changes and when its status changes in time."""
    instance_id = await client.running(ports="80/http")
    assert (await client.rows())[0]["name"] == "my-instance"
    await client.control("PATCH", f"/instances/{instance_id}", {"name": "other"})
    assert (await client.rows())[0]["name"] == "other"
    await client.post("/gpu/instance/stop", {"instanceId": instance_id})
    assert (await client.rows())[0]["status"] == "toStop"
    await client.advance(60)
    assert (await client.rows())[0]["status"] == "exited"


def jupyter() -> Json:
    """Return the Jupyter tool as a create request specifies it."""
    return {"name": "Jupyter", "port": "8888", "type": "http"}
