# SPDX-License-Identifier: Apache-2.0
"""Rent and wait, against the whole control plane in virtual time and against lost responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import httpx2
import pytest

from novitai.domain.api_key import Scope
from novitai_client import (
    AsyncNovitai,
    ConnectionFailed,
    DeleteFailed,
    NovitaiError,
    StatusOutOfReach,
    WaitTimedOut,
)
from novitai_client.clock import Clock
from novitai_client.requests import CreateFields
from tests.api.client import Http
from tests.client.scripted import CREATED, URL, Script, instance, refusal
from tests.lifecycle.world import World

T = TypeVar("T")
FIELDS: CreateFields = {
    "name": "rented",
    "product_name": "gpu-basic",
    "template_id": "tmpl-12345",
    "region": "US-WEST-01",
}


class Broken(Exception):
    """An exception of the program that rents."""


@dataclass
class Plane:
    """A control plane, and a client of its API."""

    world: World
    client: AsyncNovitai
    key: str

    async def through(self, work: Coroutine[Any, Any, T], within: float = 1500) -> T:
        """Let virtual time pass until work is done."""
        task = asyncio.ensure_future(work)

        async def done() -> bool:
            return task.done()

        await self.world.until(done, within=within)
        return await task

    async def only(self) -> Mapping[str, Any]:
        """Return the view of the only instance there is."""
        found = [one async for one in self.client.instances.list(include_terminated=True)]
        assert len(found) == 1
        return await self.world.view(found[0].id)

    async def gone(self) -> bool:
        """Whether the only instance was deleted."""
        return (await self.only())["status"] in {"terminating", "terminated"}


@pytest.fixture
async def plane(world: World) -> AsyncIterator[Plane]:
    """A control plane with a client whose time is virtual."""
    http = await Http.open(world.app)
    clock = Clock(monotonic=world.clock.monotonic, pause=world.clock.sleep)
    client = AsyncNovitai(URL, http.keys[Scope.WRITE], http=http.client, clock=clock)
    yield Plane(world, client, http.keys[Scope.WRITE])
    await http.aclose()


async def test_a_rented_instance_serves_and_is_deleted(plane: Plane) -> None:
    """In the block the instance runs; afterwards it is deleted."""

    async def rent() -> str:
        async with plane.client.instances.rent(**FIELDS, max_run_minutes=30) as gpu:
            assert gpu.status == "running"
            assert (await plane.world.view(gpu.id))["status"] == "running"
            return gpu.id

    await plane.through(rent())
    assert await plane.gone()


def interrupt(kind: type[BaseException]) -> NoReturn:
    """Raise an exception, as the user's program or its user does."""
    raise kind


@pytest.mark.parametrize(
    "raised", [Broken, KeyboardInterrupt, asyncio.CancelledError, NovitaiError]
)
async def test_rent_deletes_after_any_exception(plane: Plane, raised: type[BaseException]) -> None:
    """The exception of the block goes on, and the instance is deleted."""
    caught: list[BaseException] = []

    async def rent() -> None:
        try:
            async with plane.client.instances.rent(**FIELDS):
                interrupt(raised)
        except raised as error:
            caught.append(error)

    await plane.through(rent())
    assert type(caught[0]) is raised
    assert await plane.gone()


async def test_a_task_that_is_cancelled_while_it_waits_deletes(plane: Plane) -> None:
    """Cancelled before the instance serves, and again during the clean-up: it is deleted."""

    async def rent() -> None:
        async with plane.client.instances.rent(**FIELDS):
            raise AssertionError("it never serves")

    task = asyncio.create_task(rent())

    async def accepted() -> bool:
        return [one async for one in plane.client.instances.list()] != []

    await plane.world.until(accepted, within=60)
    while not task.done():  # also at every turn of the clean-up
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()
    assert await plane.gone()


