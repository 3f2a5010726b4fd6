# SPDX-License-Identifier: Apache-2.0
"""Placement: select the offers that fit a wish, in the order of purchase; explain the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from novitai.domain.instance import BillingMode
from novitai.domain.product import PRICE_UNITS_PER_USD, Offer, usd


class RejectionReason(StrEnum):
    """Why an offer of the requested product is not a candidate."""

    NOT_AVAILABLE = "NOT_AVAILABLE"
    REGION_NOT_ALLOWED = "REGION_NOT_ALLOWED"
    BILLING_MODE_NOT_OFFERED = "BILLING_MODE_NOT_OFFERED"
    ROOTFS_SIZE_OUT_OF_RANGE = "ROOTFS_SIZE_OUT_OF_RANGE"
    PRICE_ABOVE_MAX = "PRICE_ABOVE_MAX"
    PRICE_ABOVE_KEY_LIMIT = "PRICE_ABOVE_KEY_LIMIT"
    NOT_QUOTED = "NOT_QUOTED"
    PRICE_ABOVE_QUOTE = "PRICE_ABOVE_QUOTE"

    @property
    def may_pass(self) -> bool:
        """Whether the offer may become a candidate later, because stock and prices change."""
        return self in {
            RejectionReason.NOT_AVAILABLE,
            RejectionReason.PRICE_ABOVE_MAX,
            RejectionReason.PRICE_ABOVE_KEY_LIMIT,
            RejectionReason.PRICE_ABOVE_QUOTE,
        }


@dataclass(frozen=True, slots=True)
class QuotedOffer:
    """An offer that a quote promises at most at `price` per GPU-hour, in Novita's unit."""

    product_id: str
    cluster_id: str
    region: str
    price: int

    @property
    def key(self) -> tuple[str, str]:
        """The product ID and the cluster ID, as in `Candidate.key`."""
        return self.product_id, self.cluster_id


@dataclass(frozen=True, slots=True)
class Wish:
    """The conditions of a placement. `regions` are the allowed codes, the preferred one first.

    With `any_region` no region is preferred. `max_hourly_price` is in USD for the whole instance.
    `key_max_hourly_price`, in 1/100000 USD, is that of the API key that buys.
    With `quoted`, only these offers fit, each at no more than its quoted price and in this order.
    """

    product_name: str
    billing_mode: BillingMode
    gpu_num: int
    rootfs_size: int
    regions: tuple[str, ...]
    max_hourly_price: float | None = None
    key_max_hourly_price: int | None = None
    any_region: bool = False
    quoted: tuple[QuotedOffer, ...] | None = None

    def quoted_price(self, offer: Offer) -> int | None:
        """Return the price per GPU-hour at which an offer was quoted; None if it was not."""
        key = offer.product_id, offer.cluster.id
        return next((quoted.price for quoted in self.quoted or () if quoted.key == key), None)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An offer that fits. `price` is per GPU-hour in Novita's unit, for the wish's billing mode."""

    offer: Offer
    price: int

    @property
    def key(self) -> tuple[str, str]:
        """The product ID and the cluster ID, as a create call sends them."""
        return self.offer.product_id, self.offer.cluster.id


@dataclass(frozen=True, slots=True)
class Rejection:
    """An offer of the requested product that does not fit, and why."""

    offer: Offer
    reason: RejectionReason
    message: str

    def details(self) -> dict[str, object]:
        """Return the rejection as an entry of `details` of the API error `NO_CAPACITY`."""
        return {
            "productId": self.offer.product_id,
            "region": self.offer.cluster.region,
            "reason": self.reason.value,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class Placement:
    """The candidates in the order of purchase, and the rejected offers."""

    candidates: tuple[Candidate, ...]
    rejections: tuple[Rejection, ...]

    @property
    def product_exists(self) -> bool:
        """Whether the requested product exists in any offer."""
        return bool(self.candidates or self.rejections)


def is_named(offer: Offer, product_name: str) -> bool:
    """Return whether this is the offer's product name or ID, ignoring case."""
    wanted = product_name.casefold()
    return wanted in {offer.product_name.casefold(), offer.product_id.casefold()}


def spelling(offer: Offer, product_name: str) -> str:
    """Return the requested product name or ID in the offer's spelling."""
    by_name = product_name.casefold() == offer.product_name.casefold()
    return offer.product_name if by_name else offer.product_id


def place(offers: Sequence[Offer], wish: Wish) -> Placement:
    """Select the offers that fit.

    The preferred region comes first, if any; then the lowest price, then more memory per GPU, then
    more CPU per GPU, then the ID. The offers of a quote keep its order.
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
    ranks = {quoted.key: rank for rank, quoted in enumerate(wish.quoted or ())}
    candidates.sort(
        key=lambda candidate: (
            ranks.get(candidate.key, 0),
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
            f"{region} is not among the requested regions",
        )
    quoted_price = wish.quoted_price(offer)
    if wish.quoted is not None and quoted_price is None:
        return Rejection(
            offer,
            RejectionReason.NOT_QUOTED,
            f"{offer.product_id} in {region} is not among the candidates of the quote",
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
    if quoted_price is not None and price > quoted_price:
        quoted_hourly = usd(quoted_price * wish.gpu_num)
        return Rejection(
            offer,
            RejectionReason.PRICE_ABOVE_QUOTE,
            f"Costs {usd(hourly):g} USD an hour, over the quoted {quoted_hourly:g}",
        )
    if wish.max_hourly_price is not None and hourly > round(
        wish.max_hourly_price * PRICE_UNITS_PER_USD, 6
    ):
        return Rejection(
            offer,
            RejectionReason.PRICE_ABOVE_MAX,
            f"Costs {usd(hourly):g} USD an hour, over the maximum of {wish.max_hourly_price:g}",
        )
    most = wish.key_max_hourly_price
    if most is not None and hourly > most:
        return Rejection(
            offer,
            RejectionReason.PRICE_ABOVE_KEY_LIMIT,
            f"Costs {usd(hourly):g} USD an hour, over the {usd(most):g} that the API key allows",
        )
    return Candidate(offer, price)
