# SPDX-License-Identifier: Apache-2.0
"""Calls that take effect after their reply, or after their connection was dropped."""

from __future__ import annotations

from typing import cast

import pytest

from novitai.emulator.dropping import ConnectionDropped
from tests.emulator.client import Client, Json

CREATE: Json = {
    "name": "late",
    "productId": "gpu-basic.8c32g",
    "gpuNum": 1,
    "rootfsSize": 60,
    "imageUrl": "ubuntu",
}


async def last_faults(client: Client, method: str = "POST") -> object:
    """Return the faults that the call log shows for the last call."""
    reply = await client.control("GET", f"/calls?method={method}")
    return cast("list[Json]", reply["calls"])[-1]["faults"]


@pytest.mark.parametrize(
    ("verb", "before", "after"),
    [
        ("start", "exited", "toStart"),
        ("stop", "running", "toStop"),
        ("restart", "running", "toRestart"),
        ("delete", "running", "toRemove"),
    ],
)
async def test_an_operation_takes_effect_after_its_answer(
    client: Client, verb: str, before: str, after: str
) -> None:
    """The reply is a success at once; the status changes only after the delay."""
    [instance_id] = await client.seed(count=1, status=before)
    await client.fault(kind="call", path="/gpu/instance/*", lateEffectSeconds=60, times=1)
    assert await client.post(f"/gpu/instance/{verb}", {"instanceId": instance_id}) == {}
    await client.advance(59)
    assert await client.status(instance_id) == before
    assert await last_faults(client) == ["before: to be done 60 s later"]
    await client.advance(1)
    assert [row["status"] for row in await client.rows()] == [after]
    assert await last_faults(client) == ["before: to be done 60 s later", "done late: 200"]


@pytest.mark.parametrize("path", ["/gpu/instances", "/_emulator/instances", "/_proxy/{id}/80/"])
async def test_a_late_effect_needs_no_control_call(client: Client, path: str) -> None:
    """The first request after the due time sees the effect: API, control API or port mapping."""
    [instance_id] = await client.seed(count=1, ports="80/http")
    await client.fault(kind="call", path="/gpu/instance/stop", lateEffectSeconds=60)
    await client.post("/gpu/instance/stop", {"instanceId": instance_id})
    client.time.pass_(60)
    response = await client.raw("GET", path.format(id=instance_id))
    assert "toStop" in response.text or response.status_code == 502


async def test_a_late_start_undoes_the_stop_that_came_between(client: Client) -> None:
    """A dropped start that takes effect late starts the instance that the user has stopped."""
    [instance_id] = await client.seed(count=1, status="exited")
    body = {"instanceId": instance_id}
    path = "/gpu/instance/start"
    await client.fault(kind="call", path=path, drop=True, lateEffectSeconds=600, times=1)
    with pytest.raises(ConnectionDropped):
        await client.raw("POST", path, json=body)
    await client.post(path, body)
    await client.advance(300)
    await client.post("/gpu/instance/stop", body)
    await client.advance(290)
    assert await client.status(instance_id) == "exited"
    await client.advance(300)
    assert await client.status(instance_id) == "running"


async def test_a_late_effect_is_refused_by_what_is_there_then(client: Client) -> None:
    """A late operation on an instance deleted meanwhile is not found and changes nothing."""
    [instance_id] = await client.seed(count=1)
    await client.fault(kind="call", path="/gpu/instance/stop", lateEffectSeconds=60)
    await client.post("/gpu/instance/stop", {"instanceId": instance_id})
    await client.control("POST", f"/instances/{instance_id}/delete", {})
    await client.advance(60)
    assert (await client.control("GET", f"/instances/{instance_id}"))["status"] == "removed"
    assert await last_faults(client) == ["before: to be done 60 s later", "done late: 400"]


async def test_an_operation_on_no_instance_is_refused_at_once(client: Client) -> None:
    """The call is refused as not found at once and has no late effect."""
    await client.fault(kind="call", path="/gpu/instance/stop", lateEffectSeconds=60)
    error = await client.refused("/gpu/instance/stop", {"instanceId": "none"})
    assert error["reason"] == "RESOURCE_NOT_FOUND"
    await client.advance(60)
    assert await last_faults(client) == ["before: to be done 60 s later"]


@pytest.mark.parametrize(
    "answer", [{"status": 500}, {"status": 504, "body": "html"}, {"body": "malformed"}]
)
async def test_a_create_that_seems_to_fail_buys_later(client: Client, answer: Json) -> None:
    """The instance is created after the delay, and its creation time is that moment."""
    await client.fault(
        kind="call", path="/gpu/instance/create", lateEffectSeconds=90, times=1, **answer
    )
    begun = client.emulator.clock.now()
    response = await client.raw("POST", "/gpu/instance/create", json=CREATE)
    assert response.status_code == answer.get("status", 200)
    await client.advance(89)
    assert await client.rows() == []
    await client.advance(1000)
    [row] = await client.rows()
    assert (row["name"], row["status"]) == ("late", "running")
    assert row["createdAt"] == str(int(begun + 90))


async def test_late_effects_happen_in_the_order_of_their_times(client: Client) -> None:
    """Effects that become due together are applied in the order of their times."""
    [instance_id] = await client.seed(count=1)
    body = {"instanceId": instance_id}
    for verb, seconds in (("start", 600), ("stop", 60)):
        await client.fault(
            kind="call", path=f"/gpu/instance/{verb}", lateEffectSeconds=seconds, times=1
        )
        await client.post(f"/gpu/instance/{verb}", body)
    await client.advance(10_000)
    assert await client.status(instance_id) == "running"
    shown = await client.control("GET", f"/instances/{instance_id}")
    assert [step["status"] for step in cast("list[Json]", shown["timeline"])] == [
        "running", "toStop", "stopping", "exited", "toStart", "starting", "running",
    ]  # fmt: skip


async def test_a_pattern_postpones_only_what_can_be_answered_first(client: Client) -> None:
    """Reads and creates are answered as usual and not counted."""
    made = await client.fault(kind="call", path="*", lateEffectSeconds=60)
    await client.create()
    assert len(await client.rows()) == 1
    [listed] = cast("list[Json]", (await client.control("GET", "/faults"))["faults"])
    assert listed == {**made, "matched": 0, "struck": 0}


async def test_reset_forgets_what_was_to_come(client: Client) -> None:
    """A postponed create has no effect after a reset."""
    path = "/gpu/instance/create"
    await client.fault(kind="call", path=path, lateEffectSeconds=60, status=500)
    await client.refused(path, CREATE, 500)
    await client.control("POST", "/reset")
    await client.advance(100)
    assert await client.rows() == []


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"path": "/gpu/instance/create"}, "/gpu/instance/start"),
        ({"path": "/gpu/instance/stop", "when": "after"}, "before"),
        ({"path": "/gpu/instance/stop", "method": "GET"}, "POST"),
        ({"path": "/gpu/instances", "drop": True}, "POST"),
        ({"path": "/gpu/instance/create", "replyId": "missing"}, "before"),
    ],
)
async def test_a_late_effect_that_cannot_be_is_refused(
    client: Client, fault: Json, says: str
) -> None:
    """The 400 says what the fault requires."""
    body = {"kind": "call", "lateEffectSeconds": 60, **fault}
    assert says in str(await client.control_refused("POST", "/faults", body, 400))
