# SPDX-License-Identifier: Apache-2.0
"""Tests of events, operations, waiting and unmanaged instances over HTTP."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from pydantic import TypeAdapter
from sqlalchemy import Connection

from novitai.api.http import application
from novitai.api.routes import history
from novitai.api.schemas.account import ListUnmanagedResponse
from novitai.api.schemas.history import ListEventsResponse, OperationView
from novitai.domain.api_key import Scope
from novitai.domain.event import EventType
from novitai.domain.instance import InstanceStatus
from novitai.domain.instance_details import InstanceDetails
from novitai.domain.operation import Operation, OperationKind, Outcome
from novitai.domain.progress import Call, Progress
from novitai.lifecycle.queries.status_watch import LOOK_EVERY
from novitai.store.engine import postgresql_server
from novitai.store.engine.database import Dialect
from novitai.store.queries import account, events, operations
from novitai.store.queries.account import Unmanaged
from tests.api.client import ApiProcess
from tests.lifecycle.world import on_both_stores

S = InstanceStatus


def code_of(answer: Any) -> str:
    """Return the code of an error response."""
    return str(answer.json()["error"]["code"])


def looks(api_process: ApiProcess) -> bool:
    """Return whether another read for waiting clients is scheduled."""
    return api_process.app.history._watch._next is not None


async def test_what_is_so_already_is_not_waited_for(api_process: ApiProcess) -> None:
    """200 at once if the instance has the status already; the default status is `running`."""
    running, failed = await api_process.have(), await api_process.have(S.FAILED)
    for path in (f"{running}/wait", f"{running}/wait?timeout=1", f"{failed}/wait?status=failed"):
        answer = await api_process.call("GET", f"/v1/api/instances/{path}", scope=Scope.READ)
        assert answer.status_code == 200
        TypeAdapter(InstanceDetails).validate_python(answer.json())
        read = await api_process.call("GET", f"/api/instances/{path.partition('/')[0]}")
        assert answer.json() == read.json()
        assert "observedAt" in answer.json()
    assert not looks(api_process)


async def test_a_status_is_waited_for(
    api_process: ApiProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 with the instance once it has the status, even after the usual time limit of requests."""
    # That limit counts real time on the event loop, and this test takes longer than 20 ms.
    monkeypatch.setattr(application, "REQUEST_SECONDS", 0.02)
    instance_id = await api_process.have(S.STARTING)
    path = f"/api/instances/{instance_id}/wait?timeout=300"
    waiting = asyncio.ensure_future(api_process.call("GET", path))
    began = api_process.clock.monotonic()
    with pytest.raises(AssertionError, match="not within"):
        await api_process.through(asyncio.shield(waiting), within=40)
    await api_process.turn(instance_id, S.RUNNING)
    answer = await api_process.through(waiting, within=2)
    assert (answer.status_code, answer.json()["status"]) == (200, "running")
    assert 40 <= api_process.clock.monotonic() - began < 42


async def test_time_runs_out(api_process: ApiProcess) -> None:
    """202 with the instance when the time is up, and not before."""
    instance_id = await api_process.have(S.STARTING)
    began = api_process.clock.monotonic()
    path = f"/api/instances/{instance_id}/wait?status=running&timeout=2"
    answer = await api_process.through(api_process.call("GET", path), within=4)
    assert (answer.status_code, answer.json()["status"]) == (202, "starting")
    assert 2 <= api_process.clock.monotonic() - began < 4


async def test_what_cannot_come_is_not_waited_for(api_process: ApiProcess) -> None:
    """409 with the instance if it is failed or terminated, at once or during the wait."""
    for status in (S.FAILED, S.TERMINATED):
        there = await api_process.have(status)
        answer = await api_process.call("GET", f"/api/instances/{there}/wait")
        assert (answer.status_code, code_of(answer)) == (409, "INVALID_STATE")
        shown = answer.json()["error"]["details"]["instance"]
        assert (shown["id"], shown["status"]) == (there, status)
        assert "code" not in answer.json()["error"]["details"]
        TypeAdapter(InstanceDetails).validate_python(shown)
        moving = await api_process.have(S.STARTING)
        waiting = asyncio.ensure_future(api_process.call("GET", f"/api/instances/{moving}/wait"))
        await api_process.turn(moving, status)
        assert (await api_process.through(waiting, within=2)).status_code == 409


