# SPDX-License-Identifier: Apache-2.0
"""The catalogue, and creates from it."""

from __future__ import annotations

from typing import cast

import pytest

from tests.emulator.client import Client, Json


async def products(client: Client, **params: str | int) -> dict[str, Json]:
    """Return the product list, keyed by ID."""
    rows = cast("list[Json]", (await client.get("/products", **params))["data"])
    return {str(row["id"]): row for row in rows}


async def test_one_name_is_offered_at_several_prices(client: Client) -> None:
    """gpu-basic is offered on demand in three regions under at least two IDs and prices."""
    clusters = cast("list[Json]", (await client.get("/clusters"))["data"])
    ids = {str(row["name"]).split(" ")[0]: str(row["id"]) for row in clusters}
    prices = set()
    for region in ("CN-HK-01", "US-WEST-01", "EU-WEST-01"):
        rows = await products(client, clusterId=ids[region], productName="gpu-basic", gpuNum=2)
        offered = [row for row in rows.values() if row["availableDeploy"]]
        assert offered, region
        assert all(row["price"] != "0" for row in offered)
        prices |= {(row["id"], row["price"]) for row in offered}
    assert len(prices) >= 2


async def test_availability_depends_on_cluster_billing_and_number(client: Client) -> None:
    """A product can be available on demand but not as spot, or for one GPU but not for eight."""
    on_demand = await products(client, clusterId="eu-west-1")
    spot = await products(client, clusterId="eu-west-1", billingMethod="spot")
    many = await products(client, clusterId="eu-west-1", gpuNum=8)
    assert on_demand["L40S.22c125g"]["availableDeploy"] is True
    assert spot["L40S.22c125g"]["availableDeploy"] is False
    assert many["3090.16c92g"]["availableDeploy"] is False
    assert "4090.16c62g" not in on_demand


async def test_there_are_spot_only_on_demand_only_and_sold_out_products(client: Client) -> None:
    """The catalogue contains every kind of offer."""
    rows = await products(client)
    assert rows["gpu-basic.8c32g.spot"]["billingMethods"] == ["spot"]
    assert rows["L40S.22c125g"]["billingMethods"] == ["onDemand"]
    assert rows["6000Ada.16c125g"]["inventoryState"] == "none"
    assert rows["6000Ada.16c125g"]["availableDeploy"] is False


async def test_products_are_found_by_part_of_their_name(client: Client) -> None:
    """The filter matches a part of the name, ignoring case."""
    rows = await products(client, productName="rtx 4090")
    assert len(rows) == 4
    assert await products(client, minMemoryPerGpu=240) != {}
    assert await products(client, minCpuPerGpu=1000) == {}


async def test_a_wrong_billing_method_is_refused(client: Client) -> None:
    """An unknown billing method is refused with VALIDATOR_PARAM."""
    response = await client.raw("GET", "/products", params={"billingMethod": "yearly"})
    assert response.status_code == 400
    assert response.json()["reason"] == "VALIDATOR_PARAM"