class Losing(httpx2.AsyncBaseTransport):
    """Loses the first response to each request that the server has carried out."""

    def __init__(self, world: World) -> None:
        self._inner = httpx2.ASGITransport(app=world.app.api())
        self._lost: set[str] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; the response gets lost if its key is new."""
        response = await self._inner.handle_async_request(request)
        key = request.headers.get("Idempotency-Key", "")
        if key and key not in self._lost:
            self._lost.add(key)
            await response.aread()
            raise httpx2.ReadError("connection reset")
        return response


async def test_lost_responses_create_and_delete_once(plane: Plane) -> None:
    """If each response gets lost once, twenty creates still give twenty instances."""
    clock = Clock(monotonic=plane.world.clock.monotonic, pause=plane.world.clock.sleep)
    async with httpx2.AsyncClient(transport=Losing(plane.world)) as http:
        client = AsyncNovitai(URL, plane.key, http=http, clock=clock)
        work = asyncio.gather(*(client.instances.create(**FIELDS) for _ in range(20)))

        async def both() -> set[str]:
            ids = {created.instance_id for created in await work}
            await client.instances.delete(next(iter(ids)))
            return ids

        ids = await plane.through(both())
    listed = [one async for one in plane.client.instances.list(include_terminated=True)]
    assert len(ids) == 20
    assert {one.id for one in listed} == ids
    assert len(listed) == 20


async def test_a_killed_client_leaves_nothing_that_bills(plane: Plane) -> None:
    """Without the client, the server deletes the instance after `max_run_minutes`."""

    async def leave() -> str:
        context = plane.client.instances.rent(**FIELDS, max_run_minutes=5)
        return (await context.__aenter__()).id  # and never leaves: as if it had been killed

    instance_id = await plane.through(leave())
    limits = (await plane.world.view(instance_id))["limits"]
    assert (limits["maxRunMinutes"], limits["onLimit"]) == (5, "delete")
    await plane.world.until(plane.gone, within=420)


async def test_a_wait_that_runs_out_carries_the_instance(plane: Plane) -> None:
    """The exception has the instance, and its message the ID and what to do."""

    async def wait() -> WaitTimedOut:
        created = await plane.client.instances.create(**FIELDS)
        with pytest.raises(WaitTimedOut) as caught:
            await plane.client.instances.wait(created.instance_id, timeout=10)
        return caught.value

    error = await plane.through(wait())
    assert error.instance is not None
    assert error.instance.status in {"creating", "starting"}
    assert error.instance.id in str(error)
    assert "lives on" in str(error)


async def test_a_wait_for_what_cannot_come_carries_the_instance_and_its_error(
    plane: Plane,
) -> None:
    """If the instance fails, the exception has it, and rent deletes what is left."""
    await plane.world.emulator.call(
        "POST",
        "faults",
        json={"kind": "call", "path": "/gpu/instance/create", "status": 400, "reason": "x"},
    )

    async def rent() -> StatusOutOfReach:
        with pytest.raises(StatusOutOfReach) as caught:
            async with plane.client.instances.rent(**FIELDS):
                pass
        return caught.value

    error = await plane.through(rent())
    assert error.instance is not None
    assert error.instance.status == "failed"
    assert error.instance.error is not None
    assert error.code == "INVALID_STATE"
    assert await plane.gone()


async def test_the_exception_of_a_failed_delete_carries_the_id(plane: Plane) -> None:
    """A protected instance is not deleted: the exception names it, and what the block raised."""
    fields: CreateFields = {**FIELDS, "protected": {"reason": "it trains"}}

    async def rent() -> DeleteFailed:
        with pytest.raises(DeleteFailed) as caught:
            async with plane.client.instances.rent(**fields):
                raise Broken
        return caught.value

    error = await plane.through(rent())
    assert error.instance_id == (await plane.only())["id"]
    assert isinstance(error.raised, Broken)
    assert error.instance_id in str(error)
    assert not await plane.gone()


OK = httpx2.Response(201, json=CREATED)
RUNNING = httpx2.Response(200, json=instance("running"))
DELETED = httpx2.Response(
    202, json={"instanceId": "inst_1", "status": "terminating", "operationId": "op", "message": ""}
)


def interrupted(_: httpx2.Request) -> httpx2.Response:
    """Interrupt the program while it waits for a response."""
    raise KeyboardInterrupt


def test_what_rent_has_deleted_does_not_live_on() -> None:
    """No note and no message says that it lives on, because it was deleted."""
    script = Script([OK, interrupted, DELETED])
    with (
        script.client() as client,
        pytest.raises(KeyboardInterrupt) as caught,
        client.instances.rent(**FIELDS),
    ):
        pass
    assert getattr(caught.value, "__notes__", []) == []
    script = Script([OK, httpx2.Response(200, json=instance("starting")), DELETED])
    with (
        script.client() as client,
        pytest.raises(WaitTimedOut) as late,
        client.instances.rent(ready_timeout=0, **FIELDS),
    ):
        pass
    assert "lives on" not in str(late.value)
    assert "inst_1" in str(late.value)


def test_an_interrupt_during_the_create_leaves_nothing() -> None:
    """The create is sent again with its key to learn the ID, and the instance is deleted."""
    script = Script([interrupted, OK, DELETED])
    with (
        script.client() as client,
        pytest.raises(KeyboardInterrupt),
        client.instances.rent(**FIELDS),
    ):
        pass
    assert [request.method for request in script.requests] == ["POST", "POST", "DELETE"]
    assert script.keys()[0] == script.keys()[1]
    assert script.requests[0].content == script.requests[1].content


def test_a_create_that_cannot_be_settled_names_its_key() -> None:
    """If the program is interrupted and the server stays away, a note has the key."""
    for second in (httpx2.ConnectError("refused"), interrupted):
        script = Script([interrupted, second])
        with (
            script.client() as client,
            pytest.raises(KeyboardInterrupt) as caught,
            client.instances.rent(**FIELDS),
        ):
            pass
        assert str(script.keys()[0]) in caught.value.__notes__[0]


@pytest.mark.parametrize("where", ["wait", "block"])
def test_an_interrupt_whose_delete_fails_names_the_instance(where: str) -> None:
    """Ctrl-C stays Ctrl-C, and its note has the ID."""
    first: list[Callable[[httpx2.Request], httpx2.Response] | httpx2.Response] = (
        [OK, interrupted] if where == "wait" else [OK, RUNNING]
    )
    script = Script([*first, refusal(401, "UNAUTHORIZED")])
    with (
        script.client() as client,
        pytest.raises(KeyboardInterrupt) as caught,
        client.instances.rent(**FIELDS),
    ):
        raise KeyboardInterrupt
    assert any("inst_1 was not deleted" in note for note in caught.value.__notes__)


def test_a_create_whose_fate_is_unknown_names_its_key() -> None:
    """If the server stays away, the key is in the exception: with it the create can be settled."""
    script = Script([httpx2.ConnectError("refused")])
    with (
        script.client() as client,
        pytest.raises(ConnectionFailed) as caught,
        client.instances.rent(**FIELDS),
    ):
        pass
    assert caught.value.idempotency_key == script.keys()[0]


def test_every_exception_of_a_wait_carries_the_instance() -> None:
    """So does one of another kind: a lost connection, a revoked key, an interrupt."""
    for step, kind in (
        (httpx2.ConnectError("refused"), ConnectionFailed),
        (refusal(401, "UNAUTHORIZED"), NovitaiError),
    ):
        script = Script([httpx2.Response(200, json=instance("starting")), step])
        with script.client() as client, pytest.raises(kind) as caught:
            client.instances.wait("inst_1", timeout=60)
        assert caught.value.instance_id == "inst_1"
        assert caught.value.instance is not None
        assert script.now <= 70
    script = Script([httpx2.Response(200, json=instance("starting")), interrupted])
    with script.client() as client, pytest.raises(KeyboardInterrupt) as stopped:
        client.instances.wait("inst_1")
    assert "inst_1 lives on at $0.6 an hour" in stopped.value.__notes__[0]


def test_a_server_that_ends_is_not_asked_again_at_once() -> None:
    """Long polls that come back early are followed by a pause."""
    early = httpx2.Response(202, json=instance("starting"))
    script = Script([httpx2.Response(200, json=instance("starting")), early, early, RUNNING])
    with script.client() as client:
        assert client.instances.wait("inst_1").status == "running"
    assert script.paused == [1, 1]


def test_the_limits_of_a_rent_can_be_chosen() -> None:
    """By default a run ends after two hours; None sets none; own limits go first."""
    for given, sent in (
        ({}, {"maxRunMinutes": 120, "deleteAfterStoppedMinutes": 120, "onLimit": "delete"}),
        ({"max_run_minutes": None}, None),
        (
            {"max_run_minutes": 9, "limits": {"on_limit": "stop", "max_spend": 5}},
            {
                "maxRunMinutes": 9,
                "deleteAfterStoppedMinutes": 9,
                "onLimit": "stop",
                "maxSpend": 5,
            },
        ),
    ):
        script = Script([OK, RUNNING, DELETED])
        with script.client() as client, client.instances.rent(**FIELDS, **given):
            pass
        body = httpx2.Response(200, content=script.requests[0].content).json()
        assert body.get("limits") == sent
