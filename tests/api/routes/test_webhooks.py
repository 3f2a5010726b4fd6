# SPDX-License-Identifier: Apache-2.0
"""Tests of webhooks and deliveries over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import TypeAdapter
from sqlalchemy import Connection

from novitai.api.schemas.webhooks import (
    DeliveryView,
    ListDeliveriesResponse,
    ListWebhooksResponse,
    ReplayResponse,
    RevealedWebhook,
    WebhookTestResponse,
    WebhookView,
)
from novitai.clock import iso
from novitai.domain.api_key import Scope
from novitai.domain.event import EventType
from novitai.store.queries import instances
from tests.api.client import ApiProcess

URL = "https://hooks.example.com/notify"


async def make(api_process: ApiProcess, **fields: object) -> dict[str, Any]:
    """Create a webhook."""
    answer = await api_process.call("POST", "/api/webhooks", body={"url": URL, **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def tell(api_process: ApiProcess, instance_id: str, *types: EventType) -> None:
    """Append events to an instance, so that messages are enqueued."""

    def write(connection: Connection) -> None:
        instance = instances.lock(connection, instance_id)
        assert instance is not None
        for event_type in types:
            api_process.app.recorder.append(connection, instance, None, event_type)

    await api_process.app.database.write(write)


def error_of(answer: Any) -> tuple[int, str]:
    """Return the status and code of an error response."""
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_webhook_is_made_and_shows_its_secret_once(api_process: ApiProcess) -> None:
    """201 with `Location` and secret; reading, listing and changing never show the secret."""
    answer = await api_process.call("POST", "/v1/api/webhooks", body={"url": URL})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    TypeAdapter(RevealedWebhook).validate_python(made)
    assert answer.headers["location"] == f"/api/webhooks/{made['id']}"
    assert (made["enabled"], made["eventTypes"]) == (True, [])
    path = f"/api/webhooks/{made['id']}"
    one = await api_process.call("GET", path, scope=Scope.READ)
    TypeAdapter(WebhookView).validate_python(one.json())
    listed = await api_process.call("GET", "/api/webhooks", scope=Scope.READ)
    TypeAdapter(ListWebhooksResponse).validate_python(listed.json())
    changed = await api_process.call("PATCH", path, body={"description": "mine"})
    deleted = await api_process.call("DELETE", path)
    for answer in (one, listed, changed, deleted):
        assert answer.status_code == 200
        assert made["secret"] not in answer.text
    assert error_of(await api_process.call("GET", path)) == (404, "WEBHOOK_NOT_FOUND")
    assert (await api_process.call("GET", "/api/webhooks")).json() == {"webhooks": []}


async def test_null_in_a_patch_restores_the_default(api_process: ApiProcess) -> None:
    """A PATCH is a merge patch: `null` removes a description, a choice of events, a disabling."""
    body = {"url": URL, "description": "mine", "eventTypes": ["instance.failed"], "enabled": False}
    path = (
        f"/api/webhooks/{(await api_process.call('POST', '/api/webhooks', body=body)).json()['id']}"
    )
    kept = (await api_process.call("PATCH", path, body={})).json()
    assert (kept["description"], kept["eventTypes"], kept["enabled"]) == (
        "mine",
        ["instance.failed"],
        False,
    )
    removed = await api_process.call(
        "PATCH", path, body={"description": None, "eventTypes": None, "enabled": None}
    )
    assert removed.status_code == 200
    shown = removed.json()
    assert "description" not in shown
    assert (shown["eventTypes"], shown["enabled"]) == ([], True)
    answer = await api_process.call("PATCH", path, body={"url": None})
    assert error_of(answer) == (400, "INVALID_WEBHOOK_URL")
    answer = await api_process.call("POST", "/api/webhooks", body={"url": URL, "description": None})
    assert error_of(answer) == (400, "VALIDATION_ERROR")


async def test_there_is_a_most_of_standing_webhooks(
    api_process: ApiProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of standing webhooks is limited; the webhook URLs of instances do not count."""
    monkeypatch.setattr("novitai.lifecycle.webhooks.endpoints.MAX_STANDING", 3)
    await api_process.have(webhook_url="https://own.example.com/x")
    made = [await make(api_process, enabled=number > 0) for number in range(3)]
    answer = await api_process.call("POST", "/api/webhooks", body={"url": URL})
    assert error_of(answer) == (409, "TOO_MANY_WEBHOOKS")
    assert answer.json()["error"]["details"] == {"limit": 3}
    assert "3 standing webhooks" in answer.json()["error"]["message"]
    await api_process.call("DELETE", f"/api/webhooks/{made[1]['id']}")
    both = await asyncio.gather(
        *(api_process.call("POST", "/api/webhooks", body={"url": URL}) for _ in range(4))
    )
    assert sorted(one.status_code for one in both) == [201, 409, 409, 409]


