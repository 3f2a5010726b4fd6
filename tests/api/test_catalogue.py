# SPDX-License-Identifier: Apache-2.0
"""Promises of the catalogue routes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from pydantic import TypeAdapter

from novitai.api import schemas
from novitai.domain.instance import BillingMode, LaunchSpec, Port, PortType
from novitai.domain.product import Cluster, Offer, Template
from novitai.upstream.errors import Timeout, UpstreamError
from tests.api.conftest import Api, ApiFactory

HONG_KONG = Cluster("cn-hk-1", "CN-HK-01 (Hong Kong)")
WEST = Cluster("us-west-1", "US-WEST-01")


def offer(product: str, cluster: Cluster, price: int | None, spot: int | None = None) -> Offer:
    """Make an offer."""
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
    """A catalogue."""
    return FakeCatalogue()


@pytest.fixture
async def offering(factory: ApiFactory, catalogue: FakeCatalogue) -> Api:
    """An application with a catalogue."""
    return await factory.make(catalogue=catalogue)


async def test_products_are_listed_once_with_their_best_prices(offering: Api) -> None:
    """One entry for a product, USD per GPU-hour, cheapest first; what is not offered is absent."""
    answer = await offering.call("GET", "/api/products")
    TypeAdapter(schemas.ListProductsResponse).validate_python(answer.json())
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


@pytest.mark.parametrize(
    ("query", "products", "asked"),
    [
        ("region=us-west-01", ["a"], (BillingMode.ON_DEMAND, 1)),
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
    """By region in any case, by billing mode, and for so many GPUs."""
    answer = await offering.call("GET", f"/api/products?{query}")
    assert [product["id"] for product in answer.json()["products"]] == products
    assert catalogue.asked == [asked]


async def test_templates_are_listed_without_their_secrets(offering: Api) -> None:
    """`envs` of a template are nobody's to read here."""
    answer = await offering.call("GET", "/api/templates")
    TypeAdapter(schemas.ListTemplatesResponse).validate_python(answer.json())
    assert answer.json()["templates"][0]["ports"] == [{"port": 22, "type": "tcp"}]
    assert "hunter2" not in answer.text


async def test_regions_are_listed_in_pages_that_lead_on(offering: Api) -> None:
    """Each once, with the default marked."""
    names, path = [], "/api/regions?limit=2"
    for _ in range(2):
        answer = await offering.call("GET", path)
        TypeAdapter(schemas.ListRegionsResponse).validate_python(answer.json())
        names += [(region["name"], region["default"]) for region in answer.json()["regions"]]
        link = answer.headers.get("Link", "<>")
        path = link[1 : link.index(">")]
    assert names == [("CN-HK-01", True), ("US-WEST-01", False), ("EU-WEST-01", False)]
    assert path == ""


@pytest.mark.parametrize(
    "query", ["gpuNum=0", "gpuNum=x", "billingMode=monthly", "cursor=x", "limit=0", "color=red"]
)
async def test_a_wrong_query_is_refused(offering: Api, query: str) -> None:
    """As everywhere."""
    answer = await offering.call("GET", f"/api/products?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == query.partition("=")[0]


@pytest.mark.parametrize("path", ["/api/products", "/api/templates", "/api/regions"])
async def test_when_novita_does_not_tell_it_is_not_the_clients_fault(
    offering: Api, catalogue: FakeCatalogue, path: str
) -> None:
    """504 where Novita was too slow and no copy is at hand."""
    catalogue.error = Timeout("too slow")
    answer = await offering.call("GET", path)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "UPSTREAM_TIMEOUT"
