# SPDX-License-Identifier: Apache-2.0
"""Tests of the HTTP side of the instance routes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from novitai.api.schemas.instances import (
    CreateInstanceResponse,
    ListInstancesResponse,
)
from novitai.domain.instance import InstanceStatus
from novitai.domain.instance_details import InstanceDetails
from tests.api.application import CREATE, Api, ApiFactory
from tests.api.client import ApiProcess

VIEW: dict[str, Any] = {
    "id": "inst_1",
    "name": "my-instance",
    "status": "running",
    "gpuNum": 2,
    "region": "US-WEST-01",
    "portMappings": [{"port": 22, "endpoint": "gpu.example:2222", "type": "tcp"}],
    "createdAt": "2023-10-20T10:20:00.000Z",
    "productName": "gpu-basic",
    "templateId": "tmpl-12345",
    "rootfsSize": 80,
    "billingMode": "onDemand",
    "tags": {},
}


async def test_an_accepted_request_has_the_references_answer(api: Api) -> None:
    """201 with the API reference's body and a `Location`."""
    answer = await api.call("POST", "/v1/api/instances", body={**CREATE, "gpuNum": 2})
    assert answer.status_code == 201
    TypeAdapter(CreateInstanceResponse).validate_python(answer.json())
    assert answer.json() == {
        "instanceId": "inst_1697843200_abc123",
        "status": "creating",
        "message": "Instance creation initiated successfully",
        "estimatedReadyTime": "2023-10-20T10:30:00.000Z",
    }
    assert answer.headers["Location"] == "/api/instances/inst_1697843200_abc123"
    assert "Idempotent-Replayed" not in answer.headers
    assert api.instances.requests[0].gpu_num == 2
    assert api.commands.keys == [None]


async def test_a_wrong_request_is_told_whole_and_goes_no_further(api: Api) -> None:
    """The API reference's example gives exactly its error, and no command runs."""
    answer = await api.call("POST", "/api/instances", body={**CREATE, "name": "", "gpuNum": 0})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["message"]) == ("VALIDATION_ERROR", "Validation failed")
    assert error["details"] == [
        {"field": "name", "message": "Name must be at least 1 character long", "value": ""},
        {"field": "gpuNum", "message": "GPU number must be at least 1", "value": 0},
    ]
    assert api.instances.requests == []


@pytest.mark.parametrize("allowed", [False, True])
async def test_private_webhooks_are_refused_unless_the_settings_allow_them(
    factory: ApiFactory, allowed: bool
) -> None:
    """NOVITAI_WEBHOOK_ALLOW_PRIVATE decides."""
    api = await factory.make(allow_private_webhooks=allowed)
    answer = await api.call(
        "POST", "/api/instances", body={**CREATE, "webhookUrl": "http://127.0.0.1:9/x"}
    )
    assert answer.status_code == (201 if allowed else 400)


async def test_an_idempotency_key_is_bound_to_key_route_and_body(api: Api) -> None:
    """A body with another key order is the same request; another body, route or API key is not."""
    headers = {"Idempotency-Key": "abc"}
    turned = dict(reversed(list(CREATE.items())))
    for body, path in (
        (CREATE, "/api/instances"),
        (turned, "/v1/api/instances"),
        ({**CREATE, "gpuNum": 2}, "/api/instances"),
    ):
        await api.call("POST", path, body=body, headers=headers)
    first, second, third = api.commands.keys
    assert first is not None
    assert third is not None
    assert first == second
    assert first.route == "POST /api/instances"
    assert first.key == "abc"
    assert first.api_key_id.startswith("key_")
    assert first.body_digest != third.body_digest


async def test_a_replayed_answer_says_so(api: Api) -> None:
    """`Idempotent-Replayed: true`, and the status, headers and bytes of the first response."""
    headers = {"Idempotency-Key": "abc"}
    first = await api.call("POST", "/api/instances", body=CREATE, headers=headers)
    again = await api.call("POST", "/api/instances", body=CREATE, headers=headers)
    assert len(api.instances.requests) == 1
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["Location"] == first.headers["Location"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "é"])
async def test_a_malformed_idempotency_key_is_refused(api: Api, key: str) -> None:
    """Anything but 1 to 255 visible ASCII characters is rejected, and nothing is done."""
    sent = [
        *((name.lower().encode(), value.encode()) for name, value in api.bearer().items()),
        (b"content-type", b"application/json"),
        (b"idempotency-key", key.encode("latin-1")),
    ]
    answer = await api.client.post("/api/instances", json=CREATE, headers=sent)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "VALIDATION_ERROR"
    assert answer.json()["error"]["details"][0]["field"] == "Idempotency-Key"
    assert api.instances.requests == []


async def test_the_longest_idempotency_key_is_good(api: Api) -> None:
    """255 characters are allowed."""
    headers = {"Idempotency-Key": "~" * 255}
    answer = await api.call("POST", "/api/instances", body=CREATE, headers=headers)
    assert answer.status_code == 201


async def test_one_instance_is_shown_with_when_it_was_seen(api: Api) -> None:
    """The response has the record and `observedAt`."""
    api.instances.views["inst_1"] = VIEW
    api.instances.observed_at = api.clock.now()
    answer = await api.call("GET", "/v1/api/instances/inst_1")
    assert answer.json() == {**VIEW, "observedAt": "2025-10-09T08:53:20.000Z"}
    TypeAdapter(InstanceDetails).validate_python(answer.json())


