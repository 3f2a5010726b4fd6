# SPDX-License-Identifier: Apache-2.0
"""The control API, except accounts and faults."""

from __future__ import annotations

import hashlib
from typing import cast

import pytest

from novitai.emulator.calls import KEPT
from tests.emulator.client import KEY, Client, Json


async def test_the_index_lists_every_endpoint(client: Client) -> None:
    """`GET /_emulator/` needs no key and lists each endpoint with the fields it accepts."""
    index = await client.control("GET", "/")
    endpoints = cast("list[Json]", index["endpoints"])
    assert {"method", "path", "summary", "takes"} == set(endpoints[0])
    paths = {f"{each['method']} {each['path']}" for each in endpoints}
    assert "POST /_emulator/seed" in paths
    assert all(each["summary"] for each in endpoints)


@pytest.mark.parametrize("path", ["", "/nothing", "/faults/x/y"])
async def test_an_unknown_control_path_says_so(client: Client, path: str) -> None:
    """An unknown control path is a 404 that refers to the index."""
    error = await client.control_refused("POST", path, {}, 404)
    assert "GET /_emulator/" in str(error["error"])


async def test_the_calls_are_on_record_without_secrets(client: Client) -> None:
    """The log has method, path, query, times, status and a key digest, but no key or secret."""
    envs = [{"key": "TOKEN", "value": "s3cret"}]
    await client.create(envs=envs, imageAuth="user:hunter2")
    await client.post("/repository/auth/save", {"name": "r", "username": "u", "password": "s3cret"})
    await client.rows(pageSize=5)
    reply = await client.control("GET", "/calls")
    calls = cast("list[Json]", reply["calls"])
    text = str(calls)
    assert "s3cret" not in text
    assert "hunter2" not in text
    assert "test-key" not in text
    assert "TOKEN" in text
    key = KEY["Authorization"].split()[1]
    assert calls[0]["caller"] == f"key-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    assert (calls[2]["path"], calls[2]["query"]) == ("/gpu/instances", {"pageSize": "5"})
    assert (calls[0]["status"], reply["total"]) == (200, 3)


async def test_calls_are_filtered_and_counted(client: Client) -> None:
    """Calls are filtered by path, method and number, and counted per method and path."""
    await client.rows()
    await client.create()
    await client.rows()
    await client.raw("GET", "/nowhere")
    base = "/gpu-instance/openapi/v1"
    for path in ("/gpu/instances", f"{base}/gpu/instances", "/gpu/instance*"):
        reply = await client.control("GET", f"/calls?path={path}&method=GET")
        assert len(cast("list[Json]", reply["calls"])) == 2
    assert len(cast("list[Json]", (await client.control("GET", "/calls?after=3"))["calls"])) == 1
    assert await client.control("GET", "/counts") == {
        "counts": {
            "GET (unknown)": 1,
            "GET /gpu/instances": 2,
            "POST /gpu/instance/create": 1,
        },
        "total": 4,
    }


async def test_the_record_of_calls_is_bounded(client: Client) -> None:
    """Old calls are dropped from the log but still counted."""
    log = client.emulator.calls
    for _ in range(KEPT + 10):
        log.add("GET", "/x", query={}, body=None, caller="", virtual_at=0, known=True)
    assert sum(1 for _ in log.find()) == KEPT
    assert log.total == KEPT + 10


async def test_all_instances_are_on_record_with_who_made_and_deleted_them(client: Client) -> None:
    """Each record has the creating key, the deleting key or `control`, the times and `live`."""
    mine = await client.create(name="mine")
    [theirs] = await client.seed(names=["theirs"], createdBy="somebody")
    await client.post("/gpu/instance/delete", {"instanceId": theirs})
    await client.control("POST", f"/instances/{mine}/delete", {})
    await client.advance(2 * 86_400)
    assert await client.rows() == []
    reply = await client.control("GET", "/instances")
    rows = {row["name"]: row for row in cast("list[Json]", reply["instances"])}
    assert str(rows["mine"]["createdBy"]).startswith("key-")
    assert rows["mine"]["deletedBy"] == "control"
    assert rows["theirs"]["createdBy"] == "somebody"
    assert rows["theirs"]["deletedBy"] == rows["mine"]["createdBy"]
    assert rows["mine"]["live"] is False
    assert rows["mine"]["removedAt"] is not None
    assert (reply["total"], reply["live"]) == (2, 0)
    live = await client.control("GET", "/instances?live=true")
    assert live["instances"] == []


