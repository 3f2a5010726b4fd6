# SPDX-License-Identifier: Apache-2.0
"""Builders of domain objects for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from novitai.domain.instance import BillingMode, Instance, InstanceStatus

AT = 1_760_000_000_000


def an_instance(status: InstanceStatus = InstanceStatus.RUNNING, **more: Any) -> Instance:
    """Return an instance that was bought; `more` sets any of its fields."""
    made = Instance(
        id="inst_1760000000_abc123def456",
        name="my-instance",
        status=status,
        product_name="gpu-basic",
        template_id="tmpl-12345",
        gpu_num=2,
        rootfs_size=80,
        region="US-WEST-01",
        billing_mode=BillingMode.ON_DEMAND,
        created_at=AT,
        updated_at=AT,
        upstream_id="up-1",
    )
    return replace(made, **more)
