# SPDX-License-Identifier: Apache-2.0
"""Requests are accepted in one commit or rejected with reasons; reads make no upstream call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import pytest
from sqlalchemy import Connection, event

from novitai.domain.instance import BillingMode, InstanceStatus
from novitai.errors import (
    Conflict,
    FieldError,
    IdempotencyKeyReused,
    NotFound,
    RequestTimeout,
    UpstreamUnavailable,
    ValidationFailed,
)
from novitai.lifecycle.commands.create_instance import Created
from novitai.lifecycle.commands.idempotency import IdempotencyKey, Reply
from novitai.lifecycle.operations.steps import Again
from novitai.lifecycle.queries.instances import InstanceQuery
from novitai.store.queries import operations
from tests.domain.making import TESTER
from tests.lifecycle.world import REQUEST, World, answer, on_both_stores

T = TypeVar("T")

KEY = IdempotencyKey("key_1", "POST /api/instances", "abc", "digest-1")


async def count(world: World) -> int:
    """Count the records."""
    return (await world.app.instances.page(InstanceQuery())).total


async def once(world: World, key: IdempotencyKey = KEY) -> Reply:
    """Have a request accepted with a key."""
    return await world.app.commands.run(
        world.app.create_instance.create(REQUEST, actor=TESTER), answer, key=key
    )


def statements(connection: Connection, act: Callable[[Connection], T]) -> tuple[T, list[object]]:
    """Run a transaction function; return its result and the statements that it executed."""
    executed: list[object] = []

    def note(_connection: Connection, statement: object, *_more: object) -> None:
        executed.append(statement)

    event.listen(connection, "before_execute", note)
    try:
        return act(connection), executed
    finally:
        event.remove(connection, "before_execute", note)


@on_both_stores
async def test_a_create_and_a_step_build_no_statement(world: World) -> None:
    """Every create runs the same few statement objects, and so does every step.

    To build a statement takes longer than to run it.
    """
    command = world.app.create_instance.create(REQUEST, actor=TESTER)
    runner, clock = world.app.runner, world.clock

    def run(connection: Connection, create: Callable[[Connection], Created]) -> list[list[object]]:
        created, of_create = statements(connection, create)
        operation = operations.running(connection, created.instance_id)
        assert operation is not None
        claimed, of_claim = statements(connection, lambda c: runner._claim(c, operation.id))
        assert claimed is not None
        step = Again("place", clock.now() + 60_000, changes={"acted_at": clock.now()})
        _, of_result = statements(connection, lambda c: runner._apply(c, claimed, step))
        return [of_create, of_claim, of_result]

    first, second = [
        await world.app.database.write(partial(run, create=await command.prepare(None)))
        for _ in range(2)
    ]
    assert len(first[0]) == 7
    for before, after in zip(first, second, strict=True):
        assert len(before) == len(after)
        built = [one for one, other in zip(before, after, strict=True) if one is not other]
        assert built == []


async def test_an_unknown_product_is_refused_with_the_nearest_names(world: World) -> None:
    """400 INVALID_PRODUCT_NAME suggests the nearest products, and nothing is written."""
    with pytest.raises(ValidationFailed) as refusal:
        await world.create(replace(REQUEST, product_name="gpu-basik"))
    assert refusal.value.code == "INVALID_PRODUCT_NAME"
    assert "gpu-basic" in refusal.value.message
    assert await count(world) == 0


async def test_an_unknown_template_is_refused(world: World) -> None:
    """An unknown template is rejected with 400 INVALID_TEMPLATE_ID."""
    with pytest.raises(ValidationFailed) as refusal:
        await world.create(replace(REQUEST, template_id="nope"))
    assert refusal.value.code == "INVALID_TEMPLATE_ID"


@pytest.mark.parametrize("wrong", ["tmpl-1234", "Tmpl-12345x", "my-templ"])
async def test_a_wrong_template_names_the_nearest_ones(world: World, wrong: str) -> None:
    """The error suggests templates by ID or name, in the message and for the field."""
    with pytest.raises(ValidationFailed) as refusal:
        await world.create(replace(REQUEST, template_id=wrong))
    assert "; the nearest are " in refusal.value.message
    [detail] = refusal.value.details or ()
    assert isinstance(detail, FieldError)
    nearest = next(one for one in await world.app.catalogue.templates() if one.id == "tmpl-12345")
    assert f"{nearest.id} ({nearest.name})" in detail.message


async def test_a_refusal_does_not_need_its_suggestion(world: World) -> None:
    """If Novita does not return the names, the error has no suggestion."""
    given = {"kind": "call", "path": "/templates", "status": 500}
    await world.emulator.call("POST", "faults", json=given)
    with pytest.raises(ValidationFailed) as refusal:
        await world.create(replace(REQUEST, template_id="tmpl-1234"))
    assert refusal.value.code == "INVALID_TEMPLATE_ID"
    assert "nearest" not in refusal.value.message


async def test_everything_wrong_in_the_catalogue_is_told_at_once(world: World) -> None:
    """Product, template and region give one error, in the API reference's order."""
    wrong = replace(REQUEST, product_name="nope", template_id="nope", region="nowhere")
    for request, fields in (
        (wrong, ["productName", "templateId", "region"]),
        (replace(wrong, region=REQUEST.region), ["productName", "templateId"]),
        (replace(wrong, template_id=REQUEST.template_id), ["productName", "region"]),
        (replace(wrong, product_name=REQUEST.product_name), ["templateId", "region"]),
    ):
        with pytest.raises(ValidationFailed) as refusal:
            await world.create(request)
        assert refusal.value.code == "VALIDATION_ERROR"
        details = refusal.value.details or ()
        assert [one.field for one in details if isinstance(one, FieldError)] == fields