async def test_an_instance_changes_behind_everybodys_back(client: Client) -> None:
    """Changes of status, stops and deletes take effect at once, or gradually on request."""
    instance_id = await client.running()
    await client.control("PATCH", f"/instances/{instance_id}", {"status": "freezing"})
    assert await client.status(instance_id) == "freezing"
    change = {"status": "exited", "errorState": "oom", "errorMessage": "out of memory"}
    await client.control("PATCH", f"/instances/{instance_id}", change)
    shown = await client.instance(instance_id)
    assert shown["statusError"] == {"state": "oom", "message": "out of memory"}
    await client.control("PATCH", f"/instances/{instance_id}", {"status": "running"})
    await client.control("POST", f"/instances/{instance_id}/stop", {"gradually": True})
    assert await client.status(instance_id) == "toStop"
    await client.advance(60)
    error = await client.control_refused(
        "POST", f"/instances/{instance_id}/stop", {"gradually": True}, 400
    )
    assert error["error"] == "invalid state change"
    await client.control("POST", f"/instances/{instance_id}/delete", {"gradually": True})
    assert await client.status(instance_id) == "toRemove"
    await client.control("POST", f"/instances/{instance_id}/delete", {})
    assert await client.rows() == []
    error = await client.control_refused("POST", f"/instances/{instance_id}/delete", {}, 400)
    assert "is removed" in str(error["error"])


async def test_what_the_api_tells_of_an_instance_can_be_changed(client: Client) -> None:
    """Get and list show the changed creation time, image, product, GPU number and price."""
    instance_id = await client.running()
    body = {"createdAt": 1_760_000_000, "imageUrl": "debian:13"}
    await client.control("PATCH", f"/instances/{instance_id}", body)
    body = {"productId": "4090.16c62g", "gpuNum": 2}
    changed = await client.control("PATCH", f"/instances/{instance_id}", body)
    assert (changed["createdAt"], changed["productName"]) == (1_760_000_000, "RTX 4090 24GB")
    shown = await client.instance(instance_id)
    assert (shown["createdAt"], shown["imageUrl"]) == ("1760000000", "debian:13")
    assert (shown["productId"], shown["gpuNum"]) == ("4090.16c62g", "2")
    assert (shown["cpuNum"], shown["memory"]) == ("32", "124")
    assert shown["instancePrice"] == "30000"
    assert await client.rows() == [shown]
    await client.control("PATCH", f"/instances/{instance_id}", {"instancePrice": 90_000})
    assert (await client.instance(instance_id))["instancePrice"] == "90000"


async def test_a_creation_time_of_the_future_hides_nothing(client: Client) -> None:
    """An instance is listed even if its creation time is in the future."""
    instance_id = await client.running()
    ahead = client.emulator.clock.now() + 86_400
    await client.control("PATCH", f"/instances/{instance_id}", {"createdAt": ahead})
    assert [row["createdAt"] for row in await client.rows()] == [str(int(ahead))]


async def test_a_copy_is_another_live_instance(client: Client) -> None:
    """A copy differs from its original only in ID and creation time."""
    original = await client.running(ports="80/http")
    await client.advance(1000)
    copy = await client.control("POST", f"/instances/{original}/copy", {})
    assert copy["createdBy"] == "control"
    first, second = await client.instance(original), await client.instance(str(copy["id"]))
    same = ("name", "productId", "gpuNum", "imageUrl", "status", "clusterId", "instancePrice")
    assert [first[name] for name in same] == [second[name] for name in same]
    assert int(str(second["createdAt"])) > int(str(first["createdAt"]))
    await client.post("/gpu/instance/delete", {"instanceId": original})
    await client.advance(60)
    assert [row["id"] for row in await client.rows()] == [copy["id"]]


async def test_a_copy_can_have_a_name_time_and_status_of_its_own(client: Client) -> None:
    """The copy of a removed instance runs; the copy of a starting instance starts too."""
    original = await client.create()
    twin = await client.control("POST", f"/instances/{original}/copy", {})
    body = {"name": "other", "createdAt": 1_760_000_000, "status": "exited"}
    exited = await client.control("POST", f"/instances/{original}/copy", body)
    shown = await client.instance(str(exited["id"]))
    assert (shown["name"], shown["createdAt"], shown["status"]) == ("other", "1760000000", "exited")
    assert await client.status(str(twin["id"])) == "pending"
    await client.advance(300)
    assert await client.status(str(twin["id"])) == "running"
    await client.control("POST", f"/instances/{original}/delete", {})
    risen = await client.control("POST", f"/instances/{original}/copy", {})
    assert await client.status(str(risen["id"])) == "running"


async def test_a_copy_of_a_held_instance_is_not_held(client: Client) -> None:
    """It has the status that its original would have without the hold."""
    original = await client.running()
    await client.control("POST", f"/instances/{original}/hold", {"status": "toStop"})
    copy = await client.control("POST", f"/instances/{original}/copy", {})
    assert await client.status(original) == "toStop"
    assert await client.status(str(copy["id"])) == "running"


async def test_an_instance_is_held_until_let_go(client: Client) -> None:
    """The hold overrides the timeline; without it, the timeline applies again."""
    instance_id = await client.create()
    await client.control("POST", f"/instances/{instance_id}/hold", {"status": "pulling"})
    await client.advance(5000)
    assert await client.status(instance_id) == "pulling"
    await client.control("POST", f"/instances/{instance_id}/hold", {"status": None})
    assert await client.status(instance_id) == "running"


