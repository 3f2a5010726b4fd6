# SPDX-License-Identifier: Apache-2.0
"""Schemas of products, templates and regions."""

from __future__ import annotations

from pydantic import Field

from novitai.api.schemas.wire import ListPage, ResponseModel, absent


class ProductView(ResponseModel):
    """A product that Novita offers."""

    id: str = Field(description="The product's ID at Novita")
    name: str = Field(description="Its name, which `productName` of a create takes")
    regions: list[str] = Field(description="The regions that offer it")
    available: bool = Field(description="Whether any region has it in stock for `gpuNum` GPUs")
    on_demand_price: float | None = absent(
        "USD per GPU-hour, the lowest of its regions; absent if it is not offered on demand"
    )
    spot_price: float | None = absent(
        "USD per GPU-hour, the lowest of its regions; absent if it is not offered as spot"
    )
    cpu_per_gpu: int = Field(description="CPU cores for each GPU")
    memory_per_gpu: int = Field(description="GB of memory for each GPU")
    min_rootfs_size: int | None = absent(
        "The smallest root filesystem in GB; absent if Novita does not tell it"
    )
    max_rootfs_size: int | None = absent(
        "The largest root filesystem in GB; absent if Novita does not tell it"
    )


class ListProductsResponse(ListPage):
    """Products, cheapest first."""

    products: list[ProductView] = Field(description="The products of this page")


class PortView(ResponseModel):
    """A port that a template publishes."""

    port: int = Field(description="The port's number")
    type: str = Field(description="`http` or `tcp`")


class TemplateView(ResponseModel):
    """A template: what an instance runs."""

    id: str = Field(description="The template's ID, which `templateId` of a create takes")
    name: str = Field(description="Its name")
    image: str = Field(description="Its container image")
    channel: str = Field(description="Who publishes it, in Novita's words")
    rootfs_size: int | None = absent(
        "The root filesystem in GB that it proposes; absent if it proposes none"
    )
    ports: list[PortView] = Field(description="The ports that it publishes")


class ListTemplatesResponse(ListPage):
    """Templates."""

    templates: list[TemplateView] = Field(description="The templates of this page")


class RegionView(ResponseModel):
    """A region."""

    name: str = Field(description="The region's code, which `region` of a create takes")
    default: bool = Field(description="Whether it is tried first if a create names no region")


class ListRegionsResponse(ListPage):
    """Regions."""

    regions: list[RegionView] = Field(description="The regions of this page")
