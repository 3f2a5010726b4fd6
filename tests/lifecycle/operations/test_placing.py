# SPDX-License-Identifier: Apache-2.0
"""Placement: where an instance is bought, at which price, and the wait for stock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import AttemptState
from novitai.store import tables
from novitai.store.queries import events, operations
from tests.lifecycle.actions import CREATE, fault, heal, runs_having_bought_one
from tests.lifecycle.world import REQUEST, World, on_both_stores

RUNNING, FAILED = InstanceStatus.RUNNING, InstanceStatus.FAILED
NO_STOCK = {**CREATE, "status": 400, "reason": "INSUFFICIENT_RESOURCE", "message": "none left"}
CHEAPEST, DEARER = "gpu-basic.8c32g", "gpu-basic.12c48g"
"""The two products of `REQUEST` in its region: 0.30 and 0.33 USD per GPU-hour."""
L40S = replace(REQUEST, product_name="L40S 48GB", gpu_num=1)
"""Offered at 0.55 in US-CA-06 and EU-WEST-01, and at 0.58 in CN-HK-01."""


async def reprice(world: World, product_id: str, **changes: Any) -> None:
    """Change a product's price or stock."""
    await world.emulator.call("PATCH", f"products/{product_id}", json=changes)


async def have_lists_cached(world: World) -> None:
    """Buy an instance, which leaves lists in the cache that stay fresh for 30 seconds."""
    await world.create()

    async def is_bought() -> bool:
        return await world.emulator.creates() == 1

    await world.until(is_bought, within=10, step=0.1)


async def bought(world: World, instance_id: str) -> tuple[str, str, int]:
    """Return product, region and price per GPU-hour of the purchase."""
    [attempt] = [a for a in await world.attempts(instance_id) if a.state is AttemptState.BOUGHT]
    return attempt.product_id, attempt.region, attempt.price


async def refused(world: World, instance_id: str) -> list[str]:
    """List the refused products in the order of the events."""
    log = await world.app.database.read(lambda c: events.of_instance(c, instance_id))
    told = [event.data.get("attempt") for event in log]
    return [attempt["productId"] for attempt in told if isinstance(attempt, dict)]


async def failed(world: World, instance_id: str, within: float) -> tuple[str, str]:
    """Wait for the failure; return its code and message."""
    await world.until_status(instance_id, FAILED, within=within)
    error = (await world.view(instance_id))["error"]
    return error["code"], error["message"]


async def test_the_price_is_that_of_the_moment_of_buying(world: World) -> None:
    """The current price is shown, even if the cached list has an older one."""
    await have_lists_cached(world)
    for product in (CHEAPEST, DEARER):
        await reprice(world, product, price=90_000)
    instance_id = await world.create(replace(REQUEST, name="second"))
    await world.until_status(instance_id, RUNNING, within=300)
    assert (await bought(world, instance_id))[2] == 90_000
    assert (await world.view(instance_id))["hourlyPrice"] == pytest.approx(1.8)


async def test_the_limit_is_kept_against_the_price_of_the_moment(world: World) -> None:
    """If the price is above the limit now, nothing is bought."""
    await have_lists_cached(world)
    for product in (CHEAPEST, DEARER):
        await reprice(world, product, price=90_000)
    instance_id = await world.create(replace(REQUEST, name="second", max_hourly_price=0.7))
    await world.pass_time(20)
    assert await world.emulator.creates() == 1
    assert await world.attempts(instance_id) == []
    code, message = await failed(world, instance_id, within=700)
    assert (code, "PRICE_ABOVE_MAX" in message) == ("NO_CAPACITY", True)