async def test_a_status_before_the_first_is_over_for_good(api_process: ApiProcess) -> None:
    """No instance becomes `creating` again."""
    there = await api_process.have(S.RUNNING)
    answer = await api_process.call("GET", f"/api/instances/{there}/wait?status=creating")
    assert (answer.status_code, code_of(answer)) == (409, "INVALID_STATE")


async def test_why_it_cannot_come_is_told_at_once(api_process: ApiProcess) -> None:
    """The instance's error and its code are at the top of `details` and in the message."""
    there = await api_process.have(
        S.FAILED,
        error_code="READINESS_TIMEOUT",
        error_message="Port 8080 never answered",
        error_at=1_697_843_200_000,
    )
    error = (await api_process.call("GET", f"/api/instances/{there}/wait")).json()["error"]
    assert error["details"]["code"] == "READINESS_TIMEOUT"
    assert error["details"]["error"] == error["details"]["instance"]["error"]
    assert error["details"]["error"]["message"] == "Port 8080 never answered"
    assert "READINESS_TIMEOUT: Port 8080 never answered" in error["message"]


async def test_a_released_instance_is_not_waited_for(api_process: ApiProcess) -> None:
    """A released instance is no longer watched: 409 at once."""
    there = await api_process.have()
    await api_process.turn(there, S.RELEASED)
    answer = await api_process.call("GET", f"/api/instances/{there}/wait")
    assert (answer.status_code, code_of(answer)) == (409, "INVALID_STATE")
    reached = await api_process.call("GET", f"/api/instances/{there}/wait?status=released")
    assert (reached.status_code, reached.json()["status"]) == (200, "released")


async def test_a_long_poll_is_no_slow_answer(api_process: ApiProcess) -> None:
    """A waiting request is counted, and does not change the latencies of health or metrics."""
    there = await api_process.have(S.STARTING)
    path = f"/api/instances/{there}/wait?timeout=20"
    answer = await api_process.through(api_process.call("GET", path), within=25)
    assert answer.status_code == 202
    health = (await api_process.call("GET", "/health", scope=None)).json()["performance"]
    assert health["requestsPerMinute"] == 1
    assert health["averageResponseTime"] < 10_000
    metrics = (await api_process.call("GET", "/metrics")).json()["data"]["requests"]
    assert metrics["total"]["count"] == 2
    assert metrics["total"]["maxDuration"] < 10_000
    assert metrics["byMethod"]["GET"]["totalDuration"] < 10_000
    waited = metrics["byEndpoint"]["GET /api/instances/{instanceId}/wait"]
    assert (waited["count"], waited["averageDuration"]) == (1, 0)
    text = (await api_process.call("GET", "/metrics", headers={"Accept": "text/plain"})).text
    route = 'method="GET",route="/api/instances/{instanceId}/wait"'
    assert f'novitai_http_requests_total{{{route},status="202"}} 1.0' in text
    assert f"novitai_http_request_duration_seconds_count{{{route}}}" not in text


async def test_a_wrong_wait_is_refused(api_process: ApiProcess) -> None:
    """404 for an unknown instance, 400 for an invalid status or timeout."""
    missing = await api_process.call("GET", "/api/instances/inst_1_nope/wait")
    assert (missing.status_code, code_of(missing)) == (404, "INSTANCE_NOT_FOUND")
    instance_id = await api_process.have()
    for query in ("status=happy", "timeout=0", "timeout=301", "timeout=1.5", "timeout=", "sec=3"):
        answer = await api_process.call("GET", f"/api/instances/{instance_id}/wait?{query}")
        assert answer.status_code == 400
        assert answer.json()["error"]["details"][0]["field"] == query.partition("=")[0]


