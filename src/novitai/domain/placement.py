# SPDX-License-Identifier: Apache-2.0
"""Placement: which offers fit a wish, in the order they are tried, and why the rest do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from novitai.domain.instance import BillingMode
from novitai.domain.product import PRICE_UNITS_PER_USD, Offer, usd


class RejectionReason(StrEnum):
    """Why an offer of the right name is not a candidate."""

    NOT_AVAILABLE = "NOT_AVAILABLE"
    REGION_NOT_ALLOWED = "REGION_NOT_ALLOWED"
    BILLING_MODE_NOT_OFFERED = "BILLING_MODE_NOT_OFFERED"
    ROOTFS_SIZE_OUT_OF_RANGE = "ROOTFS_SIZE_OUT_OF_RANGE"
    PRICE_ABOVE_MAX = "PRICE_ABOVE_MAX"

    @property
    def may_pass(self) -> bool:
        """Whether time may make a candidate of the offer: stock and prices change."""
        return self in {RejectionReason.NOT_AVAILABLE, RejectionReason.PRICE_ABOVE_MAX}


@dataclass(frozen=True, slots=True)
class Wish:
    """What placement has to satisfy. `regions`: the allowed codes, the wanted one first.

    With `any_region` none of them is wanted more than the others. `max_hourly_price` is in USD for
    the whole instance.
    """

    product_name: str
    billing_mode: BillingMode
    gpu_num: int
    rootfs_size: int
    regions: tuple[str, ...]
    max_hourly_price: float | None = None
    any_region: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """An offer that fits. `price` per GPU-hour in Novita's unit, for the wanted billing mode."""

    offer: Offer
    price: int

    @property
    def key(self) -> tuple[str, str]:
        """What a create call names of it: the product and the cluster."""
        return self.offer.product_id, self.offer.cluster.id


@dataclass(frozen=True, slots=True)
class Rejection:
    """An offer of the right name that does not fit, and why."""

    offer: Offer
    reason: RejectionReason
    message: str

    def details(self) -> dict[str, object]:
        """Show the rejection as the API does, in `details` of `NO_CAPACITY`."""
        return {
            "productId": self.offer.product_id,
            "region": self.offer.cluster.region,
            "reason": self.reason.value,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class Placement:
    """Candidates in the order in which they are tried, and the reasons of the others."""

    candidates: tuple[Candidate, ...]
    rejections: tuple[Rejection, ...]

    @property
    def product_exists(self) -> bool:
        """Whether any offer has the wanted name."""
        return bool(self.candidates or self.rejections)


def is_named(offer: Offer, product_name: str) -> bool:
    """Tell whether an offer has exactly this name or id, whatever the case."""
    wanted = product_name.casefold()
    return wanted in {offer.product_name.casefold(), offer.product_id.casefold()}


def spelling(offer: Offer, product_name: str) -> str:
    """Write a product's name or id, whichever was asked for, as the offer does."""
    by_name = product_name.casefold() == offer.product_name.casefold()
    return offer.product_name if by_name else offer.product_id


def place(offers: Sequence[Offer], wish: Wish) -> Placement:
    """Find the offers that fit.

    The wanted region comes first, if there is one; then the cheapest, then more memory per GPU,
    then more CPU per GPU, then the id.
    """
    candidates: list[Candidate] = []
    rejections: list[Rejection] = []
    for offer in offers:
        if not is_named(offer, wish.product_name):
            continue
        judged = _judge(offer, wish)
        if isinstance(judged, Candidate):
            candidates.append(judged)
        else:
            rejections.append(judged)
    wanted_region = wish.regions[0].casefold()
    candidates.sort(
        key=lambda candidate: (
            not wish.any_region and candidate.offer.cluster.region.casefold() != wanted_region,
            candidate.price,
            -candidate.offer.memory_per_gpu,
            -candidate.offer.cpu_per_gpu,
            candidate.offer.product_id,
            candidate.offer.cluster.id,
        )
    )
    return Placement(tuple(candidates), tuple(rejections))


def _judge(offer: Offer, wish: Wish) -> Candidate | Rejection:
    region = offer.cluster.region
    if region.casefold() not in {code.casefold() for code in wish.regions}:
        return Rejection(
            offer,
            RejectionReason.REGION_NOT_ALLOWED,
            f"{region} is not a region that was asked for",
        )
    price = offer.price(wish.billing_mode)
    if price is None:
        return Rejection(
            offer,
            RejectionReason.BILLING_MODE_NOT_OFFERED,
            f"Not offered as {wish.billing_mode.value} in {region}",
        )
    if not offer.available:
        return Rejection(
            offer,
            RejectionReason.NOT_AVAILABLE,
            f"Out of stock in {region} for {wish.gpu_num} GPU(s)",
        )
    low, high = offer.min_rootfs_size, offer.max_rootfs_size
    if (low is not None and wish.rootfs_size < low) or (
        high is not None and wish.rootfs_size > high
    ):
        return Rejection(
            offer,
            RejectionReason.ROOTFS_SIZE_OUT_OF_RANGE,
            f"Takes a root filesystem of {low or 0} to {high or 'any number of'} GB",
        )
    hourly = price * wish.gpu_num
    if wish.max_hourly_price is not None and hourly > round(
        wish.max_hourly_price * PRICE_UNITS_PER_USD, 6
    ):
        return Rejection(
            offer,
            RejectionReason.PRICE_ABOVE_MAX,
            f"Costs {usd(hourly):g} USD an hour, over the maximum of {wish.max_hourly_price:g}",
        )
    return Candidate(offer, price)