async def test_the_limit_is_kept_at_the_end_of_a_wait_for_stock(world: World) -> None:
    """While there is no stock the lists may be ten seconds old: the price is read again anyway."""
    await have_lists_cached(world)
    for product in (CHEAPEST, DEARER):
        await reprice(world, product, freeGpus=0)
    instance_id = await world.create(replace(REQUEST, name="second", max_hourly_price=0.7))
    await world.pass_time(20)
    waiting = await world.app.database.read(lambda c: operations.running(c, instance_id))
    assert waiting is not None
    assert waiting.next_step_at is not None
    await world.pass_time((waiting.next_step_at - world.clock.now()) / 1000 - 1)
    for product in (CHEAPEST, DEARER):
        await reprice(world, product, freeGpus=8)
    catalogue = world.app.catalogue
    for cluster in await catalogue.clusters():
        await catalogue.reread(cluster, REQUEST.billing_mode, REQUEST.gpu_num)
    for product in (CHEAPEST, DEARER):
        await reprice(world, product, price=90_000)
    await world.pass_time(5)
    assert await world.emulator.creates() == 1
    assert await world.attempts(instance_id) == []


async def test_what_became_cheaper_than_the_first_is_bought(world: World) -> None:
    """The lists of all clusters are reloaded for a purchase."""
    await world.create(replace(L40S, region="any"))
    await world.pass_time(5)
    await reprice(world, "L40S.28c125g", price=50_000)
    instance_id = await world.create(replace(L40S, name="second", region="any"))
    await world.pass_time(5)
    assert await bought(world, instance_id) == ("L40S.28c125g", "CN-HK-01", 50_000)


async def test_what_became_dearer_than_another_is_not_bought(world: World) -> None:
    """The reloaded price decides which candidate is the cheapest."""
    await have_lists_cached(world)
    await reprice(world, CHEAPEST, price=34_000)
    instance_id = await world.create(replace(REQUEST, name="second"))
    await world.pass_time(5)
    assert await bought(world, instance_id) == (DEARER, "US-WEST-01", 33_000)


@on_both_stores
async def test_the_price_follows_what_novita_charges(world: World) -> None:
    """The price in the listing is shown instead of the price of the purchase."""
    instance_id = await world.create()
    await world.until_status(instance_id, RUNNING, within=300)
    state = world.emulator.app.state.emulator
    [row] = state.instances.values()
    for charged, shown in ((123_456, 1.23456), (0, 0.6)):
        state.instances[row.id] = replace(row, price=charged)
        await world.pass_time(61)
        assert (await world.view(instance_id))["hourlyPrice"] == pytest.approx(shown)


async def test_stock_that_comes_back_is_bought(world: World) -> None:
    """Refusals for lack of stock are retried until there is stock."""
    await fault(world, **NO_STOCK)
    instance_id = await world.create()
    await world.pass_time(400)
    assert await world.status(instance_id) == "creating"
    assert await world.emulator.creates() > 10
    await heal(world)
    await runs_having_bought_one(world, instance_id)


async def test_a_lack_of_stock_is_waited_for_and_then_told(world: World) -> None:
    """All candidates are tried at least once a minute, and once at the end."""
    await fault(world, **NO_STOCK)
    instance_id = await world.create()
    began = world.clock.now()
    code, message = await failed(world, instance_id, within=700)
    assert code == "NO_CAPACITY"
    assert "none left (INSUFFICIENT_RESOURCE)" in message
    attempts = await world.attempts(instance_id)
    assert {attempt.state for attempt in attempts} == {AttemptState.REFUSED}
    times = [(attempt.created_at - began) / 1000 for attempt in attempts]
    assert 600 <= times[-1] <= 615
    assert {attempt.product_id for attempt in attempts[-2:]} == {CHEAPEST, DEARER}
    pauses = [later - earlier for earlier, later in zip(times[::2], times[2::2], strict=False)]
    assert max(pauses[:3]) < 20
    assert 50 < max(pauses) <= 70
    assert await world.emulator.ever() == []


async def test_the_wait_is_a_setting(world: World) -> None:
    """With no wait, each candidate is tried once."""
    await world.reopen(capacity_wait_seconds=0)
    await fault(world, **NO_STOCK)
    instance_id = await world.create()
    assert (await failed(world, instance_id, within=10))[0] == "NO_CAPACITY"
    assert await world.emulator.creates() == 2


