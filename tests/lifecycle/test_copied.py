# SPDX-License-Identifier: Apache-2.0
"""A copied installation takes over the instances of the one before, once a person says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from novitai.ids import Ids
from novitai.store.copying import copy
from novitai.store.engine.sqlite_file import url_of
from tests.domain.making import TESTER
from tests.lifecycle.actions import account_events, alive, ask, fault, heal, run_some
from tests.lifecycle.world import REQUEST, World


async def move(world: World, target: str) -> str:
    """End the process, copy its database, and start one on the copy; return its new ID."""
    await world.end()
    copied = copy(world.settings.database, target, world.clock, Ids())
    world.settings = world.settings.model_copy(update={"database_url": SecretStr(target)})
    await world.open()
    return copied.target


async def confirm(world: World) -> None:
    """Confirm as `novitai doctor --confirm` does."""
    digest = (await world.app.ownership.overview()).missing_digest
    await world.do(world.app.ownership.confirm(digest, actor=TESTER))


async def test_a_copy_takes_over(world: World, tmp_path: Path) -> None:
    """Before the confirmation nothing is sent; after it, old instances are its own."""
    (old,) = await run_some(world, 1)
    creates = await world.emulator.creates()
    fresh = await move(world, url_of(tmp_path / "moved.db"))
    assert world.app.installation_id == fresh
    assert await world.app.ownership.blocked()
    await ask(world, OperationKind.STOP, old)
    new = await world.create(replace(REQUEST, name="after-the-copy"))
    await world.pass_time(120, step=5)
    assert await world.status(old) == "stopping"
    assert await world.status(new) == "creating"
    assert await world.emulator.creates() == creates
    assert await account_events(world) == ["account.changed"]
    assert (await world.app.ownership.overview()).orphans == 0

    await confirm(world)
    await world.until_status(old, InstanceStatus.STOPPED, within=300)
    await world.until_status(new, InstanceStatus.RUNNING, within=600)
    assert await world.emulator.creates() == creates + 1
    live = set(await alive(world))
    markers = [one["name"].rpartition("-nv")[2] for one in await world.emulator.ever()]
    assert len(live) == 2
    assert [one.startswith(fresh) for one in markers] == [False, True]
    assert await world.app.ownership.unmanaged() == []


@pytest.mark.parametrize("bought", [True, False])
async def test_a_purchase_amid_the_copy_is_not_made_twice(
    world: World, tmp_path: Path, bought: bool
) -> None:
    """The outcome of a call that was under way at the end is found under the old marker."""
    await run_some(world, 1)
    when = "after" if bought else "before"
    await fault(world, kind="call", path="/gpu/instance/create", drop=True, when=when)
    await fault(world, kind="list", omit="*")
    new = await world.create(replace(REQUEST, name="under-way"))
    await world.pass_time(3)
    creates = await world.emulator.creates()
    await move(world, url_of(tmp_path / "moved.db"))
    await heal(world)
    await world.pass_time(30, step=5)
    await confirm(world)
    await world.until_status(new, InstanceStatus.RUNNING, within=1500)
    assert len(await alive(world)) == 2
    expected = creates if bought else creates + 1
    assert await world.emulator.creates() == expected
