# SPDX-License-Identifier: Apache-2.0
"""The limits of API keys, over whole lives of the instances that the keys create."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from novitai.domain.actor import Actor
from novitai.domain.api_key import KeyRequest, Scope
from novitai.domain.budgets import MAX_BUDGETS, BudgetAction, BudgetPeriod, BudgetTerms
from novitai.domain.instance import InstanceStatus
from novitai.domain.key_limits import KeyBudget, KeyLimit, KeyLimits
from novitai.domain.limits import LimitSettings
from novitai.domain.operation import OperationKind
from novitai.domain.requests import CreateRequest
from novitai.errors import Conflict
from novitai.store.queries import instances
from tests.lifecycle.actions import CREATE, alive, ask, fault, fifty_creates, heal
from tests.lifecycle.world import REQUEST, World, on_both_stores

RUNNING, STOPPED = InstanceStatus.RUNNING, InstanceStatus.STOPPED
TERMINATED, FAILED = InstanceStatus.TERMINATED, InstanceStatus.FAILED
CHEAPEST, DEAREST = 60_000, 66_000
"""What `REQUEST` costs for an hour at its candidates, in 1/100000 USD."""
PRODUCTS = ("gpu-basic.8c32g", "gpu-basic.12c48g")


async def key(world: World, **given: Any) -> Actor:
    """Create a key with limits; return it as an actor."""
    scopes = frozenset({Scope.READ, Scope.WRITE})
    made = await world.app.keys.create(KeyRequest("ci", scopes, limits=KeyLimits(**given)))
    return Actor(made.key.id, made.key.name)


async def create(world: World, actor: Actor, request: CreateRequest = REQUEST) -> str:
    """Create an instance with a key; return its ID."""
    return (await world.do(world.app.create_instance.create(request, actor=actor))).instance_id


async def refusal(
    world: World, actor: Actor, request: CreateRequest = REQUEST
) -> tuple[str, dict[str, Any]]:
    """Have a create refused; return the limit that refuses it, and the other details."""
    with pytest.raises(Conflict) as refused:
        await create(world, actor, request)
    assert refused.value.code == "KEY_LIMIT_EXCEEDED"
    assert isinstance(refused.value.details, dict)
    details = dict(refused.value.details)
    assert details.pop("key") == actor.key_id
    return details.pop("limit"), details


async def running(world: World, actor: Actor, request: CreateRequest = REQUEST) -> str:
    """Create an instance with a key, and wait until it runs."""
    instance_id = await create(world, actor, request)
    await world.until_status(instance_id, RUNNING, within=400)
    return instance_id


async def reprice(world: World, price: int) -> None:
    """Give both products of `REQUEST` another price per GPU-hour."""
    for product in PRODUCTS:
        await world.emulator.call("PATCH", f"products/{product}", json={"price": price})


async def charge(world: World, instance_id: str, price: int) -> None:
    """Have Novita charge another price per hour for an instance."""
    upstream_id = (await world.view(instance_id))["upstreamId"]
    rows = world.emulator.app.state.emulator.instances
    rows[upstream_id] = replace(rows[upstream_id], price=price)


@on_both_stores
@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        ({"max_instances": 3}, KeyLimit.MAX_INSTANCES),
        ({"budget": KeyBudget(3 * DEAREST, BudgetPeriod.DAY)}, KeyLimit.BUDGET),
    ],
)
async def test_of_fifty_creates_at_once_three_pass(
    world: World, limits: dict[str, Any], limit: KeyLimit
) -> None:
    """A limit for three instances admits exactly three, on PostgreSQL from two processes."""
    actor = await key(world, **limits)
    results = await fifty_creates(world, actor)
    refused = [one for one in results if isinstance(one, Conflict)]
    assert len(results) - len(refused) == 3
    assert {one.code for one in refused} == {"KEY_LIMIT_EXCEEDED"}
    for one_refused in refused:
        assert isinstance(one_refused.details, dict)
        assert one_refused.details["key"] == actor.key_id
        assert one_refused.details["limit"] == limit.value


async def test_what_ended_or_was_never_bought_frees_its_place(world: World) -> None:
    """A stopped instance counts; a terminated one does not, nor one that failed unbought."""
    actor, other = await key(world, max_instances=1), await key(world, max_instances=1)
    instance_id = await running(world, actor)
    await ask(world, OperationKind.STOP, instance_id)
    await world.until_status(instance_id, STOPPED, within=400)
    assert await refusal(world, actor) == ("maxInstances", {"allowed": 1, "wanted": 2})
    await ask(world, OperationKind.DELETE, instance_id)
    await world.until_status(instance_id, TERMINATED, within=400)
    await fault(world, **CREATE, status=400, reason="INVALID_IMAGE")
    unbought = await create(world, actor)
    await refusal(world, actor)
    await create(world, other)
    await world.until_status(unbought, FAILED, within=800)
    await heal(world)
    await create(world, actor)


async def test_an_instance_that_was_bought_and_failed_keeps_its_place(world: World) -> None:
    """It may still bill, so it counts until it is deleted."""
    actor = await key(world, max_instances=1)
    instance_id = await running(world, actor)
    columns = {"status": "failed", "failed": True}
    await world.app.database.write(
        lambda connection: instances.update_columns(connection, instance_id, columns)
    )
    await refusal(world, actor)


async def test_a_key_without_limits_creates_what_it_wants(world: World) -> None:
    """Limits of one key bind no other."""
    await create(world, await key(world, max_instances=1))
    plain = Actor("key_plain", "plain")
    for _ in range(2):
        await create(world, plain)


@on_both_stores
async def test_only_offers_below_the_price_of_the_key_are_bought(world: World) -> None:
    """A dearer one is refused, also as the only one that fits, and the quote says so."""
    actor = await key(world, max_hourly_price=CHEAPEST)
    instance_id = await running(world, actor)
    [attempt] = await world.attempts(instance_id)
    assert attempt.price * REQUEST.gpu_num == CHEAPEST
    quoted = await world.do(world.app.quotes.make(REQUEST, actor=actor))
    assert [one.price for one in quoted.quote.offers] == [CHEAPEST // 2]
    above = [one for one in quoted.placement.rejections if one.offer.product_id == PRODUCTS[1]]
    assert "PRICE_ABOVE_KEY_LIMIT" in {one.reason.value for one in above}
    limit, details = await refusal(world, actor, replace(REQUEST, gpu_num=4))
    assert (limit, details["allowed"]) == ("maxHourlyPrice", 0.6)
    assert "PRICE_ABOVE_KEY_LIMIT" in {one["reason"] for one in details["offers"]}


async def test_a_quote_of_another_key_lifts_nothing(world: World) -> None:
    """The create is judged by the key that sends it."""
    quoted = await world.do(world.app.quotes.make(REQUEST, actor=Actor("key_other", "other")))
    request = replace(REQUEST, quote_id=quoted.quote.id)
    actor = await key(world, max_hourly_price=CHEAPEST - 1)
    assert (await refusal(world, actor, request))[0] == "maxHourlyPrice"


async def test_a_create_that_waits_for_capacity_never_pays_more(world: World) -> None:
    """The price of the key holds for each purchase, also after the key was revoked."""
    actor = await key(world, max_hourly_price=DEAREST)
    await fault(world, **CREATE, status=400, reason="INSUFFICIENT_RESOURCE")
    instance_id = await create(world, actor)
    await world.pass_time(5)
    await world.app.keys.revoke(str(actor.key_id))
    await reprice(world, 90_000)
    await world.pass_time(30)  # a step that has read the old price is refused
    await heal(world)
    before = await world.emulator.creates()
    await world.until_status(instance_id, FAILED, within=800)
    assert await world.emulator.creates() == before
    error = (await world.view(instance_id))["error"]
    assert error["code"] == "NO_CAPACITY"
    assert "PRICE_ABOVE_KEY_LIMIT" in error["message"]


async def test_an_instance_that_became_dearer_is_not_started(world: World) -> None:
    """409 for every key, with the price that Novita lists now."""
    actor = await key(world, max_hourly_price=CHEAPEST)
    instance_id = await running(world, actor)
    await ask(world, OperationKind.STOP, instance_id)
    await world.until_status(instance_id, STOPPED, within=400)
    await charge(world, instance_id, CHEAPEST + 1)
    await world.pass_time(61)
    with pytest.raises(Conflict) as refused:
        await ask(world, OperationKind.START, instance_id)
    assert refused.value.code == "KEY_LIMIT_EXCEEDED"
    assert refused.value.details == {
        "key": actor.key_id,
        "limit": "maxHourlyPrice",
        "allowed": 0.6,
        "wanted": 0.60001,
    }


async def test_a_run_ends_as_the_key_says(world: World) -> None:
    """With `keyLimit`, near and reached are told; a start has its own run, after a revocation too.

    The own limits of the instance hold besides it.
    """
    actor = await key(world, max_run_minutes=20)
    instance_id = await running(world, actor)
    shown = await world.view(instance_id)
    assert shown["stopReason"] == "keyLimit"
    assert "limits" not in shown
    await world.app.keys.revoke(str(actor.key_id))
    await world.until_status(instance_id, STOPPED, within=1200)
    assert (await world.view(instance_id))["stopReason"] == "keyLimit"
    log = await world.events(instance_id)
    assert log.count("instance.limit_near") == log.count("instance.limit_reached") == 1
    await ask(world, OperationKind.START, instance_id)
    await world.until_status(instance_id, RUNNING, within=400)
    await world.pass_time(600, step=5)
    assert await world.status(instance_id) == "running"
    await world.until_status(instance_id, STOPPED, within=700)
    assert len(await alive(world)) == 1


async def test_a_restart_does_not_prolong_the_run(world: World) -> None:
    """The run goes on through a restart, and so does its limit."""
    instance_id = await running(world, await key(world, max_run_minutes=20))
    before = (await world.view(instance_id))["stopsAt"]
    await world.pass_time(300, step=5)
    await ask(world, OperationKind.RESTART, instance_id)
    await world.pass_time(200, step=5)
    shown = await world.view(instance_id)
    assert (shown["status"], shown["stopsAt"]) == ("running", before)


async def test_a_longer_run_than_the_key_allows_is_refused(world: World) -> None:
    """At the create; a shorter one is accepted, and reserves no more than the key allows."""
    budget = KeyBudget(DEAREST // 2, BudgetPeriod.TOTAL)
    actor = await key(world, max_run_minutes=30, budget=budget)
    longer = replace(REQUEST, limits=LimitSettings(max_run_minutes=31))
    assert await refusal(world, actor, longer) == (
        "maxRunMinutes",
        {"allowed": 30, "wanted": 31},
    )
    await create(world, actor)
    page = await world.app.budgets.page()
    assert [one.use.reserved for one in page.budgets] == [DEAREST // 2]


@on_both_stores
async def test_the_budget_of_a_key_stops_what_the_key_created(world: World) -> None:
    """As a budget with its scope, after a revocation too; others run on."""
    actor = await key(world, budget=KeyBudget(30_000, BudgetPeriod.DAY), max_run_minutes=30)
    assert (await refusal(world, actor))[0] == "budget"
    short = replace(REQUEST, limits=LimitSettings(max_run_minutes=20))
    inside, outside = await running(world, actor, short), await world.create()
    [shown] = (await world.app.budgets.page()).budgets
    terms = shown.budget.terms
    assert (terms.scope.key_id, terms.on_limit) == (actor.key_id, BudgetAction.STOP)
    await world.app.keys.revoke(str(actor.key_id))
    await charge(world, inside, 4 * CHEAPEST)
    await world.until_status(inside, STOPPED, within=700)
    assert (await world.view(inside))["stopReason"] == "budget"
    with pytest.raises(Conflict) as refused:
        await ask(world, OperationKind.START, inside)
    assert refused.value.code == "KEY_LIMIT_EXCEEDED"
    assert await world.status(outside) == "running"


@on_both_stores
async def test_the_budget_of_a_key_is_checked_just_before_the_purchase(world: World) -> None:
    """The later costs of other instances of the key count."""
    actor = await key(world, budget=KeyBudget(2 * DEAREST, BudgetPeriod.TOTAL))
    first = await running(world, actor)
    await fault(world, **CREATE, status=400, reason="INSUFFICIENT_RESOURCE")
    waiting = await create(world, actor)
    await charge(world, first, 40 * CHEAPEST)
    await world.pass_time(120)
    await heal(world)
    before = await world.emulator.creates()
    await world.until_status(waiting, FAILED, within=400)
    assert await world.emulator.creates() == before
    assert (await world.view(waiting))["error"]["code"] == "KEY_LIMIT_EXCEEDED"
    assert await world.status(first) == "running"


@on_both_stores
async def test_a_quote_shows_what_the_key_refuses(world: World) -> None:
    """Its number of instances, its longest run and its budget."""
    budget = KeyBudget(DEAREST, BudgetPeriod.MONTH)
    actor = await key(world, max_instances=1, max_run_minutes=60, budget=budget)
    await create(world, actor)
    longer = replace(REQUEST, limits=LimitSettings(max_run_minutes=90))
    quoted = await world.do(world.app.quotes.make(longer, actor=actor))
    assert [(one.limit, one.allowed, one.wanted, one.allows) for one in quoted.key_limits] == [
        (KeyLimit.MAX_INSTANCES, 1, 2, False),
        (KeyLimit.MAX_RUN_MINUTES, 60, 90, False),
    ]
    assert [one.allows for one in quoted.budgets] == [False]
    plain = await world.do(world.app.quotes.make(longer, actor=Actor("key_plain", "plain")))
    assert (plain.key_limits, plain.budgets) == ((), ())


async def test_limits_of_keys_are_no_budgets_of_the_hundred(world: World) -> None:
    """Keys come and go, so their budgets do not use up the number of budgets."""
    for _ in range(3):
        await key(world, budget=KeyBudget(100, BudgetPeriod.DAY))
    terms = BudgetTerms("b", 10**9, BudgetPeriod.MONTH)
    for _ in range(MAX_BUDGETS):
        await world.do(world.app.budgets.create(terms))
    with pytest.raises(Conflict) as refused:
        await world.do(world.app.budgets.create(terms))
    assert refused.value.code == "TOO_MANY_BUDGETS"
