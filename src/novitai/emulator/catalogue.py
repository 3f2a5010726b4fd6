# SPDX-License-Identifier: Apache-2.0
"""What the emulated account can buy: clusters, and products with their offers.

Some names come from upstream.md §2 and §3. The others are invented to cover every kind of
offer: one name at several prices, spot only, on demand only, and out of stock.
"""

from __future__ import annotations

from dataclasses import dataclass

from novitai.emulator.instances import BillingMode


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster; its ID cannot be derived from its name."""

    id: str
    name: str
    network_storage: bool = True
    instance_network: bool = True


@dataclass(frozen=True, slots=True)
class Offer:
    """A product in one cluster: its billing modes, and the number of free GPUs on a node."""

    cluster_id: str
    modes: tuple[BillingMode, ...]
    free_gpus: int = 8

    def has(self, mode: BillingMode, gpu_num: int) -> bool:
        """Whether one node has `gpu_num` free GPUs and the mode is offered."""
        return mode in self.modes and self.free_gpus >= max(1, gpu_num)


@dataclass(frozen=True, slots=True)
class Product:
    """A GPU product; prices are in 1/100000 USD per GPU-hour, 0 if the mode is not offered.

    Attributes:
        spot_price: None omits the field from replies, as the API does for some products.
    """

    id: str
    name: str
    cpu: int
    memory: int
    price: int
    spot_price: int | None
    offers: tuple[Offer, ...]
    disk: int = 6144
    min_rootfs: int = 10
    max_rootfs: int = 6144
    monthly_price: int = 0

    @property
    def modes(self) -> tuple[BillingMode, ...]:
        """The billing modes offered in any cluster, in the API's order."""
        offered = {mode for offer in self.offers for mode in offer.modes}
        return tuple(mode for mode in BillingMode if mode in offered)

    @property
    def inventory(self) -> str:
        """`none`, `low`, `normal` or `high`, by the largest number of free GPUs on a node."""
        free = max((offer.free_gpus for offer in self.offers), default=0)
        if free <= 0:
            return "none"
        return "low" if free <= 2 else "normal" if free <= 4 else "high"

    def offer(self, cluster_id: str) -> Offer | None:
        """Return the offer in a cluster, or None."""
        return next((each for each in self.offers if each.cluster_id == cluster_id), None)


@dataclass(frozen=True, slots=True)
class CpuProduct:
    """A product without GPUs; the price is in 1/100000 USD per hour."""

    id: str
    name: str
    cpu: int
    memory: int
    rootfs: int
    volume: int
    price: int
    cluster_ids: tuple[str, ...]
    available: bool = True


OD, MO, SP = BillingMode.ON_DEMAND, BillingMode.MONTHLY, BillingMode.SPOT
ALL, BOTH = (OD, MO, SP), (OD, SP)

CLUSTERS = (
    Cluster("us-ca-6", "US-CA-06 (California)"),
    Cluster("us-ca-nas-2", "US-CA-NAS-02", instance_network=False),
    Cluster("us-west-1", "US-WEST-01 (Oregon)"),
    Cluster("us-dallas-1", "US-01 (Dallas)", network_storage=False, instance_network=False),
    Cluster("cn-hongkong-1", "CN-HK-01 (Hong Kong)"),
    Cluster("as-sgp-2", "AS-SGP-02 (Singapore)", instance_network=False),
    Cluster("as-in-1", "AS-IN-01 (India)", network_storage=False),
    Cluster("eu-west-1", "EU-WEST-01 (Ireland)"),
    Cluster("eu-ger-2", "EU-GER-02 (Germany)"),
)

PRODUCTS = (
    Product("gpu-basic.8c32g", "gpu-basic", 8, 32, 30000, 15000,
            (Offer("us-west-1", BOTH), Offer("eu-west-1", BOTH, 4))),
    Product("gpu-basic.8c32g.hk", "gpu-basic", 8, 32, 26000, 14500,
            (Offer("cn-hongkong-1", BOTH),)),
    Product("gpu-basic.12c48g", "gpu-basic", 12, 48, 33000, 13500,
            (Offer("us-west-1", BOTH), Offer("eu-west-1", BOTH), Offer("cn-hongkong-1", (OD,)))),
    Product("gpu-basic.8c32g.spot", "gpu-basic", 8, 32, 0, 9000,
            (Offer("as-sgp-2", (SP,)),)),
    Product("4090.16c62g", "RTX 4090 24GB", 16, 62, 35000, 17500,
            (Offer("us-ca-6", ALL), Offer("cn-hongkong-1", ALL)), monthly_price=21_000_000),
    Product("4090.16c62g.os", "RTX 4090 24GB", 16, 62, 35000, 17000,
            (Offer("us-ca-6", BOTH, 4),)),
    Product("4090.16c125g", "RTX 4090 24GB", 16, 125, 39000, 18000,
            (Offer("us-west-1", ALL), Offer("eu-ger-2", BOTH)), monthly_price=23_500_000),
    Product("26", "RTX 4090 24GB", 16, 62, 67000, 0,
            (Offer("us-dallas-1", (OD,), 0),)),
    Product("3090.16c92g", "RTX 3090 24GB", 16, 92, 21000, 10500,
            (Offer("eu-west-1", BOTH, 2), Offer("as-in-1", BOTH))),
    Product("A100-80GB.14c240g", "A100 SXM 80GB", 14, 240, 160000, 80000,
            (Offer("us-ca-nas-2", ALL), Offer("eu-ger-2", BOTH, 2)), monthly_price=96_000_000),
    Product("L40S.22c125g", "L40S 48GB", 22, 125, 55000, 0,
            (Offer("us-ca-6", (OD,), 4), Offer("eu-west-1", (OD,), 4))),
    Product("L40S.28c125g", "L40S 48GB", 28, 125, 58000, 0,
            (Offer("cn-hongkong-1", (OD, MO)),), monthly_price=35_000_000, max_rootfs=2048),
    Product("H100-80GB.20c200g", "H100 SXM 80GB", 20, 200, 256000, 128000,
            (Offer("us-west-1", ALL), Offer("eu-ger-2", (OD,), 1)), monthly_price=150_000_000),
    Product("5090.16c92g", "RTX 5090 32GB", 16, 92, 63000, None,
            (Offer("us-ca-6", (OD,)), Offer("as-sgp-2", (OD,), 2))),
    Product("6000Ada.16c125g", "RTX 6000 Ada 48GB", 16, 125, 70000, 35000,
            (Offer("us-ca-nas-2", BOTH, 0), Offer("as-in-1", BOTH, 0))),
)  # fmt: skip

CPU_PRODUCTS = (
    CpuProduct("cpu.4c8g", "CPU 4C 8G", 4, 8, 60, 0, 8000, ("us-ca-6", "cn-hongkong-1")),
    CpuProduct("cpu.16c64g", "CPU 16C 64G", 16, 64, 60, 100, 36000, ("us-ca-6", "eu-ger-2")),
    CpuProduct("cpu.64c256g", "CPU 64C 256G", 64, 256, 100, 500, 150000, ("as-sgp-2",), False),
)