async def test_an_instance_shows_its_timeline(client: Client) -> None:
    """The control API shows future status changes and masks the values of variables."""
    instance_id = await client.create(envs=[{"key": "A", "value": "hidden"}])
    shown = await client.control("GET", f"/instances/{instance_id}")
    timeline = cast("list[Json]", shown["timeline"])
    assert [step["status"] for step in timeline][-1] == "running"
    assert shown["envs"] == [{"key": "A", "value": "***"}]
    assert shown["nextChangeAt"] == timeline[1]["at"]
    await client.control_refused("GET", "/instances/nobody", None, 404)


async def test_reset_forgets_everything_but_the_time(client: Client) -> None:
    """Instances, faults, calls, counts, settings, prices and speed are the initial ones."""
    await client.create()
    await client.fault(kind="list", totalDelta=1)
    await client.control("PATCH", "/settings", {"balance": 0, "docsMode": True})
    await client.control("PATCH", "/products/26", {"price": 1})
    await client.control("POST", "/clock", {"speed": 50, "advance": 1000})
    now = client.emulator.clock.now()
    await client.control("POST", "/reset")
    state = cast("Json", (await client.control("GET", "/"))["state"])
    assert (state["instances"], state["faults"], state["calls"], state["speed"]) == (0, 0, 0, 1)
    assert (await client.control("GET", "/settings"))["balance"] == 1_000_000_000_000
    assert client.emulator.products["26"].price == 67000
    assert client.emulator.clock.now() == now
    await client.create()


async def test_the_clock_can_be_advanced_and_its_speed_changed(client: Client) -> None:
    """One call can do both; then time passes at the new speed."""
    before = (await client.control("GET", "/clock"))["now"]
    after = (await client.control("POST", "/clock", {"advance": 100, "speed": 10}))["now"]
    assert cast("float", after) == pytest.approx(cast("float", before) + 100)
    client.time.pass_(3)
    assert (await client.control("GET", "/clock"))["now"] == pytest.approx(
        cast("float", after) + 30
    )


async def test_delays_can_be_set(client: Client) -> None:
    """A status with a zero range is skipped at once; unknown names and bad ranges are refused."""
    zero = dict.fromkeys(("pending", "toCreate", "creating", "pulling", "boot"), (0, 0))
    await client.control("PATCH", "/settings", {"delays": zero})
    assert await client.status(await client.create()) == "running"
    for delays in ({"nap": (1, 2)}, {"boot": (3, 2)}):
        error = await client.control_refused("PATCH", "/settings", {"delays": delays}, 400)
        assert next(iter(delays)) in str(error)


@pytest.mark.parametrize(
    ("method", "path", "body", "says"),
    [
        ("POST", "/seed", {}, "either count or names"),
        ("POST", "/seed", {"count": 1, "status": "sleeping"}, "status"),
        ("POST", "/seed", {"count": 1, "productId": "none"}, "productId"),
        ("POST", "/seed", {"count": 1, "clusterId": "none"}, "clusterId"),
        ("POST", "/seed", {"count": 1, "ports": "80"}, "port type"),
        ("POST", "/accounts", {"keys": []}, "keys"),
        ("POST", "/clock", {}, "advance"),
        ("POST", "/clock", {"speed": 0}, "speed"),
        ("PATCH", "/settings", {"docMode": True}, "docMode"),
        ("PATCH", "/settings", {"balance": None}, "balance"),
        ("PATCH", "/products/26", {"price": None}, "spotPrice"),
        ("PATCH", "/products/26", {"clusterId": "us-ca-6"}, "freeGpus"),
        ("PATCH", "/products/26", {"clusterId": "us-ca-6", "freeGpus": 1}, "not offered"),
        ("POST", "/products", {"id": "x", "name": "x", "price": 1, "offers": []}, "offers"),
    ],
)
async def test_a_wrong_control_request_is_a_precise_400(
    client: Client, method: str, path: str, body: Json, says: str
) -> None:
    """The error names the wrong field or value."""
    assert says in str(await client.control_refused(method, path, body, 400))


async def test_a_control_body_that_is_not_json_is_refused(client: Client) -> None:
    """The error says that the body is not JSON."""
    response = await client.http.post("/_emulator/seed", content=b"{count: 1}")
    assert response.status_code == 400
    assert "not JSON" in response.json()["error"]


async def test_seeding_by_name_lays_traps(client: Client) -> None:
    """Instances are created with the given names, product, cluster, status and GPU number."""
    await client.seed(
        names=["twin", "twin"],
        productId="4090.16c62g",
        clusterId="cn-hongkong-1",
        billingMode="spot",
        status="exited",
        gpuNum=2,
    )
    rows = await client.rows(name="twin")
    assert [row["status"] for row in rows] == ["exited", "exited"]
    assert {(row["clusterId"], row["gpuNum"], row["billingMode"]) for row in rows} == {
        ("cn-hongkong-1", "2", "spot")
    }
