# SPDX-License-Identifier: Apache-2.0
"""Placement: which offers fit, in which order they are tried, and why the others do not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.domain.instance import BillingMode
from novitai.domain.placement import QuotedOffer, RejectionReason, Wish, is_named, place
from novitai.domain.product import PRICE_UNITS_PER_USD, Cluster, Offer, usd

WEST = Cluster("us-west-1", "US-WEST-01 (Oregon)")
EAST = Cluster("eu-west-1", "EU-WEST-01")
R = RejectionReason


def an_offer(product_id: str = "a", cluster: Cluster = WEST, **more: Any) -> Offer:
    """Return an offer that fits `WISH`, except for the fields in `more`."""
    made = Offer(product_id, "gpu-basic", cluster, True, 30000, 15000, 8, 32, 10, 1000)
    return replace(made, **more)


WISH = Wish("gpu-basic", BillingMode.ON_DEMAND, 2, 80, ("US-WEST-01", "EU-WEST-01"))


def order(*offers: Offer, wish: Wish = WISH) -> list[str]:
    """Return the product IDs of the candidates in order."""
    return [candidate.offer.product_id for candidate in place(offers, wish).candidates]


def reason(offer: Offer, wish: Wish = WISH) -> RejectionReason | None:
    """Return why an offer does not fit; None if it fits."""
    found = place([offer], wish)
    assert len(found.candidates) + len(found.rejections) == 1
    return found.rejections[0].reason if found.rejections else None


def test_the_order_in_which_candidates_are_tried() -> None:
    """The order is preferred region, price, memory per GPU, CPU per GPU, ID."""
    ranked = [
        an_offer("9", on_demand_price=40000),
        an_offer("8", on_demand_price=50000, memory_per_gpu=64),
        an_offer("7", on_demand_price=50000, memory_per_gpu=48, cpu_per_gpu=16),
        an_offer("5", on_demand_price=50000, memory_per_gpu=48, cpu_per_gpu=12),
        an_offer("6", on_demand_price=50000, memory_per_gpu=48, cpu_per_gpu=12),
        an_offer("1", EAST, on_demand_price=10),
    ]
    ids = [offer.product_id for offer in ranked]
    assert order(*ranked) == order(*reversed(ranked)) == ids


def test_with_any_region_the_cheapest_of_all_comes_first() -> None:
    """No region is preferred; ties are resolved as within one region."""
    east = an_offer("1", EAST, on_demand_price=55000)
    west = [an_offer("2"), an_offer("3", on_demand_price=55000, memory_per_gpu=64)]
    assert order(east, *west) == ["2", "3", "1"]
    assert order(east, *west, wish=replace(WISH, any_region=True)) == ["2", "3", "1"]
    dear = replace(west[0], on_demand_price=58000)
    assert order(east, dear, west[1], wish=replace(WISH, any_region=True)) == ["3", "1", "2"]


@pytest.mark.parametrize(
    ("name", "region"),
    [("US-CA-06 (California)", "US-CA-06"), ("US-02", "US-02"), ("", "us-2"), ("(x)", "us-2")],
)
def test_the_region_of_a_cluster(name: str, region: str) -> None:
    """The region is the code before the parenthesis; without a name, the ID."""
    assert Cluster("us-2", name).region == region


def test_the_price_compared_is_that_of_the_wanted_mode() -> None:
    """The cheapest offer on demand need not be the cheapest as spot."""
    one = an_offer("one", on_demand_price=10, spot_price=9)
    two = an_offer("two", on_demand_price=20, spot_price=5)
    assert order(one, two) == ["one", "two"]
    spot = replace(WISH, billing_mode=BillingMode.SPOT)
    assert order(one, two, wish=spot) == ["two", "one"]
    assert [c.price for c in place([one, two], spot).candidates] == [5, 9]


@pytest.mark.parametrize("name", ["gpu-basic", "GPU-Basic", "A", "a"])
def test_a_product_is_meant_by_exact_name_or_id(name: str) -> None:
    """Only an exact name or ID matches, in any case; Novita's fuzzy matches are ignored."""
    wish = replace(WISH, product_name=name)
    offers = [an_offer("a"), an_offer("b", product_name="gpu-basic-plus")]
    assert order(*offers, wish=wish) == ["a"]
    assert is_named(offers[0], name)
    assert not is_named(offers[1], name)


