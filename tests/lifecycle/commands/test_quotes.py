# SPDX-License-Identifier: Apache-2.0
"""Quotes: they agree with creates about what fits, and bind creates to their prices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from novitai.domain.instance import BillingMode, InstanceStatus
from novitai.domain.operation import AttemptState
from novitai.domain.quote import VALID_FOR
from novitai.domain.requests import CreateRequest
from novitai.errors import Conflict, FieldError, UpstreamUnavailable, ValidationFailed
from novitai.lifecycle.commands.idempotency import IdempotencyKey
from novitai.lifecycle.commands.quotes import Quoted
from novitai.lifecycle.queries.instances import InstanceQuery
from tests.domain.making import TESTER
from tests.lifecycle.actions import fault
from tests.lifecycle.world import REQUEST, World, answer, on_both_stores

CHEAPEST, DEARER = "gpu-basic.8c32g", "gpu-basic.12c48g"
"""The two products of `REQUEST` in its region: 0.30 and 0.33 USD per GPU-hour."""
KEY = IdempotencyKey("key_1", "POST /api/instances", "abc", "digest-1")


async def product(world: World, product_id: str, **changes: Any) -> None:
    """Change a product's price or stock, and clear the cached lists."""
    await world.emulator.call("PATCH", f"products/{product_id}", json=changes)
    world.app.catalogue.products_cache.clear()


async def quote(world: World, request: CreateRequest = REQUEST) -> Quoted:
    """Make a quote."""
    return await world.do(world.app.quotes.make(request, actor=TESTER))


async def bound(world: World, request: CreateRequest = REQUEST) -> CreateRequest:
    """Make a quote; return the request for a create that uses it."""
    return replace(request, quote_id=(await quote(world, request)).quote.id)


async def refusal(world: World, request: CreateRequest) -> Conflict:
    """Have a create refused; return the error."""
    with pytest.raises(Conflict) as refused:
        await world.create(request)
    return refused.value


async def bought(world: World, instance_id: str) -> list[tuple[str, int]]:
    """List the products and prices per GPU-hour of the purchases."""
    made = await world.attempts(instance_id)
    return [(a.product_id, a.price) for a in made if a.state is AttemptState.BOUGHT]


@on_both_stores
async def test_a_quote_names_candidates_and_prices_and_buys_nothing(world: World) -> None:
    """The candidates are in the order of purchase, and neither record nor call comes of it."""
    await product(world, DEARER, freeGpus=0)
    quoted = await quote(world)
    assert [(one.product_id, one.price) for one in quoted.quote.offers] == [(CHEAPEST, 30_000)]
    assert (DEARER, "NOT_AVAILABLE") in [
        (one.offer.product_id, one.reason.value) for one in quoted.placement.rejections
    ]
    assert quoted.quote.expires_at == world.clock.now() + VALID_FOR
    await world.pass_time(20)
    assert await world.emulator.creates() == 0
    assert (await world.app.instances.page(InstanceQuery())).total == 0


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST,
        replace(REQUEST, region=None),
        replace(REQUEST, region="any", product_name="L40S 48GB", gpu_num=1),
        replace(REQUEST, billing_mode=BillingMode.SPOT),
        replace(REQUEST, max_hourly_price=0.62),
        replace(REQUEST, max_hourly_price=0.01),
        replace(REQUEST, rootfs_size=100_000),
    ],
)
async def test_a_quote_and_a_create_agree(world: World, request_: CreateRequest) -> None:
    """A create buys the first candidate of the quote, and is refused if the quote has none."""
    quoted = await quote(world, request_)
    usable = replace(request_, quote_id=quoted.quote.id)
    if not quoted.quote.offers:
        for one in (request_, usable):
            assert (await refusal(world, one)).code == "NO_CAPACITY"
        return
    for name, one in (("plain", request_), ("quoted", usable)):
        instance_id = await world.create(replace(one, name=name))
        await world.until_status(instance_id, InstanceStatus.RUNNING, within=400)
        first = quoted.quote.offers[0]
        assert await bought(world, instance_id) == [(first.product_id, first.price)]


async def test_a_quote_is_refused_as_a_create_is(world: World) -> None:
    """An unknown product, template or region is the same error."""
    wrong = replace(REQUEST, product_name="nope", template_id="nope", region="nowhere")
    with pytest.raises(ValidationFailed) as of_quote:
        await quote(world, wrong)
    with pytest.raises(ValidationFailed) as of_create:
        await world.create(wrong)
    assert of_quote.value.details == of_create.value.details
    await fault(world, kind="call", path="/products", status=500)
    world.app.catalogue.products_cache.clear()
    with pytest.raises(UpstreamUnavailable):
        await quote(world)


