# SPDX-License-Identifier: Apache-2.0
"""Every kind of fault and its effect."""

from __future__ import annotations

import random
from typing import cast

import pytest

from novitai.emulator.dropping import ConnectionDropped
from novitai.emulator.faults import Trigger
from tests.emulator.client import Client, Json

CREATE: Json = {
    "name": "x",
    "productId": "gpu-basic.8c32g",
    "gpuNum": 1,
    "rootfsSize": 60,
    "imageUrl": "ubuntu",
}


def struck(trigger: Trigger, calls: int = 12) -> list[int]:
    """Return the numbers of the calls that a trigger strikes."""
    rng, fired, numbers = random.Random(1), 0, []
    for number in range(1, calls + 1):
        if trigger.fires(number, fired, rng):
            fired += 1
            numbers.append(number)
    return numbers


@pytest.mark.parametrize(
    ("trigger", "numbers"),
    [
        (Trigger(), list(range(1, 13))),
        (Trigger(nth=(2, 5)), [2, 5]),
        (Trigger(every=4), [4, 8, 12]),
        (Trigger(after=10), [11, 12]),
        (Trigger(times=2), [1, 2]),
        (Trigger(every=3, times=2, after=3), [6, 9]),
    ],
)
def test_triggers_strike_the_calls_they_name(trigger: Trigger, numbers: list[int]) -> None:
    """`nth`, `every`, `after` and `times` work alone and combined."""
    assert struck(trigger) == numbers


def test_a_probability_is_drawn_from_the_seeded_randomness() -> None:
    """A probability strikes some calls, and the same ones with the same seed."""
    first = struck(Trigger(probability=0.5), 200)
    assert 60 < len(first) < 140
    assert first == struck(Trigger(probability=0.5), 200)


async def test_an_error_before_the_work_prevents_it(client: Client) -> None:
    """The create fails with a 500 and creates nothing; the next create succeeds."""
    await client.fault(kind="call", path="/gpu/instance/create", status=500, nth=1)
    error = await client.refused("/gpu/instance/create", CREATE, 500)
    assert error["reason"] == "UNKNOWN"
    assert (await client.control("GET", "/instances"))["total"] == 0
    await client.post("/gpu/instance/create", CREATE)


async def test_an_error_after_the_work_hides_it(client: Client) -> None:
    """The reply is a 500, but the instance exists: an ambiguous create."""
    await client.fault(kind="call", path="/gpu/instance/create", status=500, when="after", times=1)
    await client.refused("/gpu/instance/create", CREATE, 500)
    assert [row["name"] for row in await client.rows()] == ["x"]


async def test_invalid_state_change_although_it_worked(client: Client) -> None:
    """A fault can refuse an operation after the operation has taken effect."""
    instance_id = await client.running()
    await client.fault(kind="call", path="/gpu/instance/stop", status=400, when="after")
    error = await client.refused("/gpu/instance/stop", {"instanceId": instance_id})
    assert error["message"] == "invalid state change"
    assert await client.status(instance_id) == "toStop"


@pytest.mark.parametrize(("when", "created"), [("before", 0), ("after", 1)])
async def test_a_connection_is_dropped_before_or_after_the_work(
    client: Client, when: str, created: int
) -> None:
    """In-process, a drop is an exception; the call log marks the call as dropped."""
    await client.fault(kind="call", path="/gpu/instance/create", drop=True, when=when)
    with pytest.raises(ConnectionDropped):
        await client.raw("POST", "/gpu/instance/create", json=CREATE)
    assert (await client.control("GET", "/instances"))["total"] == created
    [call] = cast("list[Json]", (await client.control("GET", "/calls"))["calls"])
    assert call["dropped"] is True
    assert call["faults"] == [f"{when}: dropped"]


