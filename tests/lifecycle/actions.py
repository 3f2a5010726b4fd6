# SPDX-License-Identifier: Apache-2.0
"""Actions of tests on a world: request verbs, inject faults, and inspect the upstream side."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from novitai.domain.actor import Actor
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from novitai.domain.requests import AdoptRequest
from novitai.errors import Conflict
from novitai.lifecycle.commands.create_instance import Created
from novitai.store.queries import events
from tests.domain.making import TESTER
from tests.lifecycle.world import REQUEST, World

CREATE = {"kind": "call", "path": "/gpu/instance/create", "method": "POST"}
"""The fields of a fault for create calls."""
BEARER = {"Authorization": "Bearer somebody-else"}
PATHS = "/gpu-instance/openapi/v1/gpu/instance"


async def ask(world: World, kind: OperationKind, instance_id: str, **more: Any) -> dict[str, Any]:
    """Request a verb."""
    asked = world.app.operating.ask(kind, instance_id, **{"actor": TESTER, **more})
    accepted = await world.do(asked)
    operation = accepted.operation
    return {
        "status": accepted.instance.status,
        "operation": operation.id if operation else None,
    }


async def fault(world: World, **given: Any) -> str:
    """Inject a fault into the emulator; return its ID."""
    made: str = (await world.emulator.call("POST", "faults", json=given))["id"]
    return made


async def heal(world: World) -> None:
    """Remove all faults."""
    await world.emulator.call("DELETE", "faults")


async def upstream(world: World, instance_id: str) -> Mapping[str, Any]:
    """Return the upstream side of an instance."""
    wanted = (await world.view(instance_id))["upstreamId"]
    [row] = [row for row in await world.emulator.ever() if row["id"] == wanted]
    return row


async def run_some(world: World, count: int) -> list[str]:
    """Create instances and wait until they run."""
    asked = [world.create(replace(REQUEST, name=f"box-{number}")) for number in range(count)]
    ids = list(await asyncio.gather(*asked))
    for one in ids:
        await world.until_status(one, InstanceStatus.RUNNING, within=600)
    return ids


async def adopt(world: World, upstream_id: str, **more: Any) -> str:
    """Adopt an instance of the account; return the record's ID."""
    request = AdoptRequest(upstream_id, **more)
    return (await world.do(world.app.ownership.adopt(request, actor=TESTER))).instance_id


async def account_events(world: World) -> list[str]:
    """List the types of the account events."""
    log = await world.app.database.read(events.since)
    return [one.type.value for one in log if one.type.value.startswith("account.")]


async def alive(world: World) -> list[str]:
    """List the IDs of the living upstream instances."""
    return [row["id"] for row in await world.emulator.ever() if row["live"]]


async def operation_error(world: World, instance_id: str) -> str | None:
    """Return the error of an instance's running operation."""
    shown = await world.view(instance_id)
    found = await world.app.history.operation(shown["operation"]["id"])
    return found.error_code


async def directly(world: World, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Call the emulator with the account's key, bypassing novitai."""
    response = await world.emulator.client.post(f"{PATHS}/{path}", json=body, headers=BEARER)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def calls(world: World, path: str) -> int:
    """Count the calls to one path."""
    counts: dict[str, int] = (await world.emulator.call("GET", "counts"))["counts"]
    return counts.get(f"POST /gpu/instance/{path}", 0)


async def runs_having_bought_one(world: World, instance_id: str, within: float = 900) -> None:
    """Check that an instance comes to run and is the only living one."""
    await world.until_status(instance_id, InstanceStatus.RUNNING, within=within)
    await world.pass_time(30)
    alive = [row for row in await world.emulator.ever() if row["live"]]
    assert [row["id"] for row in alive] == [(await world.view(instance_id))["upstreamId"]]


async def fifty_creates(world: World, actor: Actor) -> list[Created | Conflict]:
    """Request 50 instances at once, on PostgreSQL from two processes; return what came of each."""
    worlds = [world]
    url = world.settings.database_url
    assert url is not None
    if url.get_secret_value().startswith("postgresql"):
        worlds.append(World(world.settings, world.clock, world.emulator, seed=99))
        await worlds[1].open(work=False)

    async def create(number: int) -> Created | Conflict:
        app = worlds[number % len(worlds)].app
        command = app.create_instance.create(replace(REQUEST, name=f"n{number}"), actor=actor)
        try:
            return await app.commands.apply(command, deadline=None)
        except Conflict as refused:
            return refused

    try:
        return await asyncio.gather(*(create(number) for number in range(50)))
    finally:
        for other in worlds[1:]:
            await other.end()
