# SPDX-License-Identifier: Apache-2.0
"""Validated client requests for instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from novitai.domain.instance import BillingMode


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A valid request for an instance (API reference, "POST /api/instances").

    If the client named no region, `region` is None: the default region is tried first, and the
    others may follow. `max_hourly_price` is in USD for the whole instance.
    """

    name: str
    product_name: str
    template_id: str
    gpu_num: int = 1
    rootfs_size: int = 60
    region: str | None = None
    webhook_url: str | None = field(default=None, repr=False)
    billing_mode: BillingMode = BillingMode.ON_DEMAND
    max_hourly_price: float | None = None
    region_fallback: bool = False
    envs: Mapping[str, str] = field(default_factory=dict, repr=False)