async def test_a_secret_is_rotated(api_process: ApiProcess) -> None:
    """The new secret is shown once, with the time until which the old secret also signs."""
    made = await make(api_process)
    path = f"/api/webhooks/{made['id']}/rotate"
    key = {"Idempotency-Key": "once"}
    answer = await api_process.call("POST", path, headers=key)
    assert answer.status_code == 200
    assert answer.json()["secret"] != made["secret"]
    assert answer.json()["previousSecretValidUntil"] == iso(api_process.clock.now() + 86_400_000)
    again = await api_process.call("POST", path, headers=key)
    assert error_of(again) == (409, "IDEMPOTENCY_NOT_REPLAYABLE")
    assert again.json()["error"]["details"] == {"id": made["id"]}


@pytest.mark.parametrize(
    ("body", "code", "fields"),
    [
        ({}, "INVALID_WEBHOOK_URL", ["url"]),
        ({"url": "http://127.0.0.1/"}, "INVALID_WEBHOOK_URL", ["url"]),
        ({"url": "http://me:secret@10.1/"}, "INVALID_WEBHOOK_URL", ["url"]),
        ({"url": "ftp://example.com/"}, "INVALID_WEBHOOK_URL", ["url"]),
        ({"url": None}, "INVALID_WEBHOOK_URL", ["url"]),
        ({"url": URL, "eventTypes": ["instance.drift"]}, "VALIDATION_ERROR", ["eventTypes"]),
        ({"url": URL, "eventTypes": "all"}, "VALIDATION_ERROR", ["eventTypes"]),
        ({"url": URL, "enabled": "yes"}, "VALIDATION_ERROR", ["enabled"]),
        ({"url": URL, "event_types": []}, "VALIDATION_ERROR", ["event_types"]),
        ({"url": 1, "description": 2}, "VALIDATION_ERROR", ["url", "description"]),
    ],
)
async def test_a_wrong_request_is_refused_whole(
    api_process: ApiProcess, body: dict[str, object], code: str, fields: list[str]
) -> None:
    """400 with every invalid field; no password in a URL is quoted."""
    answer = await api_process.call("POST", "/api/webhooks", body=body)
    assert error_of(answer) == (400, code)
    assert [one["field"] for one in answer.json()["error"]["details"]] == fields
    assert "secret" not in answer.text
    if "url" in body:
        made = await make(api_process)
        answer = await api_process.call("PATCH", f"/api/webhooks/{made['id']}", body=body)
        assert error_of(answer) == (400, code)


async def test_scopes(api_process: ApiProcess) -> None:
    """Reading needs `read`; every other operation needs `write`."""
    made = await make(api_process)
    path = f"/api/webhooks/{made['id']}"
    for method, where in (
        ("POST", "/api/webhooks"),
        ("PATCH", path),
        ("DELETE", path),
        ("POST", f"{path}/rotate"),
        ("POST", f"{path}/test"),
        ("POST", f"{path}/replay"),
        ("POST", "/api/deliveries/msg_1/redeliver"),
    ):
        answer = await api_process.call(method, where, scope=Scope.READ, body={})
        assert answer.status_code == 403, where
    for where in ("/api/webhooks", path, f"{path}/deliveries"):
        assert (await api_process.call("GET", where, scope=Scope.READ)).status_code == 200


async def test_webhooks_are_listed_in_pages(api_process: ApiProcess) -> None:
    """Newest first, each once."""
    ids = []
    for number in range(5):
        ids.append((await make(api_process, description=str(number)))["id"])
        await api_process.clock.advance(0.001)
    found: list[str] = []
    where = "/api/webhooks?limit=2"
    while where:
        answer = await api_process.call("GET", where)
        found += [one["id"] for one in answer.json()["webhooks"]]
        after = answer.json().get("nextCursor")
        assert ("link" in answer.headers) == (after is not None)
        where = f"/api/webhooks?limit=2&cursor={after}" if after else ""
    assert found == ids[::-1]
    assert error_of(await api_process.call("GET", "/api/webhooks?cursor=nobody"))[0] == 400