@pytest.mark.parametrize(
    ("body", "text"), [("empty", ""), ("malformed", '{"id": "3560b7fe'), ("list", "[]")]
)
async def test_a_success_with_a_broken_body(client: Client, body: str, text: str) -> None:
    """The work is done and the status is 200, but the body is wrong."""
    await client.fault(kind="call", path="/gpu/instance/create", body=body)
    response = await client.raw("POST", "/gpu/instance/create", json=CREATE)
    assert (response.status_code, response.text) == (200, text)
    assert len(await client.rows()) == 1


async def test_a_gateway_answers_in_its_own_words(client: Client) -> None:
    """An error can have a body that is not JSON."""
    await client.fault(kind="call", path="/clusters", status=502, body="html")
    response = await client.raw("GET", "/clusters")
    assert response.status_code == 502
    assert response.headers["content-type"] == "text/html"


@pytest.mark.parametrize("wanted", ["existing", "foreign-*"])
async def test_a_create_is_answered_with_the_id_of_another_instance(
    client: Client, wanted: str
) -> None:
    """The reply has the ID of the newest other instance, and the real instance exists too."""
    [_, foreign] = await client.seed(names=["foreign-1", "foreign-2"])
    if wanted != "existing":
        await client.create(name="later")
    await client.fault(kind="call", path="/gpu/instance/create", replyId=wanted, times=1)
    assert await client.create(name="mine") == foreign
    assert (await client.rows())[0]["name"] == "mine"
    call = cast("list[Json]", (await client.control("GET", "/calls?method=POST"))["calls"])[-1]
    assert call["faults"] == [f"after: id: {wanted}"]
    assert await client.create(name="next") == (await client.rows())[0]["id"]


@pytest.mark.parametrize("wanted", ["missing", "3560b7fe00000000"])
async def test_a_create_is_answered_with_the_id_of_no_instance(client: Client, wanted: str) -> None:
    """The reply has a made-up ID or the given ID; a look-up of it fails."""
    await client.fault(kind="call", path="/gpu/instance/create", replyId=wanted)
    told = await client.create(name="mine")
    assert told == (wanted if wanted != "missing" else told)
    response = await client.raw("GET", "/gpu/instance", params={"instanceId": told})
    assert response.json()["reason"] == "RESOURCE_NOT_FOUND"
    assert [row["name"] for row in await client.rows()] == ["mine"]


async def test_an_id_that_cannot_be_replaced_stays(client: Client) -> None:
    """The ID is kept if no other instance exists or the create fails; the call log says so."""
    await client.fault(kind="call", path="*", replyId="existing")
    assert await client.create() == (await client.rows())[0]["id"]
    await client.refused("/gpu/instance/create", {**CREATE, "gpuNum": 99})
    calls = cast("list[Json]", (await client.control("GET", "/calls?method=POST"))["calls"])
    assert {cast("list[str]", call["faults"])[-1] for call in calls} == {"after: the id stayed"}


async def test_another_accounts_instance_is_not_named_in_a_reply(client: Client) -> None:
    """`existing` selects only instances that the caller can see."""
    await client.seed(names=["stranger"])
    await client.control("PATCH", "/settings", {"accountPerKey": True})
    await client.fault(kind="call", path="/gpu/instance/create", replyId="existing")
    assert await client.create() == (await client.rows())[0]["id"]


@pytest.mark.parametrize("retry_after", [None, 3])
async def test_429_with_and_without_retry_after(client: Client, retry_after: int | None) -> None:
    """The `Retry-After` header is present only on request."""
    await client.fault(kind="call", path="*", status=429, retryAfter=retry_after)
    response = await client.raw("GET", "/clusters")
    assert response.json()["reason"] == "RATE_LIMIT_EXCEEDED"
    expected = None if retry_after is None else str(retry_after)
    assert response.headers.get("retry-after") == expected


async def test_a_latency_is_in_real_seconds(client: Client) -> None:
    """A latency delays the reply and appears in the call log."""
    await client.fault(kind="call", path="/clusters", latencySeconds=0.02)
    await client.get("/clusters")
    [call] = cast("list[Json]", (await client.control("GET", "/calls"))["calls"])
    assert cast("float", call["durationMs"]) >= 15


