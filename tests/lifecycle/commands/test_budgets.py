# SPDX-License-Identifier: Apache-2.0
"""Budgets of whole lives: what they admit, what they reserve, and what they tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection

from novitai.domain.actor import Actor
from novitai.domain.billing import HOUR_MS
from novitai.domain.budgets import (
    MAX_BUDGETS,
    BudgetAction,
    BudgetPeriod,
    BudgetScope,
    BudgetTerms,
)
from novitai.domain.instance import InstanceStatus
from novitai.domain.limits import LimitsChange, LimitSettings
from novitai.domain.operation import OperationKind
from novitai.domain.requests import CreateRequest, InstanceChange, WebhookRequest
from novitai.errors import Conflict, NotFound
from novitai.lifecycle.commands.budgets import BudgetShown
from novitai.store.queries import deliveries, events
from tests.domain.making import TESTER
from tests.lifecycle.actions import CREATE, adopt, ask, directly, fault, fifty_creates, heal
from tests.lifecycle.world import REQUEST, World, on_both_stores

RUNNING, STOPPED = InstanceStatus.RUNNING, InstanceStatus.STOPPED
DEAREST = 66_000
"""What `REQUEST` costs for an hour at its dearest candidate, in 1/100000 USD."""
CHEAPEST = 60_000
DAY = 86_400
TEAM = {"team": "vision"}
OF_TEAM = BudgetScope(tag=("team", "vision"))
OTHER = Actor("key_other", "other")


def terms(amount: int, **given: Any) -> BudgetTerms:
    """Make terms of a budget that refuses."""
    plain = BudgetTerms("b", amount, BudgetPeriod.MONTH, on_limit=BudgetAction.REFUSE)
    return replace(plain, **given)


async def in_the_evening(world: World) -> None:
    """Wait, while no process runs, until the day ends in 80 minutes."""
    await world.end()
    await world.pass_alone(DAY - world.clock.now() / 1000 % DAY - 80 * 60)
    await world.open()


async def budget(world: World, amount: int, **given: Any) -> str:
    """Create a budget that refuses; return its ID."""
    return (await world.do(world.app.budgets.create(terms(amount, **given)))).budget.id


async def shown(world: World, budget_id: str) -> BudgetShown:
    """Read a budget."""
    return await world.app.budgets.get(budget_id)


async def reserved(world: World, budget_id: str) -> int:
    """Return what is reserved of a budget."""
    return (await shown(world, budget_id)).use.reserved


async def refusal(world: World, request: CreateRequest = REQUEST) -> Conflict:
    """Have a create refused; return the error."""
    with pytest.raises(Conflict) as refused:
        await world.create(request)
    assert refused.value.code == "BUDGET_EXCEEDED"
    return refused.value


async def retag(world: World, instance_id: str, tags: Mapping[str, str | None]) -> None:
    """Change the tags of an instance."""
    change = InstanceChange(frozenset({"tags"}), tags=tags)
    await world.do(world.app.changes.change(instance_id, change, actor=TESTER))


async def told(world: World) -> list[tuple[str, Any, str]]:
    """Return type, threshold and begin of the period of the events about budgets."""

    def read(connection: Connection) -> list[tuple[str, Any, str]]:
        return [
            (one.type.value, one.data.get("threshold"), str(one.data["periodStart"]))
            for one in events.since(connection)
            if one.type.value.startswith("budget.")
        ]

    return await world.app.database.read(read)


@on_both_stores
async def test_of_fifty_creates_at_once_three_pass(world: World) -> None:
    """A budget for three instances admits exactly three, on PostgreSQL from two processes."""
    budget_id = await budget(world, 3 * DEAREST)
    results = await fifty_creates(world, TESTER)
    refused = [one for one in results if isinstance(one, Conflict)]
    assert len(results) - len(refused) == 3
    assert {one.code for one in refused} == {"BUDGET_EXCEEDED"}
    assert refused[0].details == {
        "budget": budget_id,
        "limit": 1.98,
        "spent": 0.0,
        "reserved": 1.98,
        "remaining": 0.0,
    }


async def test_a_reservation_shrinks_and_ends_with_the_first_hour(world: World) -> None:
    """It becomes the price of the purchase, then shrinks as spending grows, then ends."""
    budget_id = await budget(world, 10 * DEAREST)
    instance_id = await world.create()
    assert await reserved(world, budget_id) == DEAREST
    await world.until_status(instance_id, RUNNING, within=400)
    before = (await shown(world, budget_id)).use
    assert 0 < before.reserved < CHEAPEST
    await world.pass_time(1200, step=30)
    after = (await shown(world, budget_id)).use
    assert after.spent - before.spent == pytest.approx(20_000 + 139, abs=2)  # with the disk
    assert before.reserved - after.reserved == pytest.approx(20_000, abs=2)
    await world.pass_time(3600, step=30)
    assert await reserved(world, budget_id) == 0
    assert (await shown(world, budget_id)).use.spent > CHEAPEST


async def test_a_short_run_reserves_its_length(world: World) -> None:
    """Never more than `maxRunMinutes` of the price."""
    budget_id = await budget(world, DEAREST)
    limits = LimitSettings(max_run_minutes=15)
    await world.create(replace(REQUEST, limits=limits))
    assert await reserved(world, budget_id) == DEAREST // 4


@on_both_stores
async def test_a_start_is_admitted_like_a_create(world: World) -> None:
    """The stop ends the reservation, and the start needs another one."""
    budget_id = await budget(world, 4 * DEAREST)
    instance_id = await world.create()
    await world.until_status(instance_id, RUNNING, within=400)
    await ask(world, OperationKind.STOP, instance_id)
    await world.until_status(instance_id, STOPPED, within=400)
    assert await reserved(world, budget_id) == 0
    spent = (await shown(world, budget_id)).use.spent

    async def sets(amount: int) -> None:
        change = world.app.budgets.change(budget_id, lambda one: replace(one, amount=amount))
        await world.do(change)

    await sets(spent + CHEAPEST // 2)
    with pytest.raises(Conflict) as refused:
        await ask(world, OperationKind.START, instance_id)
    assert refused.value.code == "BUDGET_EXCEEDED"
    assert await world.status(instance_id) == "stopped"
    await sets(spent + 2 * CHEAPEST)
    await ask(world, OperationKind.START, instance_id)
    assert await reserved(world, budget_id) == CHEAPEST


@on_both_stores
async def test_only_the_budgets_of_its_scope_refuse(world: World) -> None:
    """Other keys, other tags, and budgets that only alert refuse nothing."""
    await budget(world, 1, scope=BudgetScope(key_id=OTHER.key_id))
    await budget(world, 1, scope=OF_TEAM)
    await budget(world, 1, on_limit=BudgetAction.ALERT)
    await world.create()
    await refusal(world, replace(REQUEST, tags=TEAM))
    with pytest.raises(Conflict):
        await world.do(world.app.create_instance.create(REQUEST, actor=OTHER))


async def test_a_change_of_tags_is_admitted_like_a_start(world: World) -> None:
    """An instance that runs cannot join a budget without room; its costs move when it joins."""
    team_id = await budget(world, CHEAPEST // 2, scope=OF_TEAM)
    instance_id = await world.create()
    await world.until_status(instance_id, RUNNING, within=400)
    with pytest.raises(Conflict) as refused:
        await retag(world, instance_id, TEAM)
    assert refused.value.code == "BUDGET_EXCEEDED"
    assert (await world.view(instance_id))["tags"] == {}
    await retag(world, instance_id, {"team": "speech"})
    bigger = world.app.budgets.change(team_id, lambda one: replace(one, amount=2 * CHEAPEST))
    await world.do(bigger)
    await retag(world, instance_id, TEAM)
    joined = (await shown(world, team_id)).use
    assert (joined.spent, joined.reserved) == (0, CHEAPEST)
    await world.pass_time(600, step=5)
    spent = (await shown(world, team_id)).use.spent
    assert spent == pytest.approx(10_000 + 70, abs=10)
    await retag(world, instance_id, {"team": None})
    await world.pass_time(600, step=5)
    left = (await shown(world, team_id)).use
    assert left.spent == pytest.approx(spent, abs=10)
    assert left.reserved == 0


async def test_a_stopped_instance_changes_its_tags_freely(world: World) -> None:
    """It reserves nothing; its next start is admitted."""
    await budget(world, 1, scope=OF_TEAM)
    instance_id = await world.create()
    await world.until_status(instance_id, RUNNING, within=400)
    await ask(world, OperationKind.STOP, instance_id)
    await world.until_status(instance_id, STOPPED, within=400)
    await retag(world, instance_id, TEAM)
    with pytest.raises(Conflict):
        await ask(world, OperationKind.START, instance_id)


@on_both_stores
async def test_a_budget_is_checked_again_just_before_the_purchase(world: World) -> None:
    """A create that waits for capacity buys nothing after the budget has shrunk."""
    budget_id = await budget(world, 10 * DEAREST)
    await fault(world, **CREATE, status=400, reason="INSUFFICIENT_RESOURCE")
    instance_id = await world.create()
    await world.pass_time(5)
    shrink = world.app.budgets.change(budget_id, lambda one: replace(one, amount=1))
    await world.do(shrink)
    await heal(world)
    before = await world.emulator.creates()
    await world.until_status(instance_id, InstanceStatus.FAILED, within=400)
    assert await world.emulator.creates() == before
    assert (await world.view(instance_id))["error"]["code"] == "BUDGET_EXCEEDED"
    assert await reserved(world, budget_id) == 0


async def test_a_cancelled_create_frees_its_reservation(world: World) -> None:
    """Nothing was bought, so the next create fits."""
    await budget(world, DEAREST)
    await fault(world, **CREATE, status=400, reason="INSUFFICIENT_RESOURCE")
    instance_id = await world.create()
    await refusal(world)
    await ask(world, OperationKind.DELETE, instance_id)
    await world.until_status(instance_id, InstanceStatus.TERMINATED, within=400)
    await world.create()


async def test_events_are_told_once_in_a_period(world: World) -> None:
    """Each threshold once, `budget.exceeded` once, and again in the next period."""
    await in_the_evening(world)
    made = await world.do(world.app.webhooks.create(WebhookRequest("https://example.com/hook")))
    budget_id = await budget(
        world, 30_000, period=BudgetPeriod.DAY, on_limit=BudgetAction.ALERT, alert_at=(50, 100)
    )
    instance_id = await world.create()
    await world.until_status(instance_id, RUNNING, within=400)
    start = (await shown(world, budget_id)).period_start
    await world.pass_time(HOUR_MS / 1000, step=60)
    first = [kind for kind, _, _ in await told(world)]
    assert sorted(first) == ["budget.alert", "budget.alert", "budget.exceeded"]
    assert await world.status(instance_id) == "running"
    next_day = (await shown(world, budget_id)).period_end
    assert next_day is not None
    await world.pass_time((next_day - world.clock.now()) / 1000 + 10, step=HOUR_MS / 1000)
    await world.pass_time(HOUR_MS / 1000, step=60)
    assert (await shown(world, budget_id)).period_start != start
    news = await told(world)
    assert len(news) == 6
    assert len(set(news)) == 6
    webhook_id = made.webhook.id
    sent = await world.app.database.read(
        lambda connection: deliveries.of_webhook(connection, webhook_id, after=None, limit=100)
    )
    assert [one.event_type.value for one in sent].count("budget.exceeded") == 2


@on_both_stores
async def test_a_spent_budget_stops_what_runs_until_the_next_period(world: World) -> None:
    """Only in its scope, and stopped, never deleted; a new period admits starts again."""
    await in_the_evening(world)
    team = replace(REQUEST, tags=TEAM, gpu_num=1)
    inside = [await world.create(team), await world.create(replace(team, gpu_num=2))]
    outside = await world.create(replace(REQUEST, name="outside"))
    for one in (*inside, outside):
        await world.until_status(one, RUNNING, within=400)
    day = BudgetPeriod.DAY
    budget_id = await budget(
        world, 60_000, period=day, scope=OF_TEAM, on_limit=BudgetAction.STOP, alert_at=()
    )
    await world.pass_time(1200, step=30)
    assert [await world.status(one) for one in inside] == ["running", "running"]
    for one in inside:
        await world.until_status(one, STOPPED, within=1500)
        assert (await world.view(one))["stopReason"] == "budget"
        log = await world.events(one)
        assert log.count("instance.limit_reached") == 1
        assert "instance.limit_unenforced" not in log
    use = (await shown(world, budget_id)).use
    # 0.90 USD an hour: a minute to the sweep, and one to stop.
    assert use.spent - 60_000 <= 90_000 * 120 / 3600
    assert await world.status(outside) == "running"
    await refusal(world, team)
    with pytest.raises(Conflict):
        await ask(world, OperationKind.START, inside[0])
    next_day = (await shown(world, budget_id)).period_end
    assert next_day is not None
    await world.pass_time((next_day - world.clock.now()) / 1000 + 100, step=3600)
    await ask(world, OperationKind.START, inside[0])
    await world.until_status(inside[0], RUNNING, within=400)
    await world.pass_time(200, step=5)
    assert await world.status(inside[0]) == "running"
    assert "stopReason" not in await world.view(inside[0])


async def test_the_most_expensive_is_stopped_first(world: World) -> None:
    """The stops begin in the order of the prices."""
    made = [await world.create(replace(REQUEST, gpu_num=number)) for number in (1, 4, 2)]
    for one in made:
        await world.until_status(one, RUNNING, within=400)
    await budget(world, 1_000, on_limit=BudgetAction.STOP)
    await world.app.budgets.sweep()
    for one in made:
        await world.until_status(one, STOPPED, within=100)

    def reached(connection: Connection) -> list[object]:
        log = events.since(connection)
        return [one.data["id"] for one in log if one.type.value == "instance.limit_reached"]

    assert await world.app.database.read(reached) == [made[1], made[2], made[0]]


async def test_an_instance_started_at_novita_is_stopped_again(world: World) -> None:
    """The budget is still spent, and the second stop is told as the first."""
    instance_id = await world.create()
    await world.until_status(instance_id, RUNNING, within=400)
    await budget(world, 1_000, on_limit=BudgetAction.STOP)
    await world.until_status(instance_id, STOPPED, within=200)
    await world.pass_time(70)
    upstream_id = (await world.view(instance_id))["upstreamId"]
    await directly(world, "start", {"instanceId": upstream_id})
    await world.until_status(instance_id, RUNNING, within=400)
    await world.until_status(instance_id, STOPPED, within=200)
    assert (await world.events(instance_id)).count("instance.limit_reached") == 2


async def test_an_adopted_instance_is_stopped_only_if_it_has_limits(world: World) -> None:
    """It counts in the budget of all, and is left alone until somebody limits it."""
    await world.emulator.call("POST", "seed", json={"names": ["theirs"], "status": "running"})
    await world.pass_time(90, step=5)
    [theirs] = await world.app.ownership.unmanaged()
    adopted = await adopt(world, theirs.row.upstream_id)
    budget_id = await budget(world, 1_000, on_limit=BudgetAction.STOP)
    await world.pass_time(600, step=5)
    assert (await shown(world, budget_id)).use.is_spent
    assert await world.status(adopted) == "running"
    limits = LimitsChange({"max_run_minutes": 10_000})
    change = InstanceChange(frozenset({"limits"}), limits=limits)
    await world.do(world.app.changes.change(adopted, change, actor=TESTER))
    await world.until_status(adopted, STOPPED, within=200)


async def test_another_amount_is_told_again(world: World) -> None:
    """A smaller amount that is spent already is told at the next sweep."""
    budget_id = await budget(world, 10**9, on_limit=BudgetAction.ALERT)
    instance_id = await world.create()
    await world.until_status(instance_id, RUNNING, within=400)
    await world.pass_time(120, step=5)
    assert await told(world) == []
    shrink = world.app.budgets.change(budget_id, lambda one: replace(one, amount=1))
    await world.do(shrink)
    await world.pass_time(61)
    assert sorted(str(one[1]) for one in await told(world)) == ["100", "50", "80", "None"]


@on_both_stores
async def test_a_quote_names_the_budgets(world: World) -> None:
    """With what is left, and whether an instance of the request is admitted."""
    small = await budget(world, DEAREST - 1)
    large = await budget(world, 2 * DEAREST)
    alerts = await budget(world, 1, on_limit=BudgetAction.ALERT)
    await budget(world, 1, scope=OF_TEAM)
    quoted = await world.do(world.app.quotes.make(REQUEST, actor=TESTER))
    assert {one.id: (one.remaining, one.allows) for one in quoted.budgets} == {
        small: (DEAREST - 1, False),
        large: (2 * DEAREST, True),
        alerts: (1, True),
    }
    assert await reserved(world, large) == 0


async def test_there_are_at_most_a_hundred_budgets(world: World) -> None:
    """409 TOO_MANY_BUDGETS, until one is deleted."""
    made = [await budget(world, 10**9) for _ in range(MAX_BUDGETS)]
    with pytest.raises(Conflict) as refused:
        await budget(world, 10**9)
    assert refused.value.code == "TOO_MANY_BUDGETS"
    await world.do(world.app.budgets.delete(made[0]))
    await budget(world, 10**9)
    with pytest.raises(NotFound):
        await shown(world, made[0])