async def test_cpu_products_come_wrapped(client: Client) -> None:
    """The list is in `data` and filtered by cluster; a CPU instance can be created."""
    rows = cast("list[Json]", (await client.get("/cpu/products", clusterId="us-ca-6"))["data"])
    assert {row["id"] for row in rows} == {"cpu.4c8g", "cpu.16c64g"}
    instance_id = await client.create(
        productId="cpu.4c8g", kind="cpu", gpuNum=None, rootfsSize=None
    )
    shown = await client.instance(instance_id)
    assert (shown["kind"], shown["cpuNum"], shown["gpuNum"]) == ("cpu", "4", "0")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"productId": "6000Ada.16c125g"}, "INSUFFICIENT_RESOURCE"),
        ({"productId": "L40S.22c125g", "billingMode": "spot"}, "UNSUPPORTED_BILLING_MODE"),
        ({"clusterId": "us-ca-6"}, "INSUFFICIENT_RESOURCE"),
        ({"clusterId": "mars-1"}, "RESOURCE_NOT_FOUND"),
        ({"productId": "nothing"}, "RESOURCE_NOT_FOUND"),
        ({"productId": ""}, "VALIDATOR_PARAM"),
        ({"gpuNum": 9}, "VALIDATOR_PARAM"),
        ({"gpuNum": "many"}, "VALIDATOR_PARAM"),
        ({"rootfsSize": 9000}, "VALIDATOR_PARAM"),
        ({"imageUrl": ""}, "VALIDATOR_PARAM"),
        ({"ports": "2222/tcp"}, "VALIDATOR_PARAM"),
        ({"ports": "80/udp"}, "VALIDATOR_PARAM"),
        ({"ports": ",".join(f"{n}/http" for n in range(1, 17))}, "VALIDATOR_PARAM"),
        ({"imageAuthId": "auth-nobody"}, "IMAGE_URL_OR_AUTH_ERROR"),
        ({"networkId": "net-nowhere"}, "NETWORK_NOT_FOUND"),
        ({"networkStorages": [{"Id": "no"}]}, "NETWORK_STORAGE_NOT_FOUND"),
    ],
)
async def test_a_create_that_cannot_be_is_refused(
    client: Client, change: Json, reason: str
) -> None:
    """The error has the documented reason, and nothing is created."""
    body: Json = {
        "productId": "gpu-basic.8c32g",
        "gpuNum": 1,
        "rootfsSize": 60,
        "imageUrl": "ubuntu",
        **change,
    }
    assert (await client.refused("/gpu/instance/create", body))["reason"] == reason
    assert (await client.control("GET", "/instances"))["total"] == 0


async def test_unknown_and_empty_fields_of_a_create_are_ignored(client: Client) -> None:
    """Unknown fields, empty IDs and empty lists are ignored, and `kind` is optional."""
    instance_id = await client.create(
        env=[{"key": "A", "value": "b"}],
        clusterId="",
        networkId="",
        month=0,
        tools=[],
        envs=[],
        command="",
        kind=None,
        rootfsSize=5,
    )
    shown = await client.instance(instance_id)
    assert (shown["rootfsSize"], shown["envs"], shown["kind"]) == (10, [], "gpu")
    assert len(instance_id) == 16
    assert int(instance_id, 16) >= 0


async def test_a_private_image_needs_its_auth(client: Client) -> None:
    """Without credentials the pull fails later with a statusError; with them it succeeds."""
    template = cast("Json", (await client.get("/template", templateId="107745"))["template"])
    without = await client.create(imageUrl=template["image"])
    await client.advance(300)
    shown = await client.instance(without)
    assert shown["status"] == "exited"
    assert cast("Json", shown["statusError"])["state"] == "imagePullFailed"
    with_it = await client.create(imageUrl=template["image"], imageAuthId=template["imageAuth"])
    await client.advance(300)
    assert await client.status(with_it) == "running"


async def test_prices_and_stock_can_be_changed(client: Client) -> None:
    """A new price is listed at once; existing instances keep their price."""
    instance_id = await client.create()
    await client.control("PATCH", "/products/gpu-basic.8c32g", {"price": 99000})
    assert (await products(client))["gpu-basic.8c32g"]["price"] == "99000"
    assert (await client.instance(instance_id))["instancePrice"] == "30000"
    await client.control(
        "PATCH", "/products/gpu-basic.8c32g", {"freeGpus": 0, "clusterId": "us-west-1"}
    )
    rows = await products(client, clusterId="us-west-1")
    assert rows["gpu-basic.8c32g"]["availableDeploy"] is False
    new = {"id": "x.1", "name": "x", "price": 1, "offers": [{"clusterId": "us-ca-6"}]}
    await client.control("POST", "/products", new)
    assert "x.1" in await products(client, clusterId="us-ca-6")
    await client.control("DELETE", "/products/x.1")
    assert "x.1" not in await products(client)
