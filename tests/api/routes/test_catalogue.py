# SPDX-License-Identifier: Apache-2.0
"""Tests of the catalogue routes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from pydantic import TypeAdapter

from novitai.api.routing import upstream_data
from novitai.api.schemas.catalogue import (
    ListProductsResponse,
    ListRegionsResponse,
    ListTemplatesResponse,
)
from novitai.domain.api_key import Scope
from novitai.domain.instance import BillingMode, LaunchSpec, Port, PortType
from novitai.domain.product import Cluster, Offer, Template
from novitai.upstream.errors import Timeout, UpstreamError
from tests.api.application import Api, ApiFactory
from tests.api.client import ApiProcess
from tests.lifecycle.world import Emulator

HONG_KONG = Cluster("cn-hk-1", "CN-HK-01 (Hong Kong)")
WEST = Cluster("us-west-1", "US-WEST-01")


def offer(product: str, cluster: Cluster, price: int | None, spot: int | None = None) -> Offer:
    """Build an offer."""
    return Offer(product, f"GPU {product}", cluster, price == 35000, price, spot, 16, 62, 10, 6144)


@dataclass
class FakeCatalogue:
    """A catalogue in memory."""

    error: UpstreamError | None = None
    asked: list[tuple[BillingMode, int]] = field(default_factory=list)

    async def regions(self) -> Sequence[str]:
        if self.error is not None:
            raise self.error
        return ("CN-HK-01", "US-WEST-01", "EU-WEST-01")

    async def offers(self, billing_mode: BillingMode, gpu_num: int) -> Sequence[Offer]:
        if self.error is not None:
            raise self.error
        self.asked.append((billing_mode, gpu_num))
        return [
            offer("b", HONG_KONG, 60000),
            offer("a", HONG_KONG, 40000, 17500),
            offer("a", WEST, 35000),
        ]

    async def templates(self) -> Sequence[Template]:
        if self.error is not None:
            raise self.error
        launch = LaunchSpec("image:1", ports=(Port(22, PortType.TCP),), envs={"P": "hunter2"})
        return [Template("107672", "pytorch", "image:1", 60, "official", launch)]


@pytest.fixture
def catalogue() -> FakeCatalogue:
    """Return a catalogue."""
    return FakeCatalogue()


@pytest.fixture
async def offering(factory: ApiFactory, catalogue: FakeCatalogue) -> Api:
    """Return an application with a catalogue."""
    return await factory.make(catalogue=catalogue)


async def test_products_are_listed_once_with_their_best_prices(offering: Api) -> None:
    """One entry per product, in USD per GPU-hour, cheapest first; missing prices are absent."""
    answer = await offering.call("GET", "/api/products")
    TypeAdapter(ListProductsResponse).validate_python(answer.json())
    first, second = answer.json()["products"]
    assert first == {
        "id": "a",
        "name": "GPU a",
        "regions": ["CN-HK-01", "US-WEST-01"],
        "available": True,
        "onDemandPrice": 0.35,
        "spotPrice": 0.175,
        "cpuPerGpu": 16,
        "memoryPerGpu": 62,
        "minRootfsSize": 10,
        "maxRootfsSize": 6144,
    }
    assert (second["id"], second["available"]) == ("b", False)
    assert "spotPrice" not in second


async def test_what_is_offered_only_as_spot_is_not_the_cheapest(
    offering: Api, catalogue: FakeCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after all products with a price in the requested mode, without `onDemandPrice`."""
    found = [*await catalogue.offers(BillingMode.ON_DEMAND, 1), offer("0", WEST, None, 100)]

    async def offers(_billing_mode: BillingMode, _gpu_num: int) -> Sequence[Offer]:
        return found

    monkeypatch.setattr(catalogue, "offers", offers)
    products = (await offering.call("GET", "/api/products")).json()["products"]
    assert [one["id"] for one in products] == ["a", "b", "0"]
    assert "onDemandPrice" not in products[-1]
    spot = (await offering.call("GET", "/api/products?billingMode=spot")).json()["products"]
    assert [one["id"] for one in spot] == ["0", "a"]


@pytest.mark.parametrize(
    ("query", "products", "asked"),
    [
        ("region=us-west-01", ["a"], (BillingMode.ON_DEMAND, 1)),
        ("region=Any", ["a", "b"], (BillingMode.ON_DEMAND, 1)),
        ("billingMode=spot", ["a"], (BillingMode.SPOT, 1)),
        ("gpuNum=8", ["a", "b"], (BillingMode.ON_DEMAND, 8)),
        ("region=EU-WEST-01", [], (BillingMode.ON_DEMAND, 1)),
    ],
)
async def test_products_can_be_narrowed(
    offering: Api,
    catalogue: FakeCatalogue,
    query: str,
    products: list[str],
    asked: tuple[BillingMode, int],
) -> None:
    """The filters are the region in any letter case, the billing mode and the number of GPUs."""
    answer = await offering.call("GET", f"/api/products?{query}")
    assert [product["id"] for product in answer.json()["products"]] == products
    assert catalogue.asked == [asked]