async def test_a_fault_can_look_into_the_body(client: Client) -> None:
    """`bodyContains` strikes one create and spares the other."""
    await client.fault(kind="call", path="/gpu/instance/*", bodyContains="victim", status=503)
    await client.refused("/gpu/instance/create", {**CREATE, "name": "victim-1"}, 503)
    await client.post("/gpu/instance/create", CREATE)


async def test_a_look_up_can_say_not_found_of_one_instance_alone(client: Client) -> None:
    """A look-up fault and an omitted row each affect one instance only."""
    [lost, found] = await client.seed(names=["lost", "found"])
    fault = await client.fault(
        kind="call",
        path="/gpu/instance",
        queryContains=f"instanceId={lost}",
        status=400,
        reason="RESOURCE_NOT_FOUND",
        message="instance not found",
    )
    response = await client.raw("GET", "/gpu/instance", params={"instanceId": lost})
    assert (response.status_code, response.json()["reason"]) == (400, "RESOURCE_NOT_FOUND")
    assert await client.status(found) == "running"
    assert [row["id"] for row in await client.rows()] == [found, lost]
    await client.control("DELETE", f"/faults/{fault['id']}")
    await client.fault(kind="list", omit=lost)
    assert await client.status(lost) == "running"
    assert [row["id"] for row in await client.rows()] == [found]


async def test_a_fault_can_look_into_the_query(client: Client) -> None:
    """The decoded query must contain one text and lack the other; other calls do not count."""
    fault = {"path": "/gpu/instances", "queryContains": "name=my fault", "queryLacks": "pageNum=2"}
    await client.fault(kind="call", status=503, **fault)
    statuses = [
        (await client.raw("GET", f"/gpu/instances?{query}")).status_code
        for query in ("name=my%20fault", "name=my+fault&pageNum=1", "name=my+fault&pageNum=2", "")
    ]
    assert statuses == [503, 503, 200, 200]
    [listed] = cast("list[Json]", (await client.control("GET", "/faults"))["faults"])
    assert (listed["matched"], listed["struck"]) == (2, 2)


async def test_faults_are_listed_with_their_counters_and_removed(client: Client) -> None:
    """`matched` counts matching calls, `struck` counts strikes, and DELETE removes a fault."""
    made = await client.fault(kind="call", path="/clusters", status=500, nth=[2])
    await client.get("/clusters")
    [listed] = cast("list[Json]", (await client.control("GET", "/faults"))["faults"])
    assert listed == {**made, "matched": 1, "struck": 0}
    assert (listed["path"], listed["nth"]) == ("/clusters", [2])
    await client.control("DELETE", f"/faults/{made['id']}")
    await client.get("/clusters")
    await client.fault(kind="call", path="/clusters", status=500)
    assert (await client.control("DELETE", "/faults"))["removed"] == 1


async def test_capacity_of_a_product_is_refused_on_create_and_start(client: Client) -> None:
    """The product is refused with INSUFFICIENT_RESOURCE, also by its name; others are not."""
    [exited] = await client.seed(count=1, status="exited")
    await client.fault(kind="capacity", product="gpu-basic")
    error = await client.refused("/gpu/instance/create", CREATE)
    assert error["reason"] == "INSUFFICIENT_RESOURCE"
    error = await client.refused("/gpu/instance/start", {"instanceId": exited})
    assert error["reason"] == "INSUFFICIENT_RESOURCE"
    error = await client.refused("/gpu/instance/migrate", {"instanceId": exited})
    assert error["reason"] == "MIGRATE_INSUFFICIENT_RESOURCE"
    products = cast("list[Json]", (await client.get("/products", productName="gpu-basic"))["data"])
    assert not any(product["availableDeploy"] for product in products)
    await client.create(productId="4090.16c62g")


async def test_capacity_of_a_region_is_refused_there_only(client: Client) -> None:
    """The region is the code in the cluster's name; a create without a cluster uses the next."""
    await client.fault(kind="capacity", region="US-WEST-01", operations=["create"])
    await client.refused("/gpu/instance/create", {**CREATE, "clusterId": "us-west-1"})
    instance_id = await client.create()
    assert (await client.instance(instance_id))["clusterId"] == "eu-west-1"