async def test_a_catalogue_without_stock_is_a_lack_of_stock(world: World) -> None:
    """If the list shows no stock, no call is made; the wait is the same."""
    await have_lists_cached(world)
    for product in (CHEAPEST, DEARER):
        await reprice(world, product, freeGpus=0)
    instance_id = await world.create(replace(REQUEST, name="second"))
    await world.pass_time(590)
    assert await world.status(instance_id) == "creating"
    code, message = await failed(world, instance_id, within=60)
    assert (code, "NOT_AVAILABLE" in message) == ("NO_CAPACITY", True)
    assert await world.emulator.creates() == 1


async def test_after_a_downtime_stock_is_looked_for_before_giving_up(world: World) -> None:
    """If the wait ended during a downtime, stock is checked once more."""
    await fault(world, **NO_STOCK)
    instance_id = await world.create()
    await world.pass_time(100)
    await world.end()
    await world.clock.advance(1_200)
    await heal(world)
    await world.open()
    await runs_having_bought_one(world, instance_id)


async def test_a_refusal_of_before_the_end_of_the_wait_is_asked_for_again(world: World) -> None:
    """A refusal from before the end of the wait is retried once."""
    await world.reopen(capacity_wait_seconds=30)
    await fault(world, **NO_STOCK, bodyContains=CHEAPEST, times=1)
    await fault(world, **CREATE, status=429, retryAfter=60, bodyContains=DEARER, times=1)
    await fault(world, **NO_STOCK, bodyContains=DEARER)
    instance_id = await world.create()
    await world.until_status(instance_id, RUNNING, within=500)
    assert (await bought(world, instance_id))[0] == CHEAPEST


async def test_a_clock_that_was_ahead_does_not_prolong_the_wait(world: World) -> None:
    """A wait whose start lies in the future counts from now."""
    await fault(world, **NO_STOCK)
    instance_id = await world.create()
    await world.pass_time(60)
    ahead = update(tables.operations).values(
        memory=f'{{"rounds": 5, "short_since": {world.clock.now() + 86_400_000}}}'
    )
    await world.app.database.write(lambda connection: connection.execute(ahead).rowcount)
    assert (await failed(world, instance_id, within=800))[0] == "NO_CAPACITY"


async def test_after_a_downtime_the_account_is_listed_before_giving_up(world: World) -> None:
    """A placement deadline that passed in a downtime needs a listing first."""
    await world.reopen(placement_deadline_seconds=300)
    await fault(world, **NO_STOCK)
    instance_id = await world.create()
    await world.pass_time(100)
    await world.end()
    await world.clock.advance(1_200)
    await fault(world, kind="call", path="/gpu/instances", method="GET", status=500)
    await world.open()
    await world.pass_time(120)
    assert await world.status(instance_id) == "creating"
    await heal(world)
    assert (await failed(world, instance_id, within=120))[0] == "NO_CAPACITY"


@pytest.mark.parametrize(
    "reason",
    [
        "BALANCE_NOT_ENOUGH",
        "EXPIRED_OR_BALANCE_NOT_ENOUGH",
        "NOT_ENOUGH_BALANCE",
        "DE_BALANCE_NOT_ENOUGH",
        "BUDGET_NOT_ENOUGH",
        "CREATE_INSTANCE_LIMIT",
        "CREATE_GPU_NUM_LIMIT",
        "IMAGE_NOT_FOUND",
        "IMAGE_URL_OR_AUTH_ERROR",
        "IMAGE_TOO_LARGE",
        "INVALID_COMMAND_PARAM",
        "VALIDATOR_PARAM",
    ],
)
async def test_what_neither_candidate_nor_time_can_cure_fails_at_once(
    world: World, reason: str
) -> None:
    """After one call the create fails with the reason."""
    await fault(world, **CREATE, status=400, reason=reason, message="because of you")
    instance_id = await world.create(replace(REQUEST, region="any"))
    code, message = await failed(world, instance_id, within=10)
    assert code == "UPSTREAM_REFUSED"
    assert f"because of you ({reason})" in message
    assert await world.emulator.creates() == 1