async def test_a_wrong_template_is_told_before_missing_stock(world: World) -> None:
    """An invalid template is reported before a lack of stock, which may pass."""
    await world.emulator.call("PATCH", "products/gpu-basic.8c32g", json={"freeGpus": 0})
    with pytest.raises(ValidationFailed) as refusal:
        await world.create(replace(REQUEST, template_id="nope"))
    assert refusal.value.code == "INVALID_TEMPLATE_ID"


async def test_names_are_kept_as_novita_spells_them(world: World) -> None:
    """Product names are stored in Novita's spelling."""
    instance_id = await world.create(replace(REQUEST, product_name="GPU-Basic"))
    assert (await world.view(instance_id))["productName"] == "gpu-basic"
    other = await world.create(replace(REQUEST, product_name="GPU-BASIC.8c32g"))
    assert (await world.view(other))["productName"] == "gpu-basic.8c32g"


async def test_an_unknown_region_is_refused(world: World) -> None:
    """The error names the nearest regions."""
    with pytest.raises(ValidationFailed) as refusal:
        await world.create(replace(REQUEST, region="US-WEST-99"))
    [detail] = refusal.value.details or ()
    assert "US-WEST-01" in str(detail)


async def test_a_region_is_known_in_any_case(world: World) -> None:
    """`us-west-01` is US-WEST-01."""
    instance_id = await world.create(replace(REQUEST, region="us-west-01"))
    assert (await world.view(instance_id))["region"] == "US-WEST-01"


async def test_the_product_may_be_named_by_its_id_in_any_case(world: World) -> None:
    """An exact id is as good as an exact name."""
    await world.create(replace(REQUEST, product_name="GPU-BASIC.8C32G"))


async def test_a_price_limit_rules_out_what_costs_more(world: World) -> None:
    """409 NO_CAPACITY gives PRICE_ABOVE_MAX for each candidate."""
    with pytest.raises(Conflict) as refusal:
        await world.create(replace(REQUEST, max_hourly_price=0.01))
    assert refusal.value.code == "NO_CAPACITY"
    assert "PRICE_ABOVE_MAX" in str(refusal.value.details)


async def test_a_root_filesystem_that_no_product_takes_is_refused(world: World) -> None:
    """The product's minimum and maximum sizes apply."""
    with pytest.raises(Conflict) as refusal:
        await world.create(replace(REQUEST, rootfs_size=100_000))
    assert "ROOTFS_SIZE_OUT_OF_RANGE" in str(refusal.value.details)


async def test_the_price_is_checked_again_just_before_buying(world: World) -> None:
    """If the price rises above the limit after the acceptance, nothing is bought."""
    await world.app.jobs.stop(0)
    instance_id = await world.create(replace(REQUEST, max_hourly_price=0.7))
    products = (await world.emulator.call("GET", "products"))["products"]
    for product in products:
        await world.emulator.call("PATCH", f"products/{product['id']}", json={"price": 900000})
    await world.reopen()
    await world.pass_time(60)
    assert await world.status(instance_id) == "creating"
    assert await world.emulator.creates() == 0


async def test_a_spot_request_is_bought_as_spot(world: World) -> None:
    """The create call has the billing mode, and the spot price is shown."""
    request = replace(REQUEST, billing_mode=BillingMode.SPOT, region_fallback=True)
    instance_id = await world.create(request)
    await world.until_status(instance_id, InstanceStatus.RUNNING, within=400)
    [row] = await world.emulator.ever()
    assert row["billingMode"] == "spot"


async def test_upstream_away_is_a_502_and_changes_nothing(world: World) -> None:
    """If Novita fails and nothing is cached, the request is rejected with 502."""
    await world.emulator.call("POST", "faults", json={"kind": "call", "path": "*", "status": 500})
    creating = asyncio.create_task(world.create())
    while not creating.done():
        await world.pass_time(1)
    with pytest.raises(UpstreamUnavailable):
        await creating
    assert await count(world) == 0


async def test_a_stale_catalogue_stands_in_while_upstream_is_away(world: World) -> None:
    """For a day, requests are accepted by the cached copies."""
    await world.create()
    await world.pass_time(120)
    await world.emulator.call("POST", "faults", json={"kind": "call", "path": "*", "status": 500})
    creating = asyncio.create_task(world.create(replace(REQUEST, name="second")))
    while not creating.done():
        await world.pass_time(1)
    assert await creating