async def test_however_many_wait_one_looks(
    api_process: ApiProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty clients that wait for ten instances share one read per interval."""
    ids = [await api_process.have(S.STARTING) for _ in range(10)]
    waiting = [
        asyncio.ensure_future(api_process.call("GET", f"/api/instances/{ids[number % 10]}/wait"))
        for number in range(40)
    ]
    await api_process.at_work.rest()
    reads = 0
    read = api_process.app.database.read

    async def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(api_process.app.database, "read", counted)
        with pytest.raises(AssertionError, match="not within"):
            await api_process.through(asyncio.shield(waiting[0]), within=5)
    assert 5 <= reads <= 5 / LOOK_EVERY + 1
    for instance_id in ids:
        await api_process.turn(instance_id, S.RUNNING)
    answers = await api_process.through(asyncio.gather(*waiting), within=3)
    assert {answer.status_code for answer in answers} == {200}
    assert not looks(api_process)


async def test_a_client_that_goes_away_is_forgotten_at_once(
    api_process: ApiProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is free and the reads stop, without any time passing."""
    monkeypatch.setattr(history, "MAX_WAITING", 1)
    instance_id = await api_process.have(S.STARTING)
    leave = asyncio.Event()
    sent: list[Any] = []
    body = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if body:
            return body.pop()
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    path = f"/api/instances/{instance_id}/wait"
    scope = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "server": ("novitai", 80),
        "root_path": "",
        "method": "GET",
        "path": path,
        "query_string": b"timeout=300",
        "headers": [(b"authorization", f"Bearer {api_process.keys[Scope.READ]}".encode())],
        "client": ("127.0.0.1", 1),
    }
    waiting = asyncio.ensure_future(api_process.gateway(scope, receive, send))
    while not looks(api_process):
        assert not waiting.done(), sent
        await asyncio.sleep(0.001)
    crowded = await api_process.call("GET", path)
    assert (crowded.status_code, code_of(crowded)) == (503, "OVERLOADED")
    assert crowded.json()["error"]["retryable"] is True
    assert crowded.headers["Retry-After"] == "5"
    leave.set()
    await waiting
    assert not looks(api_process)
    await api_process.turn(instance_id, S.RUNNING)
    assert (await api_process.call("GET", path)).status_code == 200


async def log(api_process: ApiProcess, instance_id: str, number: int, first: int = 0) -> list[str]:
    """Append events to an instance; return their IDs."""
    ids = [f"evt_{instance_id[-3:]}_{first + one}" for one in range(number)]

    def write(connection: Connection) -> None:
        for one in ids:
            events.append(
                connection,
                event_id=one,
                instance_id=instance_id,
                event_type=EventType.RUNNING,
                at=api_process.clock.now(),
                data={"id": instance_id, "previousStatus": "starting"},
                actor=None,
            )

    await api_process.app.database.write(write)
    return ids


@on_both_stores
async def test_the_lag_of_the_feed_is_a_metric(api_process: ApiProcess) -> None:
    """The metric is the age of the first stored event that is not listed yet, or 0."""

    async def lag() -> float:
        answer = await api_process.call("GET", "/metrics", headers={"Accept": "text/plain"})
        (line,) = (
            line
            for line in answer.text.splitlines()
            if line.startswith("novitai_event_feed_lag_seconds")
        )
        return float(line.rpartition(" ")[2])

    instance_id = await api_process.have()
    assert await lag() == 0
    if api_process.app.database.dialect is not Dialect.POSTGRESQL:
        return
    engine = postgresql_server.make_engine(api_process.app.settings.database)
    with engine.connect() as slow:
        events.append(
            slow,
            event_id="evt_slow",
            instance_id=instance_id,
            event_type=EventType.RUNNING,
            at=api_process.clock.now(),
            data={},
            actor=None,
        )
        await log(api_process, instance_id, 1)
        await api_process.clock.advance(7)
        assert await lag() == 7
        assert await read_on(api_process, "/api/events") == []
        slow.rollback()
    engine.dispose()
    assert await lag() == 0


async def read_on(api_process: ApiProcess, path: str) -> list[str]:
    """Read a list page by page through its links; return the IDs of its items."""
    seen: list[str] = []
    while path:
        answer = await api_process.call("GET", path, scope=Scope.READ)
        assert answer.status_code == 200
        TypeAdapter(ListEventsResponse).validate_python(answer.json())
        seen += [event["id"] for event in answer.json()["events"]]
        link = answer.headers.get("Link", "<>")
        assert ("nextCursor" in answer.json()) is (link != "<>")
        path = link[1 : link.index(">")]
    return seen