async def test_deliveries_are_shown(api_process: ApiProcess) -> None:
    """The deliveries of an instance and of a webhook, pending and ended."""
    made = await make(api_process, eventTypes=["instance.running", "instance.stopped"])
    instance_id = await api_process.have(webhook_url="https://me:secret@own.example.com/x")
    await tell(api_process, instance_id, EventType.RUNNING, EventType.STOPPED, EventType.STOPPING)
    answer = await api_process.call(
        "GET", f"/api/instances/{instance_id}/deliveries", scope=Scope.READ
    )
    TypeAdapter(ListDeliveriesResponse).validate_python(answer.json())
    shown = answer.json()["deliveries"]
    assert sorted((one["type"], "webhookId" in one) for one in shown) == [
        ("instance.running", False),
        ("instance.running", True),
        ("instance.stopped", False),
        ("instance.stopped", True),
        ("instance.stopping", False),
    ]
    assert {one["url"] for one in shown} == {URL, "https://***@own.example.com/x"}
    assert {one["status"] for one in shown} == {"pending"}
    of_webhook = f"/api/webhooks/{made['id']}/deliveries"
    answer = await api_process.call("GET", of_webhook)
    types = [one["type"] for one in answer.json()["deliveries"]]
    assert types == ["instance.stopped", "instance.running"]
    answer = await api_process.call("GET", f"{of_webhook}?status=dead")
    assert answer.json() == {"deliveries": []}
    answer = await api_process.call("GET", f"{of_webhook}?limit=1")
    assert "nextCursor" in answer.json()
    assert error_of(await api_process.call("GET", f"{of_webhook}?status=lost"))[0] == 400
    answer = await api_process.call("GET", "/api/deliveries?limit=2")
    first = [one["id"] for one in answer.json()["deliveries"]]
    answer = await api_process.call("GET", f"/api/deliveries?cursor={answer.json()['nextCursor']}")
    rest = [one["id"] for one in answer.json()["deliveries"]]
    assert {*first, *rest} >= {one["id"] for one in shown}
    assert len({*first, *rest}) == len(first) + len(rest)
    assert (await api_process.call("GET", "/api/deliveries?status=dead")).json() == {
        "deliveries": []
    }
    for path in ("/api/instances/nobody/deliveries", "/api/webhooks/nobody/deliveries"):
        assert (await api_process.call("GET", path)).status_code == 404


async def test_a_message_is_sent_again(api_process: ApiProcess) -> None:
    """202 with the delivery; a replay with the same key has no second effect."""
    made = await make(api_process)
    instance_id = await api_process.have()
    await tell(api_process, instance_id, EventType.RUNNING)
    listed = await api_process.call("GET", f"/api/webhooks/{made['id']}/deliveries")
    (delivery,) = listed.json()["deliveries"]
    path = f"/api/deliveries/{delivery['id']}/redeliver"
    key = {"Idempotency-Key": "once"}
    answer = await api_process.call("POST", path, headers=key)
    assert answer.status_code == 202
    TypeAdapter(DeliveryView).validate_python(answer.json())
    again = await api_process.call("POST", path, headers=key)
    assert (again.content, again.headers["idempotent-replayed"]) == (answer.content, "true")
    gone = await api_process.call("POST", "/api/deliveries/nobody/redeliver")
    assert error_of(gone) == (404, "DELIVERY_NOT_FOUND")
    await api_process.call("PATCH", f"/api/webhooks/{made['id']}", body={"enabled": False})
    assert error_of(await api_process.call("POST", path)) == (409, "INVALID_STATE")


async def test_everything_is_told_again(api_process: ApiProcess) -> None:
    """202 with the number of messages; `since` is required, has an offset and lies in the past."""
    instance_id = await api_process.have()
    await tell(api_process, instance_id, EventType.RUNNING, EventType.STOPPED)
    made = await make(api_process)
    path = f"/api/webhooks/{made['id']}/replay"
    answer = await api_process.call("POST", path, body={"since": iso(api_process.clock.now())})
    assert answer.status_code == 202
    TypeAdapter(ReplayResponse).validate_python(answer.json())
    assert answer.json() == {"webhookId": made["id"], "messages": 2}
    future = iso(api_process.clock.now() + 1000)
    for since in ({}, {"since": future}, {"since": "yesterday"}, {"since": 5}, {"until": future}):
        assert error_of(await api_process.call("POST", path, body=since))[0] == 400
    await api_process.call("PATCH", f"/api/webhooks/{made['id']}", body={"enabled": False})
    answer = await api_process.call("POST", path, body={"since": "2020-01-01T00:00:00Z"})
    assert error_of(answer) == (409, "INVALID_STATE")


async def test_a_test_message_tells_what_came_of_it(api_process: ApiProcess) -> None:
    """200 for any result of the attempt; a name that does not resolve is reported as such."""
    made = await make(api_process, url="https://no-such-name.example/")
    path = f"/api/webhooks/{made['id']}/test"
    key = {"Idempotency-Key": "once"}
    answer = await api_process.call("POST", path, headers=key)
    assert answer.status_code == 200, answer.text
    TypeAdapter(WebhookTestResponse).validate_python(answer.json())
    assert answer.json()["delivered"] is False
    assert answer.json()["attempt"]["error"] == "The name could not be resolved"
    assert (await api_process.call("POST", path, headers=key)).content == answer.content


async def test_the_numbers_of_webhooks(api_process: ApiProcess) -> None:
    """Attempts by outcome, and the age of the oldest pending message."""
    await make(api_process)
    await tell(api_process, await api_process.have(), EventType.RUNNING)
    await api_process.clock.advance(3)
    answer = await api_process.call("GET", "/metrics", headers={"Accept": "text/plain"})
    assert 'novitai_webhook_attempts_total{outcome="delivered"} 0.0' in answer.text
    assert "novitai_webhook_oldest_waiting_seconds 3.0" in answer.text
