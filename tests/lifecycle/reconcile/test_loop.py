# SPDX-License-Identifier: Apache-2.0
"""One listing of the account serves everybody who waits for something."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from novitai.domain.instance import InstanceStatus
from novitai.lifecycle.reconcile import loop
from novitai.upstream.client import NovitaClient
from novitai.upstream.errors import ServerError
from novitai.upstream.models import UpstreamInstance
from tests.lifecycle.actions import upstream
from tests.lifecycle.world import REQUEST, World, on_both_stores


async def test_instances_that_are_not_ours_are_shown_and_never_touched(world: World) -> None:
    """Counted and listed; no call names them."""
    await world.emulator.call("POST", "seed", json={"count": 5, "namePrefix": "theirs"})
    await world.create()
    await world.pass_time(30)
    listed = await world.app.ownership.unmanaged()
    assert len(listed) == 5
    assert all(one.row.name.startswith("theirs") for one in listed)


@on_both_stores
async def test_many_are_watched_with_one_listing(world: World) -> None:
    """Twenty instances cost no more reads than one does: the account is listed, not each asked."""
    ids = [await world.create(replace(REQUEST, name=f"box-{number}")) for number in range(20)]
    for instance_id in ids:
        await world.until_status(instance_id, InstanceStatus.RUNNING, within=400)
    counts = (await world.emulator.call("GET", "counts"))["counts"]
    assert counts["POST /gpu/instance/create"] == 20
    assert "GET /gpu/instance" not in counts
    assert counts["GET /gpu/instances"] <= world.clock.monotonic() / 5 + 2


async def test_look_ups_that_fail_do_not_keep_others_from_theirs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row cannot be looked up, which ends a pass; the other is gone, and that is found out."""
    monkeypatch.setattr(loop, "LOOK_UP_FAULTS", 1)
    asked = [world.create(replace(REQUEST, name=f"box-{number}")) for number in range(3)]
    ids = sorted(await asyncio.gather(*asked))
    for one in ids:
        await world.until_status(one, InstanceStatus.RUNNING, within=400)
    wanted = [(await upstream(world, one))["id"] for one in ids]
    look_up = NovitaClient.instance

    async def failing(self: NovitaClient, upstream_id: str) -> UpstreamInstance:
        if upstream_id == wanted[0]:
            raise ServerError("it breaks", http_status=500)
        return await look_up(self, upstream_id)

    monkeypatch.setattr(NovitaClient, "instance", failing)
    for one in wanted[:2]:
        await world.emulator.call("POST", f"instances/{one}/delete", json={})
    await world.until_status(ids[1], InstanceStatus.TERMINATED, within=900)