@pytest.mark.parametrize("name", ["gpu", "gpu-basi", "basic", " gpu-basic", "", "gpu-basic-plus"])
def test_what_is_only_similar_does_not_exist(name: str) -> None:
    """If only similar names exist, there are no candidates and no rejections."""
    found = place([an_offer()], replace(WISH, product_name=name))
    assert not found.product_exists
    assert place([an_offer(available=False)], WISH).product_exists


@pytest.mark.parametrize(
    ("more", "wish", "expected"),
    [
        ({}, {}, None),
        ({"available": False}, {}, R.NOT_AVAILABLE),
        ({"on_demand_price": None}, {}, R.BILLING_MODE_NOT_OFFERED),
        ({"spot_price": None}, {}, None),
        ({"spot_price": None}, {"billing_mode": BillingMode.SPOT}, R.BILLING_MODE_NOT_OFFERED),
        ({"cluster": Cluster("x", "AS-IN-01 (India)")}, {}, R.REGION_NOT_ALLOWED),
        ({"cluster": Cluster("x", "us-west-01")}, {}, None),
        ({}, {"regions": ("us-WEST-01",)}, None),
        ({"min_rootfs_size": 81}, {}, R.ROOTFS_SIZE_OUT_OF_RANGE),
        ({"min_rootfs_size": 80}, {}, None),
        ({"max_rootfs_size": 79}, {}, R.ROOTFS_SIZE_OUT_OF_RANGE),
        ({"max_rootfs_size": 80}, {}, None),
        ({"min_rootfs_size": None, "max_rootfs_size": None}, {}, None),
        # Two GPUs at 0.30 an hour each.
        ({}, {"max_hourly_price": 0.6}, None),
        ({}, {"max_hourly_price": 0.59999}, R.PRICE_ABOVE_MAX),
        ({}, {"max_hourly_price": 0.3, "billing_mode": BillingMode.SPOT}, None),
        ({}, {"max_hourly_price": 0.3, "gpu_num": 1}, None),
        # If several rules fail, the one that the client can change least is reported.
        ({"available": False, "cluster": Cluster("x", "AS-IN-01")}, {}, R.REGION_NOT_ALLOWED),
        ({"available": False, "on_demand_price": None}, {}, R.BILLING_MODE_NOT_OFFERED),
        ({"available": False}, {"max_hourly_price": 0.1}, R.NOT_AVAILABLE),
    ],
)
def test_why_an_offer_does_not_fit(
    more: dict[str, Any], wish: dict[str, Any], expected: RejectionReason | None
) -> None:
    """Each rule is tested at its limit."""
    assert reason(an_offer(**more), replace(WISH, **wish)) is expected


def test_a_rejection_is_told_whole() -> None:
    """A rejection has product, region, reason and message."""
    [rejection] = place([an_offer()], replace(WISH, max_hourly_price=0.5)).rejections
    assert rejection.details() == {
        "productId": "a",
        "region": "US-WEST-01",
        "reason": "PRICE_ABOVE_MAX",
        "message": "Costs 0.6 USD an hour, over the maximum of 0.5",
    }


def test_prices_are_converted_exactly() -> None:
    """35000 of Novita's units are 0.35 USD; a region is the code before the bracket."""
    assert usd(35000) == 0.35
    assert [WEST.region, EAST.region] == ["US-WEST-01", "EU-WEST-01"]
    assert Cluster("x", "  US-CA-06 (California) ").region == "US-CA-06"


def quoted(*prices: tuple[str, int]) -> Wish:
    """Return `WISH`, bound by a quote of products in `WEST`."""
    offers = tuple(QuotedOffer(product, WEST.id, WEST.region, price) for product, price in prices)
    return replace(WISH, quoted=offers)