async def test_events_are_read_in_order_and_in_pages(api_process: ApiProcess) -> None:
    """Oldest first, each once: of one instance, of all, and after a given event."""
    first, second = await api_process.have(S.TERMINATED), await api_process.have()
    ids = (
        await log(api_process, first, 3)
        + await log(api_process, second, 2)
        + await log(api_process, first, 2, 3)
    )
    of_first = [*ids[:3], *ids[5:]]
    for limit in ("", "?limit=2", "?limit=1", "?limit=5"):
        assert await read_on(api_process, f"/api/instances/{first}/events{limit}") == of_first
    assert await read_on(api_process, "/api/events?limit=3") == ids
    for number, since in enumerate(ids):
        after = ids[number + 1 :]
        assert await read_on(api_process, f"/api/events?limit=2&since={since}") == after
        assert await read_on(api_process, f"/api/events?cursor={since}") == after
    assert await read_on(api_process, "/api/events?order=asc&limit=3") == ids
    answer = await api_process.call("GET", f"/api/instances/{first}/events?limit=1")
    assert answer.json()["events"] == [
        {
            "id": ids[0],
            "type": "instance.running",
            "at": "2025-10-09T08:53:20.000Z",
            "data": {"id": first, "previousStatus": "starting"},
        }
    ]


async def test_events_are_read_newest_first(api_process: ApiProcess) -> None:
    """`order=desc` begins with the last event, in pages of any size, and ends after `since`."""
    assert await read_on(api_process, "/api/events?order=desc") == []
    instance_id = await api_process.have()
    ids = await log(api_process, instance_id, 7)
    newest = ids[::-1]
    for limit in (1, 3, 7, 8):
        assert await read_on(api_process, f"/api/events?order=desc&limit={limit}") == newest
    for number, event_id in enumerate(newest):
        older = await read_on(api_process, f"/api/events?order=desc&limit=2&cursor={event_id}")
        assert older == newest[number + 1 :]
        newer = await read_on(api_process, f"/api/events?order=desc&limit=2&since={event_id}")
        assert newer == newest[:number]
    between = f"/api/events?order=desc&since={ids[1]}&cursor={ids[5]}"
    assert await read_on(api_process, between) == [ids[4], ids[3], ids[2]]


async def test_a_wrong_reading_of_events_is_refused(api_process: ApiProcess) -> None:
    """404 for an unknown instance; 400 for anything but an event ID."""
    missing = await api_process.call("GET", "/api/instances/inst_1_nope/events")
    assert (missing.status_code, code_of(missing)) == (404, "INSTANCE_NOT_FOUND")
    instance_id = await api_process.have()
    for path, field in (
        (f"/api/instances/{instance_id}/events?cursor=evt_nope", "cursor"),
        (f"/api/instances/{instance_id}/events?since=evt_nope", "since"),
        ("/api/events?since=evt_nope", "since"),
        ("/api/events?cursor=evt_nope", "cursor"),
        ("/api/events?order=desc&since=evt_nope", "since"),
        ("/api/events?order=desc&cursor=evt_nope", "cursor"),
        ("/api/events?order=down", "order"),
        ("/api/events?order=", "order"),
        ("/api/events?order=asc&order=desc", "order"),
        (f"/api/instances/{instance_id}/events?order=desc", "order"),
        ("/api/events?limit=0", "limit"),
        ("/api/events?after=evt_1", "after"),
    ):
        answer = await api_process.call("GET", path)
        assert answer.status_code == 400, path
        assert answer.json()["error"]["details"][0]["field"] == field