async def test_templates_are_listed_without_their_secrets(offering: Api) -> None:
    """The response does not contain the `envs` of a template."""
    answer = await offering.call("GET", "/api/templates")
    TypeAdapter(ListTemplatesResponse).validate_python(answer.json())
    assert answer.json()["templates"][0]["ports"] == [{"port": 22, "type": "tcp"}]
    assert "hunter2" not in answer.text


async def test_regions_are_listed_in_pages_that_lead_on(offering: Api) -> None:
    """Each region is listed once, and the default is marked."""
    names, path = [], "/api/regions?limit=2"
    for _ in range(2):
        answer = await offering.call("GET", path)
        TypeAdapter(ListRegionsResponse).validate_python(answer.json())
        names += [(region["name"], region["default"]) for region in answer.json()["regions"]]
        link = answer.headers.get("Link", "<>")
        path = link[1 : link.index(">")]
    assert names == [("CN-HK-01", True), ("US-WEST-01", False), ("EU-WEST-01", False)]
    assert path == ""


@pytest.mark.parametrize(
    "query", ["gpuNum=0", "gpuNum=x", "billingMode=monthly", "cursor=x", "limit=0", "color=red"]
)
async def test_a_wrong_query_is_refused(offering: Api, query: str) -> None:
    """An invalid query is 400."""
    answer = await offering.call("GET", f"/api/products?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == query.partition("=")[0]


@pytest.mark.parametrize("path", ["/api/products", "/api/templates", "/api/regions"])
async def test_when_novita_does_not_tell_it_is_not_the_clients_fault(
    offering: Api, catalogue: FakeCatalogue, path: str
) -> None:
    """If Novita is too slow and nothing is cached, the response is 504."""
    catalogue.error = Timeout("too slow")
    answer = await offering.call("GET", path)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "UPSTREAM_TIMEOUT"


async def test_what_is_listed_is_what_novita_offers(api_process: ApiProcess) -> None:
    """Over the real catalogue: products in USD, filtered by mode; templates; regions."""
    listed = (await api_process.call("GET", "/v1/api/products", scope=Scope.READ)).json()[
        "products"
    ]
    by_id = {product["id"]: product for product in listed}
    assert len(by_id) == len(listed)
    basic = by_id["gpu-basic.8c32g"]
    assert (basic["onDemandPrice"], basic["spotPrice"]) == (0.3, 0.15)
    assert basic["regions"] == ["EU-WEST-01", "US-WEST-01"]
    assert basic["available"] is True
    spot = await api_process.call("GET", "/api/products?billingMode=spot&region=AS-SGP-02")
    assert [product["id"] for product in spot.json()["products"]] == ["gpu-basic.8c32g.spot"]
    assert "onDemandPrice" not in spot.json()["products"][0]
    templates = await api_process.call("GET", "/api/templates")
    assert "tmpl-12345" in [template["id"] for template in templates.json()["templates"]]
    assert '"envs"' not in templates.text
    names = [
        region["name"]
        for region in (await api_process.call("GET", "/api/regions")).json()["regions"]
    ]
    assert names[:3] == ["CN-HK-01", "US-WEST-01", "EU-WEST-01"]
    assert "US-CA-06" in names


@pytest.mark.parametrize(
    ("path", "upstream"),
    [
        ("/api/products", "/products"),
        ("/api/templates", "/templates"),
        ("/api/regions", "/clusters"),
    ],
)
async def test_a_copy_stands_in_for_a_day(
    api_process: ApiProcess, emulator: Emulator, path: str, upstream: str
) -> None:
    """While Novita fails, lists are served from the cache for a day; without a cache it is 502."""
    fault = {"kind": "call", "path": upstream, "method": "GET", "status": 400}
    await emulator.call("POST", "faults", json=fault)
    answer = await api_process.through(api_process.call("GET", path), within=60)
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "EXTERNAL_API_ERROR"
    await emulator.call("DELETE", "faults")
    whole = (await api_process.call("GET", path)).json()
    await emulator.call("POST", "faults", json={**fault, "status": 500})
    await api_process.clock.advance(12 * 3600)
    stale = await api_process.through(api_process.call("GET", path), within=60)
    assert (stale.status_code, stale.json()) == (200, whole)
    await api_process.clock.advance(13 * 3600)
    gone = await api_process.through(api_process.call("GET", path), within=60)
    assert gone.status_code in {502, 503}


async def test_a_novita_that_hangs_is_told_in_time(
    offering: Api, catalogue: FakeCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response is 504 shortly before our own limit, which would give 408."""

    async def hang() -> Sequence[str]:
        await asyncio.Event().wait()
        return ()

    monkeypatch.setattr(catalogue, "regions", hang)
    # Reserve almost all of the request's 30 seconds for the response.
    monkeypatch.setattr(upstream_data, "_FOR_THE_ANSWER", 29.99)
    answer = await offering.call("GET", "/api/regions")
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "UPSTREAM_TIMEOUT")
