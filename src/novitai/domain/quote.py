# SPDX-License-Identifier: Apache-2.0
"""A quote: what a request would buy now, and the most that each candidate may cost later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from novitai.domain.instance import BillingMode
from novitai.domain.placement import QuotedOffer
from novitai.domain.product import DEFAULT_REGION
from novitai.domain.requests import CreateRequest

VALID_FOR: Final = 5 * 60 * 1000
"""How long creates can use a quote, in milliseconds."""
FREE_STORAGE: Final = 60
"""GB of the root filesystem that cost nothing (Novita's price list)."""
STORAGE_PRICE: Final = 500
"""The price of each further GB for a day, in 1/100000 USD (Novita's price list: $0.005)."""


@dataclass(frozen=True, slots=True)
class QuotedTerms:
    """The fields of a request that decide what fits and what it costs.

    A create that uses a quote must have the same terms.
    """

    product_name: str
    template_id: str
    gpu_num: int
    rootfs_size: int
    region: str
    billing_mode: BillingMode
    region_fallback: bool

    @classmethod
    def of(cls, request: CreateRequest) -> QuotedTerms:
        """Return the terms of a request."""
        return cls(
            product_name=request.product_name,
            template_id=request.template_id,
            gpu_num=request.gpu_num,
            rootfs_size=request.rootfs_size,
            region=request.region or DEFAULT_REGION,
            billing_mode=request.billing_mode,
            region_fallback=request.falls_back,
        )

    def differences(self, other: QuotedTerms) -> list[tuple[str, object]]:
        """List the fields that `other` must change, in the order of the API reference's table.

        Case matters in the template's ID only.

        Returns:
            The name of each field in a request, and its value in these terms.
        """
        same = (
            ("productName", self.product_name, _same_name(self.product_name, other.product_name)),
            ("templateId", self.template_id, self.template_id == other.template_id),
            ("gpuNum", self.gpu_num, self.gpu_num == other.gpu_num),
            ("rootfsSize", self.rootfs_size, self.rootfs_size == other.rootfs_size),
            ("region", self.region, _same_name(self.region, other.region)),
            ("billingMode", self.billing_mode.value, self.billing_mode is other.billing_mode),
            (
                "regionFallback",
                self.region_fallback,
                self.region_fallback == other.region_fallback,
            ),
        )
        return [(name, value) for name, value, equal in same if not equal]


@dataclass(frozen=True, slots=True)
class Quote:
    """A stored quote. Times are Unix milliseconds; `offers` are in the order of purchase."""

    id: str
    created_at: int
    expires_at: int
    terms: QuotedTerms
    offers: tuple[QuotedOffer, ...]


@dataclass(frozen=True, slots=True)
class BudgetRoom:
    """The rest of a budget in 1/100000 USD, and whether it allows the quoted instance."""

    id: str
    remaining: int
    allows: bool


def storage_per_day(rootfs_size: int) -> int:
    """Return the price of a root filesystem for a day, in 1/100000 USD.

    Args:
        rootfs_size: GB.
    """
    return max(0, rootfs_size - FREE_STORAGE) * STORAGE_PRICE


def _same_name(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()