async def test_capacity_can_be_lost_for_one_create(client: Client) -> None:
    """`times` fails the first create and leaves the product available."""
    await client.fault(kind="capacity", product="gpu-basic.8c32g", times=1)
    products = cast("list[Json]", (await client.get("/products", productName="gpu-basic"))["data"])
    assert all(p["availableDeploy"] for p in products if p["id"] == "gpu-basic.8c32g")
    await client.refused("/gpu/instance/create", CREATE)
    await client.create()


@pytest.mark.parametrize(
    ("fault", "status", "state"),
    [
        ({"result": "statusError", "errorState": "broken"}, "exited", "broken"),
        ({"result": "statusError", "endsIn": "pulling"}, "pulling", "failed"),
        ({"result": "pullFailure"}, "exited", "imagePullFailed"),
        ({"result": "exited", "failsAfter": "creating"}, "exited", ""),
        ({"result": "stuck", "stuckIn": "creating"}, "creating", ""),
    ],
)
async def test_a_create_can_turn_out_badly(
    client: Client, fault: Json, status: str, state: str
) -> None:
    """The create is accepted and fails or gets stuck later."""
    await client.fault(kind="outcome", operation="create", name="my-*", **fault)
    instance_id = await client.create()
    await client.advance(1000)
    shown = await client.instance(instance_id)
    assert shown["status"] == status
    assert cast("Json", shown["statusError"])["state"] == state
    other = await client.create(name="other")
    await client.advance(300)
    assert await client.status(other) == "running"


async def test_a_create_can_end_in_removal(client: Client) -> None:
    """A failed create can remove the instance."""
    await client.fault(kind="outcome", operation="create", result="removed", times=1)
    await client.create()
    await client.advance(1000)
    assert await client.rows() == []


async def test_a_migration_can_be_stuck(client: Client) -> None:
    """The status stays `migrating` and the job keeps running; a delete still works."""
    instance_id = await client.running()
    await client.fault(kind="outcome", operation="migrate", result="stuck")
    await client.post("/gpu/instance/migrate", {"instanceId": instance_id})
    await client.advance(86_400)
    assert await client.status(instance_id) == "migrating"
    await client.post("/gpu/instance/delete", {"instanceId": instance_id})
    await client.advance(60)
    assert await client.rows() == []


async def test_a_start_and_a_delete_can_fail_too(client: Client) -> None:
    """A start can return to `exited`, and a delete can get stuck in `removing`."""
    [instance_id] = await client.seed(count=1, status="exited")
    await client.fault(kind="outcome", operation="start", result="statusError")
    await client.post("/gpu/instance/start", {"instanceId": instance_id})
    await client.advance(300)
    assert await client.status(instance_id) == "exited"
    await client.fault(kind="outcome", operation="delete", result="stuck")
    await client.post("/gpu/instance/delete", {"instanceId": instance_id})
    await client.advance(300)
    assert await client.status(instance_id) == "removing"


async def test_a_list_can_lag(client: Client) -> None:
    """The list lacks new instances, has deleted ones and shows old statuses."""
    [old, doomed] = await client.seed(names=["old", "doomed"])
    await client.fault(kind="list", lagSeconds=100)
    await client.post("/gpu/instance/stop", {"instanceId": old})
    await client.post("/gpu/instance/delete", {"instanceId": doomed})
    await client.create(name="new")
    await client.advance(90)
    rows = {row["name"]: row["status"] for row in await client.rows()}
    assert rows == {"old": "running", "doomed": "running"}
    assert await client.status(old) == "exited"
    await client.advance(110)
    rows = {row["name"]: row["status"] for row in await client.rows()}
    assert rows["old"] == "exited"
    assert "doomed" not in rows
    assert "new" in rows