async def test_a_candidate_that_will_never_do_is_tried_once(world: World) -> None:
    """A candidate refused for good is not tried again."""
    unfit = {**CREATE, "status": 400, "reason": "CUDA_VERSION_INCOMPATIBLE"}
    await fault(world, **unfit, bodyContains=CHEAPEST)
    await fault(world, **NO_STOCK, bodyContains=DEARER)
    instance_id = await world.create()
    await world.pass_time(200)
    products = [attempt.product_id for attempt in await world.attempts(instance_id)]
    assert products.count(CHEAPEST) == 1
    assert products.count(DEARER) > 4
    await heal(world)
    await world.until_status(instance_id, RUNNING, within=400)
    assert (await bought(world, instance_id))[0] == DEARER


async def test_no_candidate_that_will_ever_do_is_a_failure_at_once(world: World) -> None:
    """If all are refused for good, the create fails at once."""
    await fault(world, **CREATE, status=400, reason="UNSUPPORTED_BILLING_MODE", message="not so")
    instance_id = await world.create()
    code, message = await failed(world, instance_id, within=10)
    assert (code, "UNSUPPORTED_BILLING_MODE" in message) == ("UPSTREAM_REFUSED", True)
    assert await world.emulator.creates() == 2


@pytest.mark.parametrize("reason", ["GPU_SPEC_USED", "NODE_STATUS", "A_WORD_OF_TOMORROW", ""])
async def test_any_other_refusal_is_treated_as_a_lack_of_stock(world: World, reason: str) -> None:
    """After an unknown refusal, other candidates and later tries follow."""
    await fault(world, **CREATE, status=400, reason=reason, message="not now", times=7)
    instance_id = await world.create()
    await runs_having_bought_one(world, instance_id)
    assert await world.emulator.creates() == 8


async def test_at_most_five_calls_that_may_have_bought(world: World) -> None:
    """Lost calls count towards the five attempts; refusals do not."""
    await world.reopen(absent_after_seconds=10)
    await fault(world, **NO_STOCK, times=8)
    await fault(world, **CREATE, drop=True, when="before")
    instance_id = await world.create()
    assert (await failed(world, instance_id, within=1_500))[0] == "UPSTREAM_UNAVAILABLE"
    states = [attempt.state for attempt in await world.attempts(instance_id)]
    assert states.count(AttemptState.ABSENT) == 5
    assert states.count(AttemptState.REFUSED) == 8


@pytest.mark.parametrize("region", ["any", "ANY", "Any"])
@pytest.mark.parametrize("fallback", [False, True])
async def test_any_region_is_the_cheapest_of_all(world: World, region: str, fallback: bool) -> None:
    """With `any`, the cheapest offer wins; `regionFallback` has no effect."""
    instance_id = await world.create(replace(L40S, region=region, region_fallback=fallback))
    assert (await world.view(instance_id))["region"] == "any"
    await world.until_status(instance_id, RUNNING, within=300)
    product, found, price = await bought(world, instance_id)
    assert (product, price) == ("L40S.22c125g", 55_000)
    view = await world.view(instance_id)
    assert (view["region"], view["hourlyPrice"]) == (found, pytest.approx(0.55))


@pytest.mark.parametrize(
    ("region", "fallback", "prices"),
    [
        (None, False, [58_000, 55_000, 55_000]),
        ("CN-HK-01", False, [58_000]),
        ("cn-hk-01", True, [58_000, 55_000, 55_000]),
        ("EU-WEST-01", True, [55_000, 55_000, 58_000]),
        ("any", False, [55_000, 55_000, 58_000]),
    ],
)
async def test_the_order_of_the_regions(
    world: World, region: str | None, fallback: bool, prices: list[int]
) -> None:
    """The default or requested region comes first; a strict request has only that one."""
    await world.reopen(capacity_wait_seconds=0)
    await fault(world, **NO_STOCK)
    instance_id = await world.create(replace(L40S, region=region, region_fallback=fallback))
    await world.until_status(instance_id, FAILED, within=10)
    price_of = {a.product_id: a.price for a in await world.attempts(instance_id)}
    order = [price_of[product] for product in await refused(world, instance_id)]
    assert order == prices
