# SPDX-License-Identifier: Apache-2.0
"""`/api/products`, `/api/templates`, `/api/regions`: what there is to ask for, from the caches."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final, TypeVar

from starlette.responses import Response

from novitai.api.openapi.document import Parameter
from novitai.api.openapi.schemas import (
    ListProductsResponse,
    ListRegionsResponse,
    ListTemplatesResponse,
)
from novitai.api.routing.common_errors import BAD_QUERY
from novitai.api.routing.lists import LIMIT, MAX_LIMIT, OFFSET_CURSOR, limit, listed, offset
from novitai.api.routing.queries import one_of, query_fields, visible
from novitai.api.routing.router import Call, Operation
from novitai.api.services import CataloguePort
from novitai.domain.api_key import Scope
from novitai.domain.fields import Fields, text
from novitai.domain.instance import BillingMode
from novitai.domain.product import DEFAULT_REGION, Offer, Template, is_any_region, usd
from novitai.domain.view import present
from novitai.errors import CircuitBreakerOpen, UpstreamTimeout, UpstreamUnavailable
from novitai.lifecycle.catalogue.upstream_errors import to_client
from novitai.upstream.errors import UpstreamError

T = TypeVar("T")

_FOR_THE_ANSWER: Final = 2.0
"""Seconds of a request's time that are kept for the answer."""
_MODES: Final = tuple(mode.value for mode in BillingMode)
_GPU_NUMS: Final = tuple(str(number) for number in range(1, 9))
_AWAY: Final = (
    UpstreamUnavailable("Novita answered with an error"),
    CircuitBreakerOpen("Novita keeps failing", retry_after=30),
    UpstreamTimeout("Novita did not answer in time"),
)


class CatalogueRoutes:
    """Handlers of the catalogue routes."""

    def __init__(self, catalogue: CataloguePort) -> None:
        self._catalogue = catalogue

    def operations(self) -> list[Operation]:
        """Declare the routes."""
        return [
            Operation(
                method="GET",
                path="/api/products",
                handler=self.products,
                scope=Scope.READ,
                tag="Catalogue",
                summary="List products",
                answers={200: ListProductsResponse},
                parameters=[
                    Parameter("region", "Only what this region offers; `any` for all", visible(64)),
                    Parameter(
                        "billingMode",
                        "Only what is offered in this billing mode",
                        {"type": "string", "enum": list(_MODES)},
                    ),
                    Parameter(
                        "gpuNum",
                        "For so many GPUs",
                        {"type": "integer", "minimum": 1, "maximum": 8, "default": 1},
                    ),
                    LIMIT,
                    OFFSET_CURSOR,
                ],
                errors=[BAD_QUERY, *_AWAY],
            ),
            Operation(
                method="GET",
                path="/api/templates",
                handler=self.templates,
                scope=Scope.READ,
                tag="Catalogue",
                summary="List templates",
                answers={200: ListTemplatesResponse},
                parameters=[LIMIT, OFFSET_CURSOR],
                errors=[BAD_QUERY, *_AWAY],
            ),
            Operation(
                method="GET",
                path="/api/regions",
                handler=self.regions,
                scope=Scope.READ,
                tag="Catalogue",
                summary="List regions",
                answers={200: ListRegionsResponse},
                parameters=[LIMIT, OFFSET_CURSOR],
                errors=[BAD_QUERY, *_AWAY],
            ),
        ]

    async def products(self, call: Call) -> Response:
        """List products with their prices in USD per GPU-hour.

        The cheapest in the billing mode asked for stands first (`onDemand`, where none is); what
        is not offered in it stands last.
        """
        fields = query_fields(call)
        region = fields.read("region", text("Region", longest=64), "")
        mode = fields.read("billingMode", one_of("Billing mode", _MODES), "")
        gpu_num = fields.read("gpuNum", one_of("GPU number", _GPU_NUMS), "1")
        page = _page(fields)
        fields.finish()
        anywhere = not region or is_any_region(region)
        billing_mode = BillingMode(mode) if mode else BillingMode.ON_DEMAND
        offers = await _told(call, self._catalogue.offers(billing_mode, int(gpu_num)))
        by_product: dict[str, list[Offer]] = {}
        for offer in offers:
            here = anywhere or offer.cluster.region.casefold() == region.casefold()
            if here and (not mode or offer.price(billing_mode) is not None):
                by_product.setdefault(offer.product_id, []).append(offer)
        found = sorted(
            by_product.values(),
            key=lambda same: (_rank(_cheapest(same, billing_mode)), same[0].product_id),
        )
        return _answer(call, "products", [_product(same) for same in found], page)

    async def templates(self, call: Call) -> Response:
        """List templates. What is secret in them is not shown."""
        fields = query_fields(call)
        page = _page(fields)
        fields.finish()
        templates = await _told(call, self._catalogue.templates())
        return _answer(call, "templates", [_template(one) for one in templates], page)

    async def regions(self, call: Call) -> Response:
        """List the regions that may be asked for."""
        fields = query_fields(call)
        page = _page(fields)
        fields.finish()
        regions = await _told(call, self._catalogue.regions())
        shown = [{"name": name, "default": name == DEFAULT_REGION} for name in regions]
        return _answer(call, "regions", shown, page)


async def _told(call: Call, asked: Awaitable[T]) -> T:
    """Wait for what Novita tells, for as long as the request has time."""
    try:
        async with asyncio.timeout(max(0.0, call.seconds_left - _FOR_THE_ANSWER)):
            return await asked
    except TimeoutError:
        raise UpstreamTimeout("Novita did not answer in time") from None
    except UpstreamError as error:
        raise to_client(error) from error


def _page(fields: Fields) -> tuple[int, int]:
    start = fields.read("cursor", offset, 0)
    return start, fields.read("limit", limit, MAX_LIMIT)


def _answer(
    call: Call, name: str, items: Sequence[Mapping[str, object]], page: tuple[int, int]
) -> Response:
    start, most = page
    end = start + most
    return listed(call, name, items[start:end], str(end) if end < len(items) else None)


def _product(offers: Sequence[Offer]) -> dict[str, object]:
    first = offers[0]
    return present(
        {
            "id": first.product_id,
            "name": first.product_name,
            "regions": sorted({offer.cluster.region for offer in offers}),
            "available": any(offer.available for offer in offers),
            "onDemandPrice": _usd(_cheapest(offers, BillingMode.ON_DEMAND)),
            "spotPrice": _usd(_cheapest(offers, BillingMode.SPOT)),
            "cpuPerGpu": first.cpu_per_gpu,
            "memoryPerGpu": first.memory_per_gpu,
            "minRootfsSize": first.min_rootfs_size,
            "maxRootfsSize": first.max_rootfs_size,
        }
    )


def _cheapest(offers: Sequence[Offer], billing_mode: BillingMode) -> int | None:
    prices = [price for offer in offers if (price := offer.price(billing_mode)) is not None]
    return min(prices, default=None)


def _rank(price: int | None) -> float:
    return math.inf if price is None else price


def _usd(price: int | None) -> float | None:
    return None if price is None else usd(price)


def _template(template: Template) -> dict[str, object]:
    return present(
        {
            "id": template.id,
            "name": template.name,
            "image": template.image,
            "channel": template.channel,
            "rootfsSize": template.rootfs_size,
            "ports": [
                {"port": port.port, "type": port.type.value}
                for port in template.launch.watched_ports()
            ],
        }
    )
