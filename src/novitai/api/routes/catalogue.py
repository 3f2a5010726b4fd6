# SPDX-License-Identifier: Apache-2.0
"""`/api/products`, `/api/templates`, `/api/regions`: the catalogue, from the caches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import Field
from starlette.responses import Response

from novitai.api.routing.common_errors import BAD_QUERY
from novitai.api.routing.lists import listed
from novitai.api.routing.queries import Few, OffsetQuery, OneOf
from novitai.api.routing.router import Route, RouteCall
from novitai.api.routing.upstream_data import AWAY, from_novita
from novitai.api.schemas.catalogue import (
    ListProductsResponse,
    ListRegionsResponse,
    ListTemplatesResponse,
    PortView,
    ProductView,
    RegionView,
    TemplateView,
)
from novitai.api.schemas.wire import VISIBLE, Wording, absent
from novitai.api.services import CataloguePort
from novitai.domain.api_key import Scope
from novitai.domain.instance import BillingMode
from novitai.domain.product import DEFAULT_REGION, Offer, Template, is_any_region, usd_or_none

T = TypeVar("T")


class ProductsQuery(OffsetQuery):
    """Which products to list."""

    region: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            pattern=VISIBLE,
            description="Only products of this region; `any` for all",
        ),
        Wording("Region"),
    ] = absent()
    billing_mode: Annotated[
        BillingMode,
        Field(description="Only products offered in this billing mode"),
        OneOf("Billing mode"),
    ] = absent()
    gpu_num: Annotated[
        int, Field(description="Number of GPUs per instance"), Few("GPU number", most=8)
    ] = 1


class CatalogueRoutes:
    """Handlers of the catalogue routes."""

    def __init__(self, catalogue: CataloguePort) -> None:
        self._catalogue = catalogue

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [
            Route(
                method="GET",
                path="/api/products",
                id="listProducts",
                handler=self.products,
                scope=Scope.READ,
                tag="Catalogue",
                summary="List products",
                answers={200: ListProductsResponse},
                errors=[BAD_QUERY, *AWAY],
            ),
            Route(
                method="GET",
                path="/api/templates",
                id="listTemplates",
                handler=self.templates,
                scope=Scope.READ,
                tag="Catalogue",
                summary="List templates",
                answers={200: ListTemplatesResponse},
                errors=[BAD_QUERY, *AWAY],
            ),
            Route(
                method="GET",
                path="/api/regions",
                id="listRegions",
                handler=self.regions,
                scope=Scope.READ,
                tag="Catalogue",
                summary="List regions",
                answers={200: ListRegionsResponse},
                errors=[BAD_QUERY, *AWAY],
            ),
        ]

    async def products(self, call: RouteCall, query: ProductsQuery) -> Response:
        """List products with their prices in USD per GPU-hour.

        They are sorted by price in `billingMode` (default `onDemand`), cheapest first; products
        that are not offered in that mode come last.
        """
        anywhere = not query.region or is_any_region(query.region)
        mode = query.billing_mode or BillingMode.ON_DEMAND
        offers = await from_novita(call, self._catalogue.offers(mode, query.gpu_num))
        by_product: dict[str, list[Offer]] = {}
        for offer in offers:
            here = anywhere or offer.cluster.region.casefold() == query.region.casefold()
            if here and (not query.billing_mode or offer.price(mode) is not None):
                by_product.setdefault(offer.product_id, []).append(offer)
        found = sorted(
            by_product.values(),
            key=lambda same: (_rank(_cheapest(same, mode)), same[0].product_id),
        )
        shown, after = _page(query, [_product(same) for same in found])
        return listed(call, ListProductsResponse(products=shown, next_cursor=after))

    async def templates(self, call: RouteCall, query: OffsetQuery) -> Response:
        """List templates, without their secrets."""
        templates = await from_novita(call, self._catalogue.templates())
        shown, after = _page(query, [_template(one) for one in templates])
        return listed(call, ListTemplatesResponse(templates=shown, next_cursor=after))

    async def regions(self, call: RouteCall, query: OffsetQuery) -> Response:
        """List the regions that a request may name."""
        regions = await from_novita(call, self._catalogue.regions())
        known = [RegionView(name=name, default=name == DEFAULT_REGION) for name in regions]
        shown, after = _page(query, known)
        return listed(call, ListRegionsResponse(regions=shown, next_cursor=after))


def _page(query: OffsetQuery, items: list[T]) -> tuple[list[T], str | None]:
    start = int(query.cursor or 0)
    end = start + query.most
    return items[start:end], str(end) if end < len(items) else None


def _product(offers: Sequence[Offer]) -> ProductView:
    first = offers[0]
    return ProductView(
        id=first.product_id,
        name=first.product_name,
        regions=sorted({offer.cluster.region for offer in offers}),
        available=any(offer.available for offer in offers),
        on_demand_price=usd_or_none(_cheapest(offers, BillingMode.ON_DEMAND)),
        spot_price=usd_or_none(_cheapest(offers, BillingMode.SPOT)),
        cpu_per_gpu=first.cpu_per_gpu,
        memory_per_gpu=first.memory_per_gpu,
        min_rootfs_size=first.min_rootfs_size,
        max_rootfs_size=first.max_rootfs_size,
    )


def _cheapest(offers: Sequence[Offer], billing_mode: BillingMode) -> int | None:
    prices = [price for offer in offers if (price := offer.price(billing_mode)) is not None]
    return min(prices, default=None)


def _rank(price: int | None) -> float:
    return math.inf if price is None else price


def _template(template: Template) -> TemplateView:
    ports = template.launch.watched_ports()
    return TemplateView(
        id=template.id,
        name=template.name,
        image=template.image,
        channel=template.channel,
        rootfs_size=template.rootfs_size,
        ports=[PortView(port=port.port, type=port.type.value) for port in ports],
    )