async def test_a_list_can_omit_repeat_and_miscount(client: Client) -> None:
    """The total follows omitted and repeated rows, unless `totalDelta` corrects it."""
    await client.seed(names=["a", "b", "c"])
    await client.fault(kind="list", omit="b", times=1)
    await client.fault(kind="list", repeat="c", totalDelta=-1, times=1)
    await client.fault(kind="list", totalDelta=5, times=1)
    assert [row["name"] for row in await client.rows()] == ["c", "a"]
    reply = await client.get("/gpu/instances")
    names = [row["name"] for row in cast("list[Json]", reply["instances"])]
    assert (names, reply["total"]) == (["c", "c", "b", "a"], 3)
    assert (await client.get("/gpu/instances"))["total"] == 8
    assert (await client.get("/gpu/instances"))["total"] == 3


async def test_a_delete_can_be_not_found_right_after_the_create(client: Client) -> None:
    """For some virtual seconds, a look-up finds the instance and a delete does not."""
    await client.control("PATCH", "/settings", {"deleteNotFoundSeconds": 30})
    instance_id = await client.create()
    error = await client.refused("/gpu/instance/delete", {"instanceId": instance_id})
    assert error["reason"] == "RESOURCE_NOT_FOUND"
    await client.advance(31)
    await client.post("/gpu/instance/delete", {"instanceId": instance_id})


@pytest.mark.parametrize("style", ["empty", "state"])
async def test_lifecycle_replies_can_be_empty_or_tell_the_state(client: Client, style: str) -> None:
    """An empty body has no content type; the other body has the ID and the state."""
    instance_id = await client.running()
    await client.control("PATCH", "/settings", {"lifecycleReply": style})
    response = await client.raw("POST", "/gpu/instance/stop", json={"instanceId": instance_id})
    if style == "empty":
        assert response.content == b""
        assert "content-type" not in response.headers
    else:
        assert response.json() == {"instanceId": instance_id, "state": "toStop"}


@pytest.mark.parametrize("says", [True, False])
async def test_the_emulator_can_limit_calls_itself(client: Client, says: bool) -> None:
    """The limit applies per real minute, and the `Retry-After` time is long enough."""
    settings = {"rateLimitPerMinute": 2, "rateLimitRetryAfter": says}
    await client.control("PATCH", "/settings", settings)
    await client.get("/clusters")
    client.time.pass_(10)
    await client.get("/clusters")
    response = await client.raw("GET", "/clusters")
    assert response.status_code == 429
    assert response.headers.get("retry-after") == ("50" if says else None)
    client.time.pass_(50)
    await client.get("/clusters")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"kind": "call", "path": "/gpu/instance/creat", "drop": True}, "/gpu/instance/create"),
        ({"kind": "call", "path": "/clusters"}, "at least one of"),
        ({"kind": "call", "path": "/clusters", "drop": True, "status": 500}, "neither"),
        ({"kind": "call", "path": "/clusters", "sttaus": 500}, "sttaus"),
        ({"kind": "call", "path": "/clusters", "replyId": "existing"}, "/gpu/instance/create"),
        ({"kind": "call", "path": "*", "replyId": "missing", "drop": True}, "replyId"),
        ({"kind": "call", "path": "*", "replyId": "missing", "when": "before"}, "replyId"),
        ({"kind": "call", "path": "/clusters", "status": 500, "probability": 2}, "probability"),
        ({"kind": "capacity", "region": "US-WEST-1"}, "US-WEST-01"),
        ({"kind": "capacity", "product": "gpu-basix"}, "gpu-basic"),
        ({"kind": "list"}, "lagSeconds"),
        ({"kind": "outcome", "operation": "stop", "result": "stuck", "stuckIn": "running"}, "toSt"),
        ({"kind": "earthquake"}, "earthquake"),
        ({}, "kind"),
    ],
)
async def test_a_fault_that_means_nothing_is_refused(
    client: Client, fault: Json, says: str
) -> None:
    """The 400 says what is wrong; no fault is created that could never strike."""
    error = await client.control_refused("POST", "/faults", fault, 400)
    assert says in str(error)
