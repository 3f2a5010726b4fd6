# SPDX-License-Identifier: Apache-2.0
"""The catalogue with a source whose lists omit more than the emulator's."""

from __future__ import annotations

import pytest

from novitai.domain.instance import BillingMode
from novitai.domain.placement import RejectionReason, Wish
from novitai.lifecycle.catalogue.catalogue import Catalogue
from novitai.testing import ManualClock
from novitai.upstream import models


class TerseSource:
    """One product in one cluster, omitted from every list whose filter it does not match."""

    async def clusters(self) -> list[models.UpstreamCluster]:
        return [models.UpstreamCluster("us-ca-6", "US-CA-06 (California)")]

    async def products(
        self,
        cluster_id: str | None = None,
        product_name: str | None = None,
        *,
        billing_method: str,
        gpu_num: int | None = None,
    ) -> list[models.ProductOffer]:
        if billing_method == "spot" or (gpu_num or 1) > 4:
            return []
        return [models.ProductOffer("h100", "H100", 256_000, None, 20, 200, 10, 1000, True)]

    async def template(self, template_id: str) -> models.UpstreamTemplate:
        raise NotImplementedError

    async def templates(self) -> list[models.UpstreamTemplate]:
        return []


@pytest.mark.parametrize(
    ("mode", "gpu_num", "reason"),
    [
        (BillingMode.SPOT, 1, RejectionReason.BILLING_MODE_NOT_OFFERED),
        (BillingMode.ON_DEMAND, 8, RejectionReason.NOT_AVAILABLE),
    ],
)
async def test_what_a_filter_leaves_out_exists(
    clock: ManualClock, mode: BillingMode, gpu_num: int, reason: RejectionReason
) -> None:
    """A product that a filter omits is not reported as unknown."""
    catalogue = Catalogue(TerseSource(), clock)
    wish = Wish("h100", mode, gpu_num, 60, await catalogue.regions(), any_region=True)
    found = await catalogue.placement(wish)
    assert found.product_exists
    assert [rejection.reason for rejection in found.rejections] == [reason]
    unknown = Wish("h200", mode, gpu_num, 60, await catalogue.regions(), any_region=True)
    assert not (await catalogue.placement(unknown)).product_exists
