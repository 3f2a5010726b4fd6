# SPDX-License-Identifier: Apache-2.0
"""Schemas of products, templates and regions."""

from __future__ import annotations

from novitai.api.schemas.wire import ListPage, ResponseModel, absent


class ProductView(ResponseModel):
    """A product. Prices are the lowest of its regions, in USD per GPU-hour; sizes are in GB.

    A price is absent if the product is not offered in that billing mode.
    """

    id: str
    name: str
    regions: list[str]
    available: bool
    on_demand_price: float | None = absent()
    spot_price: float | None = absent()
    cpu_per_gpu: int
    memory_per_gpu: int
    min_rootfs_size: int | None = absent()
    max_rootfs_size: int | None = absent()


class ListProductsResponse(ListPage):
    """Products, cheapest first."""

    products: list[ProductView]


class PortView(ResponseModel):
    """A port that a template publishes."""

    port: int
    type: str


class TemplateView(ResponseModel):
    """A template; `rootfsSize` is in GB."""

    id: str
    name: str
    image: str
    channel: str
    rootfs_size: int | None = absent()
    ports: list[PortView]


class ListTemplatesResponse(ListPage):
    """Templates."""

    templates: list[TemplateView]


class RegionView(ResponseModel):
    """A region; a request without `region` tries the default region first."""

    name: str
    default: bool


class ListRegionsResponse(ListPage):
    """Regions."""

    regions: list[RegionView]