async def test_a_passed_deadline_commits_nothing(world: World) -> None:
    """A request past its deadline is rejected with 408, and nothing is written."""
    with pytest.raises((RequestTimeout, UpstreamUnavailable)):
        await world.do(
            world.app.create_instance.create(REQUEST, actor=TESTER), deadline=world.clock.now() - 1
        )
    assert await count(world) == 0


@on_both_stores
async def test_an_idempotency_key_gives_the_same_answer(world: World) -> None:
    """The replay is byte-identical, and creates nothing."""
    first = await once(world)
    again = await once(world)
    assert again.body == first.body
    assert again.replayed
    assert await count(world) == 1


@on_both_stores
async def test_an_idempotency_key_survives_a_restart(world: World) -> None:
    """The answer was committed with the change, so the next process has it."""
    first = await once(world)
    await world.reopen()
    again = await once(world)
    assert again.body == first.body


async def test_an_idempotency_key_with_another_body_is_refused(world: World) -> None:
    """Another body with the same key gives 422."""
    await once(world)
    with pytest.raises(IdempotencyKeyReused):
        await once(world, replace(KEY, body_digest="digest-2"))


async def test_an_idempotency_key_is_forgotten_after_a_day(world: World) -> None:
    """After 24 hours of virtual time the same key creates another instance."""
    await world.app.jobs.stop(0)
    await world.app.sync.stop()
    first = await once(world)
    world.clock.suspend(24 * 3600 + 1)
    again = await once(world)
    assert again.body != first.body
    assert await world.app.housekeeping.once() == 0


@on_both_stores
async def test_rivals_with_one_key_make_one_instance(world: World) -> None:
    """Thirty concurrent requests with one key make one record; the others must retry."""
    results = await asyncio.gather(
        *(once(world) for _ in range(30)),
        return_exceptions=True,
    )
    bodies = {one.body for one in results if not isinstance(one, BaseException)}
    codes = {one.code for one in results if isinstance(one, Conflict)}
    assert len(bodies) == 1
    assert codes <= {"IDEMPOTENCY_IN_PROGRESS"}
    assert await count(world) == 1


async def test_an_unknown_instance_is_not_found(world: World) -> None:
    """An unknown instance gives 404 INSTANCE_NOT_FOUND."""
    with pytest.raises(NotFound) as refusal:
        await world.app.instances.get("inst_0_nope")
    assert refusal.value.code == "INSTANCE_NOT_FOUND"


@on_both_stores
async def test_a_list_is_paged_without_gaps_or_repeats(world: World) -> None:
    """Lists are newest first; cursors stay valid while instances are added."""
    await world.app.jobs.stop(0)
    made = []
    for number in range(25):
        made.append(await world.create(replace(REQUEST, name=f"box-{number}")))
        if number % 3:
            await world.clock.advance(0.001)
    seen: list[str] = []
    cursor = None
    while True:
        page = await world.app.instances.page(InstanceQuery(limit=7, cursor=cursor))
        seen += [view.id for view in page.views]
        await world.create(replace(REQUEST, name="latecomer"))
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    assert sorted(seen) == sorted(made)
    created = [(await world.view(one))["createdAt"] for one in seen]
    assert created == sorted(created, reverse=True)


async def test_a_list_can_be_filtered(world: World) -> None:
    """Lists can be filtered by status, region and name."""
    instance_id = await world.create()
    await world.create(replace(REQUEST, name="other", region="CN-HK-01"))
    pages = [
        InstanceQuery(name="my_instance"),
        InstanceQuery(region="us-west-01"),
        InstanceQuery(name="my_instance", status=InstanceStatus.CREATING),
    ]
    for query in pages:
        page = await world.app.instances.page(query)
        assert [view.id for view in page.views] == [instance_id]
        assert page.total == 1
    running = await world.app.instances.page(InstanceQuery(status=InstanceStatus.RUNNING))
    assert running.total == 0


@pytest.mark.parametrize("cursor", ["", "x", "!!!", "aW5zdA", "é"])
async def test_a_cursor_that_is_not_ours_is_refused(world: World, cursor: str) -> None:
    """An invalid cursor gives a validation error."""
    with pytest.raises(ValidationFailed):
        await world.app.instances.page(InstanceQuery(cursor=cursor))


async def test_the_estimate_learns_from_what_was_made(world: World) -> None:
    """The estimate is four minutes, then the median of the product's creates."""
    created = await world.do(world.app.create_instance.create(REQUEST, actor=TESTER))
    assert created.estimated_ready_at - world.clock.now() == 240_000
    await world.until_status(created.instance_id, InstanceStatus.RUNNING, within=300)
    view = await world.view(created.instance_id)
    another = await world.do(
        world.app.create_instance.create(replace(REQUEST, name="next"), actor=TESTER)
    )
    estimate = another.estimated_ready_at - world.clock.now()
    assert estimate != 240_000
    assert estimate > 0
    assert view["readyAt"]