def test_a_quote_keeps_its_order_and_excludes_other_offers() -> None:
    """The first quoted offer that still holds is bought first, even if another is cheaper now."""
    offers = [an_offer("a", on_demand_price=20000), an_offer("b"), an_offer("c")]
    wish = quoted(("b", 30000), ("a", 40000))
    assert order(*offers, wish=wish) == order(*reversed(offers), wish=wish) == ["b", "a"]
    assert reason(an_offer("c"), wish) is R.NOT_QUOTED
    assert reason(an_offer("b", EAST), wish) is R.NOT_QUOTED
    assert not R.NOT_QUOTED.may_pass


def test_a_quote_without_candidates_buys_nothing() -> None:
    """A quote that named no offer allows none later."""
    assert reason(an_offer(), replace(WISH, quoted=())) is R.NOT_QUOTED


def test_each_candidate_has_its_own_quoted_price() -> None:
    """An offer fits at its quoted price, and not at one unit more; the price may fall again."""
    wish = quoted(("a", 30000), ("b", 40000))
    assert reason(an_offer("a"), wish) is None
    assert reason(an_offer("b", on_demand_price=40000), wish) is None
    assert reason(an_offer("a", on_demand_price=30001), wish) is R.PRICE_ABOVE_QUOTE
    [told] = place([an_offer("a", on_demand_price=35000)], wish).rejections
    assert told.message == "Costs 0.7 USD an hour, over the quoted 0.6"
    assert R.PRICE_ABOVE_QUOTE.may_pass
    capped = replace(wish, max_hourly_price=0.5)
    assert reason(an_offer("a"), capped) is R.PRICE_ABOVE_MAX
    assert reason(an_offer("a", available=False), wish) is R.NOT_AVAILABLE


prices = st.one_of(st.none(), st.integers(1, 1_000_000))
offers = st.builds(
    Offer,
    product_id=st.sampled_from("abc"),
    product_name=st.sampled_from(["gpu-basic", "GPU-BASIC", "other"]),
    cluster=st.sampled_from([WEST, EAST, Cluster("as", "AS-IN-01 (India)")]),
    available=st.booleans(),
    on_demand_price=prices,
    spot_price=prices,
    cpu_per_gpu=st.integers(1, 64),
    memory_per_gpu=st.integers(1, 512),
    min_rootfs_size=st.one_of(st.none(), st.integers(1, 100)),
    max_rootfs_size=st.one_of(st.none(), st.integers(50, 1000)),
)
wishes = st.builds(
    Wish,
    product_name=st.sampled_from(["gpu-basic", "a"]),
    billing_mode=st.sampled_from(BillingMode),
    gpu_num=st.integers(1, 8),
    rootfs_size=st.integers(20, 1000),
    regions=st.sampled_from([("US-WEST-01",), ("EU-WEST-01", "US-WEST-01")]),
    max_hourly_price=st.one_of(
        st.none(), st.integers(1, 8_000_000).map(lambda units: units / PRICE_UNITS_PER_USD)
    ),
)


@given(found=st.lists(offers, max_size=12), wish=wishes, shuffled=st.randoms())
def test_placing_is_sound(found: list[Offer], wish: Wish, shuffled: Any) -> None:
    """No matching offer is lost, every candidate fits, and the order of input is irrelevant."""
    placement = place(found, wish)
    named = [offer for offer in found if is_named(offer, wish.product_name)]
    assert len(placement.candidates) + len(placement.rejections) == len(named)
    ranks = []
    for candidate in placement.candidates:
        offer = candidate.offer
        assert offer.available
        assert offer.cluster.region in wish.regions
        assert candidate.price == offer.price(wish.billing_mode)
        assert (offer.min_rootfs_size or 0) <= wish.rootfs_size
        assert wish.rootfs_size <= (offer.max_rootfs_size or 10**9)
        if wish.max_hourly_price is not None:
            limit = round(wish.max_hourly_price * PRICE_UNITS_PER_USD)
            assert candidate.price * wish.gpu_num <= limit
        ranks.append((offer.cluster.region != wish.regions[0], candidate.price))
    assert ranks == sorted(ranks)
    turned = list(found)
    shuffled.shuffle(turned)
    key = [(c.price, c.offer.product_id, c.offer.cluster.id) for c in placement.candidates]
    again = place(turned, wish).candidates
    assert [(c.price, c.offer.product_id, c.offer.cluster.id) for c in again] == key
