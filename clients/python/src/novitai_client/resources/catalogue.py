# SPDX-License-Identifier: Apache-2.0
"""Products, templates and regions: what there is to ask for."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from novitai_client.models.catalogue import Product, Region, Template
from novitai_client.surface import IteratorMethod, Mode, Resource
from novitai_client.wire import query
from novitai_client.words import BillingMode


class Products(Resource[Mode]):
    """Products."""

    @IteratorMethod
    async def list(
        self,
        *,
        region: str | None = None,
        billing_mode: BillingMode | None = None,
        gpu_num: int | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[Product, None]:
        """Iterate over the products; prices are in USD per GPU-hour.

        Args:
            region: Only products of this region.
            billing_mode: Only products with this mode.
            gpu_num: The number of GPUs that `available` is for; default: 1.
            limit: Rows in one page.

        Example:
            for product in client.products.list(gpu_num=8):
                print(product.name, product.on_demand_price, product.available)
        """
        wanted = query(limit=limit, region=region, billing_mode=billing_mode, gpu_num=gpu_num)
        async for one in self._api.pages(Product, "/api/products", "products", wanted):
            yield one


class Templates(Resource[Mode]):
    """Templates."""

    @IteratorMethod
    async def list(self, *, limit: int | None = None) -> AsyncGenerator[Template, None]:
        """Iterate over the templates.

        Example:
            for template in client.templates.list():
                print(template.id, template.image)
        """
        async for one in self._api.pages(
            Template, "/api/templates", "templates", query(limit=limit)
        ):
            yield one


class Regions(Resource[Mode]):
    """Regions."""

    @IteratorMethod
    async def list(self, *, limit: int | None = None) -> AsyncGenerator[Region, None]:
        """Iterate over the regions.

        Example:
            print([region.name for region in client.regions.list()])
        """
        async for one in self._api.pages(Region, "/api/regions", "regions", query(limit=limit)):
            yield one
