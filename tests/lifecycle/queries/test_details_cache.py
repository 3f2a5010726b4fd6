# SPDX-License-Identifier: Apache-2.0
"""The `instance-details` cache."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection

from novitai.api.routes.instances import whole_view
from novitai.api.schemas.instances import InstanceDetails
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import Operation, OperationKind
from novitai.errors import NotFound
from novitai.lifecycle.queries.details_cache import DETAILS_TTL, MAX_DETAILS, Details
from novitai.store.engine.database import Database
from novitai.store.queries import coordination, instances, operations
from novitai.store.queries.coordination import LastListing
from novitai.testing import ManualClock
from tests.domain.making import AT as NOW
from tests.domain.making import an_instance
from tests.lifecycle.world import World

INSTANCE = an_instance(InstanceStatus.CREATING)
OPERATION = Operation("op_1", OperationKind.CREATE, INSTANCE.id, "place", NOW, NOW)


@pytest.fixture
async def details(database: Database, clock: ManualClock) -> Details:
    """The reader, with the record of one instance that is being created."""

    def write(connection: Connection) -> None:
        instances.insert(connection, INSTANCE, b"sealed")
        operations.insert(connection, OPERATION)

    await database.write(write)
    return Details(database, clock)


def hits(details: Details) -> tuple[int, int]:
    """Count hits and misses."""
    stats = details.cache.stats()
    return stats.hits, stats.misses


async def test_what_did_not_change_is_not_rendered_again(details: Details) -> None:
    """The second read of an unchanged instance is a hit with the same bytes."""
    first = await details.read(INSTANCE.id)
    assert await details.read(INSTANCE.id) == first
    assert hits(details) == (1, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "starting"},
        {"hourly_price": 1000},
        {"ready_at": NOW + 1},
        {"last_used_at": NOW + 1},
        {"obs_status": "pulling"},
        {"obs_port_mappings": '[[22,"ssh://h:1","tcp"]]'},
        {"obs_ssh": "ssh://root@h:1"},
        {"error_code": "X", "error_message": "m", "error_at": NOW},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_a_change_by_anybody_shows_in_the_next_read(
    database: Database, details: Details, changes: dict[str, Any]
) -> None:
    """After a write by another process, the copy is not used."""
    before = await details.read(INSTANCE.id)
    await database.write(partial(instances.update_columns, instance_id=INSTANCE.id, values=changes))
    after = await details.read(INSTANCE.id)
    assert after.plain != before.plain
    assert after.digest != before.digest
    assert hits(details) == (0, 2)


async def test_a_step_of_the_operation_shows_in_the_next_read(
    database: Database, details: Details
) -> None:
    """A change of the running operation also invalidates the copy."""

    def step(connection: Connection) -> None:
        claimed = operations.claim(connection, "op_1", now=NOW, until=NOW + 1)
        assert claimed is not None
        operations.apply(
            connection,
            claimed,
            phase="launch",
            now=NOW + 5,
            next_step_at=NOW,
            progress=claimed.progress,
            error=None,
        )

    assert orjson.loads((await details.read(INSTANCE.id)).body)["operation"]["phase"] == "place"
    await database.write(step)
    assert orjson.loads((await details.read(INSTANCE.id)).body)["operation"]["phase"] == "launch"


async def test_a_listing_moves_observed_at_and_nothing_else(
    database: Database, details: Details
) -> None:
    """A listing does not change the copy and its digest."""
    await database.write(
        partial(
            instances.update_columns,
            instance_id=INSTANCE.id,
            values={"obs_at": NOW, "obs_status": "running"},
        )
    )
    first = await details.read(INSTANCE.id)
    listing = LastListing(NOW + 60_000, complete=True)
    await database.write(partial(coordination.record_listing, listing=listing))
    second = await details.read(INSTANCE.id)
    assert (first.observed_at, second.observed_at) == (NOW, NOW + 60_000)
    assert (first.digest, hits(details)) == (second.digest, (1, 1))


async def test_an_instance_that_is_not_there_is_never_held(details: Details) -> None:
    """Unknown IDs are not cached."""
    for number in range(5):
        with pytest.raises(NotFound):
            await details.read(f"inst_0_{number}")
    assert details.cache.stats().size == 0


async def test_it_is_bounded_in_number_and_in_time(details: Details, clock: ManualClock) -> None:
    """Unused copies are evicted."""
    await details.read(INSTANCE.id)
    assert details.cache.stats().max_size == MAX_DETAILS
    await clock.advance(DETAILS_TTL)
    await details.read(INSTANCE.id)
    assert hits(details) == (0, 2)
    assert details.cache.clear() == 1
    await details.read(INSTANCE.id)


async def test_the_ready_bytes_are_what_the_model_and_the_view_say(world: World) -> None:
    """In every status the bytes are the view's JSON and match the schema."""
    instance_id = await world.create()
    seen = set()
    for _ in range(400):
        before = await world.app.instances.get(instance_id)
        rendered = await world.app.details.read(instance_id)
        after = await world.app.instances.get(instance_id)
        # A step may run between the two reads, so either view is right.
        views = [orjson.dumps(whole_view(shown)) for shown in (before, after)]
        assert rendered.body in views
        model = InstanceDetails.model_validate_json(rendered.body, strict=True)
        again = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert set(again) == set(orjson.loads(rendered.body))
        seen.add(model.status)
        if model.status is InstanceStatus.RUNNING:
            break
        await world.pass_time(1)
    assert InstanceStatus.RUNNING in seen
    assert world.app.details.cache.stats().hits