async def test_the_tag_changes_with_the_record_and_not_with_the_observation(api: Api) -> None:
    """The weak `ETag` covers every field except `observedAt`."""
    api.instances.views["inst_1"] = dict(VIEW)
    tags = []
    for observed_at, status in ((1000, "running"), (2000, "running"), (2000, "stopping")):
        api.instances.observed_at = observed_at
        api.instances.views["inst_1"]["status"] = status
        tags.append((await api.call("GET", "/api/instances/inst_1")).headers["ETag"])
    assert tags[0].startswith('W/"')
    assert tags[0] == tags[1] != tags[2]


async def test_who_has_the_latest_is_told_so(api: Api) -> None:
    """304 without a body for the current tag, in every form that a client may send."""
    api.instances.views["inst_1"] = VIEW
    tag = (await api.call("GET", "/api/instances/inst_1")).headers["ETag"]
    for given, status in (
        (tag, 304),
        (tag.removeprefix("W/"), 304),
        (f'"other", {tag}', 304),
        ("*", 304),
        ('"other"', 200),
        (tag[:-2], 200),
    ):
        answer = await api.call("GET", "/api/instances/inst_1", headers={"If-None-Match": given})
        assert answer.status_code == status
        assert answer.headers["ETag"] == tag
        assert bool(answer.content) is (status == 200)


async def test_instances_are_listed(api: Api) -> None:
    """The response has the API reference's form, without a cursor on the last page."""
    api.instances.views["inst_1"] = VIEW
    answer = await api.call("GET", "/api/instances")
    assert answer.json() == {"instances": [VIEW], "total": 1}
    TypeAdapter(ListInstancesResponse).validate_python(answer.json())
    assert "Link" not in answer.headers


async def test_more_is_told_in_the_body_and_as_a_link(api: Api) -> None:
    """More pages give `nextCursor` and a `Link` with `rel="next"` and the same filters."""
    api.instances.next_cursor = "abc-_9"
    answer = await api.call(
        "GET", "/v1/api/instances?limit=1&status=running&cursor=1697797800000.inst_1"
    )
    assert answer.json()["nextCursor"] == "abc-_9"
    assert answer.headers["Link"] == (
        '</api/instances?limit=1&status=running&cursor=abc-_9>; rel="next"'
    )


@pytest.mark.parametrize(
    ("query", "listed"),
    [
        ("", ["running"]),
        ("?status=terminated", ["terminated"]),
        ("?includeTerminated=false&status=terminated", ["terminated"]),
        ("?includeTerminated=true&status=terminated", ["terminated"]),
        ("?status=running", ["running"]),
        ("?includeTerminated=true&status=running", ["running"]),
        ("?includeTerminated=true", ["released", "running", "terminated"]),
        ("?status=released", ["released"]),
    ],
)
async def test_terminated_ones_are_listed_where_that_is_said(
    api_process: ApiProcess, query: str, listed: list[str]
) -> None:
    """They are listed with `includeTerminated=true` or by their status; `total` agrees."""
    await api_process.have(InstanceStatus.RUNNING)
    await api_process.have(InstanceStatus.TERMINATED)
    await api_process.turn(await api_process.have(), InstanceStatus.RELEASED)
    answer = (await api_process.call("GET", f"/api/instances{query}")).json()
    assert sorted(one["status"] for one in answer["instances"]) == listed
    assert answer["total"] == len(listed)


async def test_filters_are_handed_on(api: Api) -> None:
    """Each filter is passed on unchanged."""
    await api.call(
        "GET",
        "/api/instances?status=stopped&region=US-WEST-01&name=a%20b&includeTerminated=true"
        "&limit=1000&cursor=1.x",
    )
    await api.call("GET", "/api/instances")
    filtered, everything = api.instances.queries
    assert (filtered.status, filtered.region, filtered.name) == (
        InstanceStatus.STOPPED,
        "US-WEST-01",
        "a b",
    )
    assert (filtered.include_terminated, filtered.limit, filtered.cursor) == (True, 1000, "1.x")
    assert (everything.status, everything.limit, everything.include_terminated) == (
        None,
        None,
        False,
    )


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=1.5",
        "limit=",
        "limit=٣",
        "limit=1&limit=2",
        "status=happy",
        "includeTerminated=1",
        "includeTerminated=",
        "cursor=a/b",
        "cursor=",
        "name=",
        "region=%00",
        "stauts=running",
    ],
)
async def test_a_wrong_query_is_refused(api: Api, query: str) -> None:
    """A misspelt filter is rejected, because it would show the wrong instances."""
    answer = await api.call("GET", f"/api/instances?{query}")
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert [detail["field"] for detail in error["details"]] == [query.partition("=")[0]]
    assert api.instances.queries == []


async def test_everything_wrong_with_a_query_is_told_in_order(api: Api) -> None:
    """Filters come first, then `limit` and `cursor`, then unknown parameters."""
    answer = await api.call(
        "GET", "/api/instances?zz=1&cursor=x&limit=a&name=&region=&includeTerminated=1&status=q"
    )
    assert answer.status_code == 400
    assert [one["field"] for one in answer.json()["error"]["details"]] == [
        "status",
        "includeTerminated",
        "region",
        "name",
        "limit",
        "cursor",
        "zz",
    ]
