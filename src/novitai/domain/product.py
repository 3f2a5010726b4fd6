# SPDX-License-Identifier: Apache-2.0
"""Products, templates and clusters: what there is to ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from novitai.domain.instance import BillingMode, LaunchSpec

PRICE_UNITS_PER_USD: Final = 100_000
"""Novita's prices are whole numbers of 1/100000 USD per GPU-hour (upstream.md §3)."""

REFERENCE_REGIONS: Final = ("CN-HK-01", "US-WEST-01", "EU-WEST-01")
DEFAULT_REGION: Final = "CN-HK-01"
ANY_REGION: Final = "any"
"""Asked for as a region, in any case: all of them, and none comes before the others."""


def is_any_region(region: str) -> bool:
    """Tell whether a region that was asked for means all of them."""
    return region.casefold() == ANY_REGION


def usd(price: int) -> float:
    """Convert a price from Novita's unit to USD."""
    return price / PRICE_UNITS_PER_USD


@dataclass(frozen=True, slots=True)
class Cluster:
    """A place where Novita has machines. `region` is the code that users say: `US-WEST-01`."""

    id: str
    name: str

    @property
    def region(self) -> str:
        """The code before the bracket: `US-CA-06 (California)` is `US-CA-06`."""
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
        """Price per GPU-hour in that mode; None where it is not offered."""
        return self.spot_price if billing_mode is BillingMode.SPOT else self.on_demand_price


@dataclass(frozen=True, slots=True)
class Template:
    """A template: what is shown of it, and what a launch takes from it."""

    id: str
    name: str
    image: str
    rootfs_size: int | None
    channel: str
    launch: LaunchSpec
