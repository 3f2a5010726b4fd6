# SPDX-License-Identifier: Apache-2.0
"""Products, templates and regions."""

from __future__ import annotations

from novitai_client.wire import Model


class Product(Model):
    """A product. Prices are the lowest of its regions, in USD per GPU-hour; sizes are in GB.

    A price is absent if the product is not offered in that billing mode.
    """

    id: str
    name: str
    regions: list[str]
    available: bool
    on_demand_price: float | None = None
    spot_price: float | None = None
    cpu_per_gpu: int
    memory_per_gpu: int
    min_rootfs_size: int | None = None
    max_rootfs_size: int | None = None


class TemplatePort(Model):
    """A port that a template publishes."""

    port: int
    type: str


class Template(Model):
    """A template; `rootfs_size` is in GB."""

    id: str
    name: str
    image: str
    channel: str
    rootfs_size: int | None = None
    ports: list[TemplatePort]


class Region(Model):
    """A region; a request without `region` tries the default region first."""

    name: str
    default: bool
