# SPDX-License-Identifier: Apache-2.0
"""Products, templates and regions."""

from __future__ import annotations

from novitai.api.schemas.wire import ListPage, ResponseModel, absent


class ProductView(ResponseModel):
    """A product; prices in USD per GPU-hour, the lowest of its regions; sizes in GB.

    A price is left out where the product is not offered in that billing mode.
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
    """A template; `rootfsSize` in GB."""

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
    """A region; the default one is tried first where none is named."""

    name: str
    default: bool


class ListRegionsResponse(ListPage):
    """Regions."""

    regions: list[RegionView]
