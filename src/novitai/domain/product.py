# SPDX-License-Identifier: Apache-2.0
"""Products, templates and clusters, as Novita offers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from novitai.domain.instance import BillingMode, LaunchSpec

PRICE_UNITS_PER_USD: Final = 100_000
"""Novita's prices are whole numbers of 1/100000 USD per GPU-hour (upstream.md §3)."""

REFERENCE_REGIONS: Final = ("CN-HK-01", "US-WEST-01", "EU-WEST-01")
DEFAULT_REGION: Final = "CN-HK-01"
ANY_REGION: Final = "any"
"""As the region of a request, in any case: all regions, without a preferred one."""


def is_any_region(region: str) -> bool:
    """Return whether a requested region means all regions."""
    return region.casefold() == ANY_REGION


def usd(price: int) -> float:
    """Convert a price from Novita's unit to USD."""
    return price / PRICE_UNITS_PER_USD


def usd_or_none(price: int | None) -> float | None:
    """Convert a price as `usd` does; None stays None."""
    return None if price is None else usd(price)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A place where Novita has machines. `region` is the code that users give: `US-WEST-01`."""

    id: str
    name: str

    @property
    def region(self) -> str:
        """The code before the parenthesis: `US-CA-06 (California)` is `US-CA-06`."""
        return self.name.split("(", 1)[0].strip() or self.id


@dataclass(frozen=True, slots=True)
class Offer:
    """A product as one cluster offers it. Prices in Novita's unit, sizes in GB."""

    product_id: str
    product_name: str
    cluster: Cluster
    available: bool
    on_demand_price: int | None
    spot_price: int | None
    cpu_per_gpu: int
    memory_per_gpu: int
    min_rootfs_size: int | None = None
    max_rootfs_size: int | None = None

    def price(self, billing_mode: BillingMode) -> int | None:
        """Return the price per GPU-hour in a billing mode; None if that mode is not offered."""
        return self.spot_price if billing_mode is BillingMode.SPOT else self.on_demand_price


@dataclass(frozen=True, slots=True)
class Template:
    """A template: the fields that the API shows, and the launch settings it provides."""

    id: str
    name: str
    image: str
    rootfs_size: int | None
    channel: str
    launch: LaunchSpec