async def test_an_operation_is_shown(api_process: ApiProcess) -> None:
    """An operation, running or ended, shows its error and outcome; other fields are absent."""
    instance_id = await api_process.have()
    running = await api_process.begin(OperationKind.STOP, instance_id, "ask")
    path = f"/api/operations/{running}"
    answer = await api_process.call("GET", path, scope=Scope.READ)
    TypeAdapter(OperationView).validate_python(answer.json())
    at = "2025-10-09T08:53:20.000Z"
    shown = {"id": running, "kind": "stop", "instanceId": instance_id, "phase": "ask"}
    assert answer.json() == {
        **shown,
        "done": False,
        "attempts": 0,
        "createdAt": at,
        "updatedAt": at,
    }

    def finish(connection: Connection) -> None:
        operation = operations.load(connection, running)
        assert operation is not None
        operations.finish(
            connection,
            operation,
            outcome=Outcome.FAILED,
            now=api_process.clock.now() + 1,
            error=("STOP_FAILED", "It runs on"),
        )

    await api_process.app.database.write(finish)
    over = (await api_process.call("GET", path)).json()
    TypeAdapter(OperationView).validate_python(over)
    assert (over["done"], over["outcome"]) == (True, "failed")
    assert over["error"] == {"code": "STOP_FAILED", "message": "It runs on"}
    assert over["updatedAt"] == "2025-10-09T08:53:20.001Z"
    missing = await api_process.call("GET", "/api/operations/op_nope")
    assert (missing.status_code, code_of(missing)) == (404, "OPERATION_NOT_FOUND")


async def test_an_operation_is_cancelled(api_process: ApiProcess) -> None:
    """200 with the operation, also for a replay of the key; 409 after it has ended."""
    instance_id = await api_process.have(S.CREATING)
    creation = (await api_process.call("GET", f"/api/instances/{instance_id}")).json()["operation"][
        "id"
    ]
    path, key = f"/api/operations/{creation}/cancel", {"Idempotency-Key": "abc"}
    answer = await api_process.call("POST", path, headers=key)
    assert answer.status_code == 200
    TypeAdapter(OperationView).validate_python(answer.json())
    assert (answer.json()["done"], answer.json()["outcome"]) == (True, "cancelled")
    shown = (await api_process.call("GET", f"/api/instances/{instance_id}")).json()
    assert shown["status"] == "terminated"
    again = await api_process.call("POST", path, headers=key)
    assert again.content == answer.content
    assert again.headers["Idempotent-Replayed"] == "true"
    over = await api_process.call("POST", path)
    assert (over.status_code, code_of(over)) == (409, "INVALID_STATE")
    missing = await api_process.call("POST", "/api/operations/op_nope/cancel")
    assert (missing.status_code, code_of(missing)) == (404, "OPERATION_NOT_FOUND")


async def test_what_has_begun_to_act_is_not_cancelled(api_process: ApiProcess) -> None:
    """409 for a deletion, a claimed operation, a call already sent, and a listing."""
    now = api_process.clock.now()
    wanted: list[tuple[OperationKind, str, Progress]] = [
        (OperationKind.DELETE, "find_out", Progress()),
        (OperationKind.STOP, "ask", Progress(Call(asked_at=now))),
        (OperationKind.CREATE, "launch", Progress()),
    ]
    made = [
        Operation(
            api_process.app.ids.prefixed("op"),
            kind,
            await api_process.have(),
            phase,
            now,
            now,
            progress=progress,
        )
        for kind, phase, progress in wanted
    ]
    held = await api_process.begin(OperationKind.RESTART, await api_process.have(), "ask")
    listing = (await api_process.call("POST", "/api/instances/sync")).json()["operationId"]

    def write(connection: Connection) -> None:
        for operation in made:
            operations.insert(connection, operation)
        assert operations.claim(connection, held, now=now, until=now + 1000)

    await api_process.app.database.write(write)
    for operation_id in [*(one.id for one in made), held, listing]:
        answer = await api_process.call("POST", f"/api/operations/{operation_id}/cancel")
        assert (answer.status_code, code_of(answer)) == (409, "INVALID_STATE")
        shown = (await api_process.call("GET", f"/api/operations/{operation_id}")).json()
        assert shown["done"] is False