async def test_the_next_quoted_candidate_is_used_if_the_first_is_dearer(world: World) -> None:
    """Each candidate has its own limit: the second is bought at its own, higher price."""
    request = await bound(world)
    await product(world, CHEAPEST, price=31_000)
    instance_id = await world.create(request)
    await world.until_status(instance_id, InstanceStatus.RUNNING, within=400)
    assert await bought(world, instance_id) == [(DEARER, 33_000)]


async def test_no_offer_at_its_quoted_price_is_refused(world: World) -> None:
    """409 PRICE_ABOVE_QUOTE, though a create without the quote would be accepted."""
    request = await bound(world, replace(REQUEST, max_hourly_price=0.7))
    for one in (CHEAPEST, DEARER):
        await product(world, one, price=34_000)
    refused = await refusal(world, request)
    assert refused.code == "PRICE_ABOVE_QUOTE"
    assert "PRICE_ABOVE_QUOTE" in str(refused.details)
    await world.create(replace(request, quote_id=None))


async def test_sold_out_candidates_are_missing_stock_and_not_a_price(world: World) -> None:
    """409 NO_CAPACITY if the quoted offers are sold out."""
    request = await bound(world)
    for one in (CHEAPEST, DEARER):
        await product(world, one, freeGpus=0)
    assert (await refusal(world, request)).code == "NO_CAPACITY"


@on_both_stores
async def test_the_limit_holds_while_the_create_waits(world: World) -> None:
    """A create that waits for stock does not buy above the quote, and buys when the price falls.

    The quote has expired by then, and the process was replaced.
    """
    request = await bound(world)
    await product(world, DEARER, freeGpus=0)
    await fault(
        world,
        kind="call",
        path="/gpu/instance/create",
        method="POST",
        status=400,
        reason="INSUFFICIENT_RESOURCE",
        message="none left",
    )
    instance_id = await world.create(request)
    await world.until_creates(1)
    await product(world, CHEAPEST, price=30_001)
    await world.emulator.call("DELETE", "faults")
    await world.reopen()
    await world.pass_time(VALID_FOR / 1000 + 60, step=5)
    assert await bought(world, instance_id) == []
    assert await world.status(instance_id) == "creating"
    await product(world, CHEAPEST, price=30_000)
    await world.until_status(instance_id, InstanceStatus.RUNNING, within=500)
    assert await bought(world, instance_id) == [(CHEAPEST, 30_000)]


async def test_a_quote_serves_many_creates_until_it_expires(world: World) -> None:
    """It serves any number of creates for 5 minutes, and none afterwards."""
    request = await bound(world)
    for name in ("one", "two"):
        await world.create(replace(request, name=name))
    await world.clock.advance(VALID_FOR / 1000 - 0.001)
    await world.create(replace(request, name="three"))
    await world.clock.advance(0.001)
    assert (await refusal(world, replace(request, name="four"))).code == "QUOTE_EXPIRED"
    assert (await refusal(world, replace(REQUEST, quote_id="quote_x"))).code == "QUOTE_EXPIRED"


async def test_a_request_that_differs_from_the_quoted_one_is_refused(world: World) -> None:
    """400 QUOTE_MISMATCH names each field that must change."""
    request = await bound(world)
    with pytest.raises(ValidationFailed) as refused:
        await world.create(replace(request, gpu_num=1, rootfs_size=20))
    assert refused.value.code == "QUOTE_MISMATCH"
    assert refused.value.details == [
        FieldError("gpuNum", "Must be as quoted: 2", has_value=False),
        FieldError("rootfsSize", "Must be as quoted: 80", has_value=False),
    ]
    await world.create(replace(request, product_name="GPU-BASIC", region="us-west-01"))


@on_both_stores
async def test_a_replay_comes_before_the_expiry(world: World) -> None:
    """The answer to an Idempotency-Key is repeated even if the quote has expired since."""
    request = await bound(world)
    command = world.app.create_instance.create(request, actor=TESTER)
    first = await world.app.commands.run(command, answer, key=KEY)
    await world.clock.advance(VALID_FOR / 1000 + 1)
    again = await world.app.commands.run(command, answer, key=KEY)
    assert (again.body, again.replayed) == (first.body, True)
    with pytest.raises(Conflict):
        await world.app.commands.run(command, answer, key=replace(KEY, key="other"))
