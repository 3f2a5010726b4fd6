# SPDX-License-Identifier: Apache-2.0
"""Tests of the verbs over HTTP: by ID, by name, and stop all."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import orjson
from pydantic import TypeAdapter
from sqlalchemy import Connection

from novitai.api.http.paths import RESERVED
from novitai.api.schemas.history import OperationView
from novitai.api.schemas.instances import (
    CredentialsResponse,
    StopAllResponse,
    SyncResponse,
    VerbResponse,
)
from novitai.domain.api_key import Scope
from novitai.domain.instance import InstanceStatus
from novitai.domain.instance_details import InstanceDetails
from novitai.domain.operation import OperationKind
from novitai.store.queries import instances, operations
from tests.api.application import CREATE
from tests.api.client import ApiProcess, Http
from tests.lifecycle.world import World

S = InstanceStatus

VERDICTS = [
    ("start", S.STOPPED, 202, "starting"),
    ("start", S.FAILED, 202, "starting"),
    ("start", S.RUNNING, 200, "running"),
    ("start", S.STARTING, 409, "INVALID_STATE"),
    ("start", S.STOPPING, 409, "INVALID_STATE"),
    ("start", S.MIGRATING, 409, "INVALID_STATE"),
    ("start", S.TERMINATED, 409, "INVALID_STATE"),
    ("start", S.CREATING, 409, "OPERATION_IN_PROGRESS"),
    ("stop", S.RUNNING, 202, "stopping"),
    ("stop", S.STARTING, 409, "INVALID_STATE"),
    ("stop", S.STOPPED, 200, "stopped"),
    ("stop", S.FAILED, 409, "INVALID_STATE"),
    ("stop", S.TERMINATED, 409, "INVALID_STATE"),
    ("stop", S.CREATING, 409, "OPERATION_IN_PROGRESS"),
    ("restart", S.RUNNING, 202, "starting"),
    ("restart", S.STOPPED, 409, "INVALID_STATE"),
    ("restart", S.TERMINATING, 409, "INVALID_STATE"),
    ("restart", S.CREATING, 409, "OPERATION_IN_PROGRESS"),
    *(("delete", status, 202, "terminating") for status in S if not status.ended),
    *((verb, S.RELEASED, 409, "INSTANCE_RELEASED") for verb in ("start", "stop", "delete")),
    ("delete", S.TERMINATED, 200, "terminated"),
]


async def ask(api_process: Http, verb: str, instance_id: str, **more: Any) -> httpx2.Response:
    """Send a verb by ID."""
    if verb == "delete":
        return await api_process.call("DELETE", f"/api/instances/{instance_id}", **more)
    return await api_process.call("POST", f"/api/instances/{instance_id}/{verb}", **more)


def told(answer: httpx2.Response) -> str:
    """Return the error code or the status in a response."""
    body = answer.json()
    return str(body["error"]["code"] if answer.status_code >= 400 else body["status"])


async def test_every_verb_in_every_state(api_process: ApiProcess) -> None:
    """202 if accepted, 200 if already so, 409 if not allowed; by name too."""
    for number, (verb, status, code, word) in enumerate(VERDICTS):
        by_id = await api_process.have(status, name=f"by-id-{number}")
        answer = await ask(api_process, verb, by_id)
        assert (answer.status_code, told(answer)) == (code, word), (verb, status)
        model: Any = VerbResponse if code == 202 else InstanceDetails
        if code < 400:
            TypeAdapter(model).validate_python(answer.json())
        if not status.ended:  # an ended instance cannot be found by name
            await api_process.have(status, name=f"by-name-{number}")
            named = {"instanceName": f"by-name-{number}"}
            answer = await api_process.call("POST", f"/v1/api/instances/{verb}", body=named)
            assert (answer.status_code, told(answer)) == (code, word), (verb, status)
        await api_process.clock.advance(2)  # let the key's bucket refill


async def test_an_accepted_verb_says_what_it_began(api_process: ApiProcess) -> None:
    """The response has the ID, the status, the operation and its `Location`."""
    instance_id = await api_process.have()
    answer = await ask(api_process, "stop", instance_id)
    body = answer.json()
    assert body == {
        "instanceId": instance_id,
        "status": "stopping",
        "operationId": body["operationId"],
        "message": "Instance stop initiated successfully",
    }
    followed = await api_process.call("GET", answer.headers["Location"], scope=Scope.READ)
    assert followed.json()["id"] == body["operationId"]
    assert (followed.json()["kind"], followed.json()["instanceId"]) == ("stop", instance_id)


async def test_the_same_verb_twice_is_one_operation(api_process: ApiProcess) -> None:
    """The same verb again returns the running operation; another verb is refused."""
    instance_id = await api_process.have()
    first, second = [await ask(api_process, "stop", instance_id) for _ in range(2)]
    assert first.json() == second.json()
    other = await ask(api_process, "restart", instance_id)
    assert told(other) == "OPERATION_IN_PROGRESS"
    assert other.json()["error"]["details"]["operationId"] == first.json()["operationId"]


async def test_delete_wins_over_whatever_runs(api_process: ApiProcess) -> None:
    """A running operation is cancelled, and its outcome says so."""
    instance_id = await api_process.have()
    stop = (await ask(api_process, "stop", instance_id)).json()["operationId"]
    answer = await ask(api_process, "delete", instance_id)
    assert (answer.status_code, told(answer)) == (202, "terminating")
    cancelled = (await api_process.call("GET", f"/api/operations/{stop}")).json()
    assert (cancelled["done"], cancelled["outcome"]) == (True, "cancelled")


async def test_what_is_so_already_is_shown_with_what_runs(api_process: ApiProcess) -> None:
    """The 200 response is the same as that of reading the instance."""
    instance_id = await api_process.have()
    await api_process.begin(OperationKind.FOLLOW, instance_id, "watch")
    answer = await ask(api_process, "start", instance_id)
    assert answer.status_code == 200
    assert answer.json()["operation"]["kind"] == "follow"
    shown = (await api_process.call("GET", f"/api/instances/{instance_id}")).json()
    assert answer.json() == shown


async def test_what_there_is_not_is_not_found(api_process: ApiProcess) -> None:
    """An unknown instance is 404 INSTANCE_NOT_FOUND, by ID and by name."""
    for verb in ("start", "stop", "restart", "delete"):
        for answer in (
            await ask(api_process, verb, "inst_1_nope"),
            await api_process.call("POST", f"/api/instances/{verb}", body={"instanceName": "nope"}),
        ):
            assert (answer.status_code, told(answer)) == (404, "INSTANCE_NOT_FOUND")


async def test_a_name_that_two_bear_is_ambiguous(api_process: ApiProcess) -> None:
    """409 AMBIGUOUS_NAME with both IDs; neither instance is changed."""
    both = [await api_process.have(), await api_process.have()]
    await api_process.have(S.TERMINATED)
    answer = await api_process.call(
        "POST", "/api/instances/stop", body={"instanceName": "my-instance"}
    )
    assert (answer.status_code, told(answer)) == (409, "AMBIGUOUS_NAME")
    assert sorted(answer.json()["error"]["details"]["instanceIds"]) == sorted(both)
    for instance_id in both:
        shown = await api_process.call("GET", f"/api/instances/{instance_id}")
        assert shown.json()["status"] == "running"


WRONG_NAMES: list[tuple[object, str, str]] = [
    ({}, "INVALID_INSTANCE_NAME", "instanceName"),
    ({"instanceName": ""}, "INVALID_INSTANCE_NAME", "instanceName"),
    ({"instanceName": "a b"}, "INVALID_INSTANCE_NAME", "instanceName"),
    ({"instanceName": 7}, "INVALID_INSTANCE_NAME", "instanceName"),
    ({"instanceName": None}, "INVALID_INSTANCE_NAME", "instanceName"),
    ({"instanceName": "my-instance", "force": True}, "VALIDATION_ERROR", "force"),
]


async def test_a_wrong_name_is_refused(api_process: ApiProcess) -> None:
    """400 with the field, and nothing is done."""
    instance_id = await api_process.have()
    for body, code, field in WRONG_NAMES:
        answer = await api_process.call("POST", "/api/instances/delete", body=body)
        assert (answer.status_code, told(answer)) == (400, code), body
        assert [one["field"] for one in answer.json()["error"]["details"]] == [field]
    shown = await api_process.call("GET", f"/api/instances/{instance_id}")
    assert shown.json()["status"] == "running"


async def test_a_body_may_be_absent_but_not_wrong(api_process: ApiProcess) -> None:
    """An empty body and `{}` are the same for any media type; a misspelt field is rejected."""
    plain = {"Content-Type": "text/plain"}
    for path in ("{}/stop", "stop-all", "sync"):
        for content, headers, status in (
            (None, {}, 202),
            (b"", plain, 202),
            (b"{}", {"Content-Type": "application/json"}, 202),
            (b"{", {"Content-Type": "application/json"}, 400),
            (b"[]", {"Content-Type": "application/json"}, 400),
            (b"{}", plain, 415),
            (b'{"force":true}', {"Content-Type": "application/json"}, 400),
        ):
            url = f"/api/instances/{path}".format(await api_process.have(name="one"))
            answer = await api_process.call("POST", url, content=content, headers=headers)
            assert answer.status_code == status, (url, content, headers)
            if content and b"force" in content:
                assert answer.json()["error"]["details"][0]["field"] == "force"


async def test_a_fixed_word_is_never_an_id(api_process: ApiProcess) -> None:
    """A wrong method on a reserved word is 405 with `Allow`, not an unknown instance."""
    for word in RESERVED:
        allowed = "GET, HEAD" if word == "unmanaged" else "POST"
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            if method in allowed:
                continue
            answer = await api_process.call(method, f"/v1/api/instances/{word}")
            assert answer.status_code == 405, (method, word)
            assert answer.headers["Allow"] == allowed
    for path, allowed in (
        ("", "GET, HEAD, PATCH, DELETE"),
        ("/stop", "POST"),
        ("/last-used", "PUT"),
        ("/wait", "GET, HEAD"),
        ("/events", "GET, HEAD"),
        ("/credentials", "GET, HEAD"),
    ):
        method = "PATCH" if path else "PUT"
        answer = await api_process.call(method, f"/api/instances/stopper{path}")
        assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    assert (await api_process.call("GET", "/api/instances/a%00b")).status_code == 404


async def test_reading_is_not_enough(api_process: ApiProcess) -> None:
    """403 that names `write` for every verb and for passwords; 401 without a key."""
    instance_id = await api_process.have()
    for method, path in (
        ("POST", f"/api/instances/{instance_id}/start"),
        ("DELETE", f"/api/instances/{instance_id}"),
        ("POST", "/api/instances/delete"),
        ("POST", "/api/instances/stop-all"),
        ("POST", "/api/instances/sync"),
        ("PUT", f"/api/instances/{instance_id}/last-used"),
        ("GET", f"/api/instances/{instance_id}/credentials"),
        ("POST", "/api/operations/op_1/cancel"),
    ):
        answer = await api_process.call(method, path, scope=Scope.READ)
        assert (answer.status_code, told(answer)) == (403, "FORBIDDEN")
        assert answer.json()["error"]["details"] == {"missingScope": "write"}
        assert (await api_process.call(method, path, scope=None)).status_code == 401


async def count(api_process: ApiProcess) -> int:
    """Count the unfinished operations."""
    return await api_process.app.database.read(operations.count_unfinished)


async def test_a_replay_is_the_first_answer_byte_by_byte(api_process: ApiProcess) -> None:
    """The same key gives the same bytes and headers, and nothing is done twice."""
    stopped = await api_process.have(S.STOPPED, name="stopped")
    running = await api_process.have(name="running")
    gone = await api_process.have(name="gone")
    for method, path, body in (
        ("POST", f"/api/instances/{stopped}/start", None),
        ("POST", "/api/instances/restart", {"instanceName": "running"}),
        ("DELETE", f"/api/instances/{gone}", None),
        ("POST", "/api/instances/stop-all", None),
        ("POST", "/api/instances/sync", {}),
    ):
        key = {"Idempotency-Key": "abc"}
        first = await api_process.call(method, path, body=body, headers=key)
        assert first.status_code == 202, path
        assert "Idempotent-Replayed" not in first.headers
        before = await count(api_process)
        await api_process.turn(running, S.STOPPED)
        again = await api_process.call(method, f"/v1{path}", body=body, headers=key)
        assert again.headers["Idempotent-Replayed"] == "true"
        assert (again.status_code, again.content) == (202, first.content)
        assert again.headers.get("Location") == first.headers.get("Location")
        assert await count(api_process) == before
        await api_process.turn(running, S.RUNNING)


async def test_a_key_for_another_body_is_refused(api_process: ApiProcess) -> None:
    """422, and the other body has no effect."""
    for name in ("one", "two"):
        await api_process.have(name=name)
    key = {"Idempotency-Key": "abc"}
    for name, status in (("one", 202), ("two", 422)):
        body = {"instanceName": name}
        answer = await api_process.call("POST", "/api/instances/stop", body=body, headers=key)
        assert answer.status_code == status
    assert told(answer) == "IDEMPOTENCY_KEY_REUSED"
    assert await count(api_process) == 1


async def test_a_refusal_is_not_remembered(api_process: ApiProcess) -> None:
    """After a 409 the same key may succeed."""
    instance_id = await api_process.have(S.STOPPED)
    key = {"Idempotency-Key": "abc"}
    assert (await ask(api_process, "restart", instance_id, headers=key)).status_code == 409
    await api_process.turn(instance_id, S.RUNNING)
    answer = await ask(api_process, "restart", instance_id, headers=key)
    assert answer.status_code == 202
    assert "Idempotent-Replayed" not in answer.headers


async def test_the_same_key_at_once_acts_once(api_process: ApiProcess) -> None:
    """The second request gets the same response or `IDEMPOTENCY_IN_PROGRESS`."""
    key = {"Idempotency-Key": "abc"}
    answers = await asyncio.gather(
        *(api_process.call("POST", "/api/instances/sync", headers=key) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.content for answer in answers if answer.status_code == 202}) == 1
    for answer in answers:
        if answer.status_code == 409:
            assert told(answer) == "IDEMPOTENCY_IN_PROGRESS"
            assert answer.headers["Retry-After"] == "1"
    assert await count(api_process) == 1


async def test_stopping_everything(api_process: ApiProcess) -> None:
    """Instances that can be stopped are; others are skipped with a reason, ended ones left out."""
    running, starting = [await api_process.have()], await api_process.have(S.STARTING)
    stopped, creating = await api_process.have(S.STOPPED), await api_process.have(S.CREATING)
    failed = await api_process.have(S.FAILED)
    await api_process.have(S.TERMINATED)
    answer = await api_process.call("POST", "/api/instances/stop-all")
    assert answer.status_code == 202
    TypeAdapter(StopAllResponse).validate_python(answer.json())
    begun = {one["instanceId"]: one["operationId"] for one in answer.json()["operations"]}
    assert sorted(begun) == sorted(running)
    for operation_id in begun.values():
        assert (await api_process.call("GET", f"/api/operations/{operation_id}")).status_code == 200
    assert {one["instanceId"]: one["reason"] for one in answer.json()["skipped"]} == {
        stopped: "ALREADY_STOPPED",
        creating: "OPERATION_IN_PROGRESS",
        failed: "INVALID_STATE",
        starting: "INVALID_STATE",
    }


async def test_a_listing_can_be_asked_for(api_process: ApiProcess) -> None:
    """202 with an operation that has no instance."""
    answer = await api_process.call("POST", "/api/instances/sync")
    assert answer.status_code == 202
    TypeAdapter(SyncResponse).validate_python(answer.json())
    operation = await api_process.call("GET", f"/api/operations/{answer.json()['operationId']}")
    TypeAdapter(OperationView).validate_python(operation.json())
    assert operation.json()["kind"] == "sync"
    assert "instanceId" not in operation.json()


async def test_use_is_noted(api_process: ApiProcess) -> None:
    """The time is now or the client's, in any offset."""
    instance_id = await api_process.have()
    path = f"/api/instances/{instance_id}/last-used"
    answer = await api_process.call("PUT", path)
    assert answer.status_code == 200
    assert answer.json()["lastUsedAt"] == "2025-10-09T08:53:20.000Z"
    assert answer.json() == (await api_process.call("GET", f"/api/instances/{instance_id}")).json()
    for given, noted in (
        ("2025-10-09T10:53:21.5+02:00", "2025-10-09T08:53:21.500Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
    ):
        answer = await api_process.call("PUT", path, body={"lastUsedAt": given})
        assert answer.json()["lastUsedAt"] == noted
        TypeAdapter(InstanceDetails).validate_python(answer.json())
        assert (
            answer.json() == (await api_process.call("GET", f"/api/instances/{instance_id}")).json()
        )


WRONG_TIMES: list[object] = [
    "",
    "yesterday",
    "2025-10-09T08:53:20",
    "2025-10-09",
    1_760_000_000,
    None,
    True,
    "1969-12-31T23:59:59Z",
    "9999-12-31T23:59:59-01:00",
    "0001-01-01T00:00:00+01:00",
]


async def test_a_wrong_time_of_use_is_refused(api_process: ApiProcess) -> None:
    """400 for text that is not a time, a time without offset, or one outside the range."""
    path = f"/api/instances/{await api_process.have()}/last-used"
    for value in WRONG_TIMES:
        answer = await api_process.call("PUT", path, body={"lastUsedAt": value})
        assert (answer.status_code, told(answer)) == (400, "VALIDATION_ERROR"), value
        assert answer.json()["error"]["details"][0]["field"] == "lastUsedAt"
    missing = await api_process.call("PUT", "/api/instances/inst_1_nope/last-used")
    assert told(missing) == "INSTANCE_NOT_FOUND"


async def test_passwords_are_shown_in_one_place(api_process: ApiProcess) -> None:
    """Passwords need the scope `write`, and the response is `no-store`."""
    instance_id = await api_process.have()
    path = f"/api/instances/{instance_id}/credentials"
    empty = await api_process.call("GET", path)
    assert empty.json() == {"instanceId": instance_id}
    endpoints = [{"port": 80, "endpoint": "https://u:pw@e.test/"}]
    passwords = {
        "sshPassword": "hunter2",
        "webTerminalUsername": "",
        "webTerminalPassword": "x",
        "jupyter": "https://j.test/lab?token=t",
        "webTerminal": "",
        "endpoints": endpoints,
    }
    vault = api_process.app.operating._vault

    def write(connection: Connection) -> None:
        sealed = vault.seal("credentials", orjson.dumps(passwords))
        instances.update_columns(connection, instance_id, {"obs_credentials_sealed": sealed})

    await api_process.app.database.write(write)
    answer = await api_process.call("GET", path)
    TypeAdapter(CredentialsResponse).validate_python(answer.json())
    assert answer.json() == {
        "instanceId": instance_id,
        "sshPassword": "hunter2",
        "webTerminalPassword": "x",
        "jupyter": "https://j.test/lab?token=t",
        "endpoints": endpoints,
    }
    assert answer.headers["Cache-Control"] == "no-store"
    missing = await api_process.call("GET", "/api/instances/inst_1_nope/credentials")
    assert told(missing) == "INSTANCE_NOT_FOUND"


async def test_a_life_over_http(world: World, http: Http) -> None:
    """Create, wait, use, stop, start and delete work against the emulator."""

    async def reach(status: str) -> dict[str, Any]:
        path = f"/api/instances/{instance_id}/wait?status={status}&timeout=300"
        waiting = asyncio.ensure_future(http.call("GET", path))
        for _ in range(400):
            if waiting.done():
                break
            await world.pass_time(1)
        answer = await waiting
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        assert body["status"] == status
        return body

    created = await http.call("POST", "/api/instances", body={**CREATE, "gpuNum": 2})
    assert created.status_code == 201
    instance_id = created.json()["instanceId"]
    running = await reach("running")
    TypeAdapter(InstanceDetails).validate_python(running)
    password = (await http.call("GET", f"/api/instances/{instance_id}/credentials")).json()
    operation_ids = []
    for verb, status in (("stop", "stopped"), ("start", "running"), ("delete", "terminated")):
        answer = await ask(http, verb, instance_id)
        assert answer.status_code == 202
        operation_ids.append(answer.json()["operationId"])
        await reach(status)
    for operation_id in operation_ids:
        operation = (await http.call("GET", f"/api/operations/{operation_id}")).json()
        assert (operation["done"], operation["outcome"]) == (True, "succeeded")
    [upstream] = await world.emulator.ever()
    assert not upstream["live"]
    told_of = await http.call("GET", f"/api/instances/{instance_id}/events")
    assert [event["type"] for event in told_of.json()["events"]] == [
        f"instance.{word}"
        for word in [
            "created",
            "starting",
            "running",
            "stopping",
            "stopped",
            "starting",
            "running",
            "terminating",
            "terminated",
        ]
    ]
    everywhere = await http.call("GET", "/api/events")
    listed = await http.call("GET", "/api/instances?includeTerminated=true")
    for answer in (told_of, everywhere, listed):
        assert password["sshPassword"] not in answer.text