async def test_what_is_not_ours_is_listed_in_pages(api_process: ApiProcess) -> None:
    """Each unmanaged instance is listed once, by upstream ID, with Novita's own values."""
    theirs = [Unmanaged(f"up-{number}", f"theirs-{number}", "running") for number in range(5)]
    await api_process.app.database.write(
        lambda connection: account.replace_unmanaged(connection, theirs)
    )
    whole = await api_process.call("GET", "/v1/api/instances/unmanaged", scope=Scope.READ)
    TypeAdapter(ListUnmanagedResponse).validate_python(whole.json())
    assert whole.json() == {
        "instances": [
            {
                "upstreamId": one.upstream_id,
                "name": one.name,
                "status": "running",
                "orphan": False,
            }
            for one in theirs
        ],
        "total": 5,
    }
    seen, path = [], "/api/instances/unmanaged?limit=2"
    while path:
        answer = await api_process.call("GET", path)
        seen += answer.json()["instances"]
        link = answer.headers.get("Link", "<>")
        path = link[1 : link.index(">")]
    assert seen == whole.json()["instances"]
    wrong = await api_process.call("GET", "/api/instances/unmanaged?status=running")
    assert wrong.status_code == 400


@on_both_stores
async def test_what_is_not_ours_may_have_any_id(api_process: ApiProcess) -> None:
    """Pages list each instance once, for any characters in IDs and any collation."""
    ids = ["b", "A", "a", "B", "10", "9", "x y/+:", "\N{LATIN SMALL LETTER A WITH DIAERESIS}", "-"]
    ids += ["\N{GRINNING FACE}" * 255]
    theirs = [Unmanaged(one, "theirs", "running") for one in ids]

    def write(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(
                'ALTER TABLE unmanaged_instances ALTER upstream_id TYPE text COLLATE "und-x-icu"'
            )
        account.replace_unmanaged(connection, theirs)

    await api_process.app.database.write(write)
    seen, path = [], "/api/instances/unmanaged?limit=1"
    while path:
        answer = await api_process.call("GET", path)
        assert answer.status_code == 200, answer.text
        assert re.fullmatch(r"[A-Za-z0-9._~=-]+", answer.json().get("nextCursor", "-"))
        seen += [one["upstreamId"] for one in answer.json()["instances"]]
        link = answer.headers.get("Link", "<>")
        path = link[1 : link.index(">")]
    assert seen == sorted(ids)
    assert (await api_process.call("GET", "/api/instances/unmanaged?cursor=ff")).json()[
        "instances"
    ] == []


@pytest.mark.parametrize("cursor", ["a", "AB", "up-1", "%00", ""])
async def test_a_cursor_of_no_list_is_refused_where_others_are_listed(
    api_process: ApiProcess, cursor: str
) -> None:
    """A cursor that no page returned is 400."""
    answer = await api_process.call("GET", f"/api/instances/unmanaged?cursor={cursor}")
    assert (answer.status_code, code_of(answer)) == (400, "VALIDATION_ERROR")
    assert answer.json()["error"]["details"][0]["field"] == "cursor"


async def test_operations_are_listed(api_process: ApiProcess) -> None:
    """They are listed newest first and page by page, of all instances or one, ended or running."""
    ids = []
    for number in range(3):
        instance_id = await api_process.have(name=f"box-{number}")
        ids.append(await api_process.begin(OperationKind.STOP, instance_id, "stop"))
        await api_process.clock.advance(1)
    last = instance_id
    first = (await api_process.call("GET", "/api/operations?limit=2")).json()
    assert [one["id"] for one in first["operations"]] == [ids[2], ids[1]]
    rest = f"/api/operations?limit=2&cursor={first['nextCursor']}"
    assert [one["id"] for one in (await api_process.call("GET", rest)).json()["operations"]] == [
        ids[0]
    ]
    await api_process.call("POST", f"/api/operations/{ids[0]}/cancel")
    for query, wanted in (
        ("done=true", [ids[0]]),
        ("done=false", [ids[2], ids[1]]),
        (f"instanceId={last}", [ids[2]]),
        (f"instanceId={last}&done=true", []),
    ):
        found = (await api_process.call("GET", f"/api/operations?{query}")).json()
        assert [one["id"] for one in found["operations"]] == wanted, query
    for field, value in (("done", "maybe"), ("instanceId", "a-b")):
        refused = await api_process.call("GET", f"/api/operations?{field}={value}")
        assert refused.json()["error"]["details"][0]["field"] == field
