# SPDX-License-Identifier: Apache-2.0
"""Changes the catalogue: prices, stock and products."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field, model_validator

from novitai.emulator.calling import JsonObject
from novitai.emulator.catalogue import Offer, Product
from novitai.emulator.control.endpoint import (
    Context,
    ControlError,
    Endpoint,
    Given,
    Nothing,
    endpoint,
)
from novitai.emulator.instances import BillingMode, Status, phase
from novitai.emulator.state import Emulator

Price = Annotated[int, Field(ge=0)]
Gpus = Annotated[int, Field(ge=0, le=8)]


class OfferGiven(Given):
    """A product in a cluster."""

    cluster_id: str
    modes: Annotated[tuple[BillingMode, ...], Field(min_length=1)] = (
        BillingMode.ON_DEMAND,
        BillingMode.SPOT,
    )
    free_gpus: Gpus = 8


class ProductGiven(Given):
    """A product to add or replace."""

    id: Annotated[str, Field(min_length=1, max_length=255)]
    name: Annotated[str, Field(min_length=1, max_length=255)]
    price: Price
    spot_price: Price | None = None
    monthly_price: Price = 0
    cpu_per_gpu: Annotated[int, Field(ge=1)] = 8
    memory_per_gpu: Annotated[int, Field(ge=1)] = 32
    min_root_fs: Annotated[int, Field(ge=1, alias="minRootFS")] = 10
    max_root_fs: Annotated[int, Field(ge=1, alias="maxRootFS")] = 6144
    offers: Annotated[list[OfferGiven], Field(min_length=1)]


class ProductChange(Given):
    """The fields to change; `freeGpus` applies to one cluster or, without `clusterId`, to all."""

    name: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    price: Price | None = None
    spot_price: Price | None = None
    monthly_price: Price | None = None
    free_gpus: Gpus | None = None
    cluster_id: str | None = None
    instances_follow: bool = False

    @model_validator(mode="after")
    def _cluster_for_stock(self) -> ProductChange:
        if self.cluster_id is not None and self.free_gpus is None:
            raise ValueError("clusterId requires freeGpus; prices are the same in all clusters")
        return self


def show_products(context: Context, _given: Nothing) -> JsonObject:
    """List all products with their offers."""
    return {"products": [_view(each) for each in context.emulator.products.values()]}


def add_product(context: Context, given: ProductGiven) -> JsonObject:
    """Add a product, or replace the one with the same ID."""
    unknown = {each.cluster_id for each in given.offers} - set(context.emulator.clusters)
    if unknown:
        raise ControlError(f"offers: unknown cluster {', '.join(sorted(unknown))}")
    product = Product(
        given.id,
        given.name,
        given.cpu_per_gpu,
        given.memory_per_gpu,
        given.price,
        given.spot_price,
        tuple(
            Offer(each.cluster_id, tuple(dict.fromkeys(each.modes)), each.free_gpus)
            for each in given.offers
        ),
        min_rootfs=given.min_root_fs,
        max_rootfs=given.max_root_fs,
        monthly_price=given.monthly_price,
    )
    context.emulator.products[product.id] = product
    return _view(product)


def change_product(context: Context, given: ProductChange) -> JsonObject:
    """Change a product's price, name or stock; instances follow the price only if it says so."""
    product = _wanted(context)
    fields = given.model_fields_set & {"name", "price", "spot_price", "monthly_price"}
    changes = {field: getattr(given, field) for field in fields}
    if any(value is None for field, value in changes.items() if field != "spot_price"):
        raise ControlError("only spotPrice may be null, which omits the field from replies")
    product = replace(product, **changes)
    if given.free_gpus is not None:
        if given.cluster_id is not None and product.offer(given.cluster_id) is None:
            raise ControlError(f"clusterId: the product is not offered in {given.cluster_id!r}")
        product = replace(
            product,
            offers=tuple(
                replace(offer, free_gpus=given.free_gpus)
                if given.cluster_id in {None, offer.cluster_id}
                else offer
                for offer in product.offers
            ),
        )
    context.emulator.products[product.id] = product
    if given.instances_follow:
        _reprice(context.emulator, product)
    return _view(product)


def _reprice(emulator: Emulator, product: Product) -> None:
    """Give the product's instances its price from now on; prepaid and removed ones keep theirs."""
    now = emulator.clock.now()
    for instance in list(emulator.instances.values()):
        if (
            instance.product_id == product.id
            and instance.billing_mode is not BillingMode.MONTHLY
            and phase(instance, now).status is not Status.REMOVED
        ):
            spot = instance.billing_mode is BillingMode.SPOT
            price = (product.spot_price or 0) if spot else product.price
            emulator.put(replace(instance, price=price * instance.gpu_num), now)


def remove_product(context: Context, _given: Nothing) -> JsonObject:
    """Remove a product from the catalogue."""
    product = _wanted(context)
    del context.emulator.products[product.id]
    return _view(product)


def _wanted(context: Context) -> Product:
    product = context.emulator.products.get(context.path["id"])
    if product is None:
        raise ControlError(f"no product {context.path['id']!r}", 404)
    return product


def _view(product: Product) -> JsonObject:
    return {
        "id": product.id,
        "name": product.name,
        "price": product.price,
        "spotPrice": product.spot_price,
        "monthlyPrice": product.monthly_price,
        "offers": [
            {"clusterId": each.cluster_id, "modes": each.modes, "freeGpus": each.free_gpus}
            for each in product.offers
        ],
    }


ENDPOINTS: list[Endpoint] = [
    endpoint("GET", "/products", Nothing, show_products),
    endpoint("POST", "/products", ProductGiven, add_product),
    endpoint("PATCH", "/products/{id}", ProductChange, change_product),
    endpoint("DELETE", "/products/{id}", Nothing, remove_product),
]
