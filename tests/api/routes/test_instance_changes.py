# SPDX-License-Identifier: Apache-2.0
"""Tags and changes of instances over HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from typing import Any

import httpx2
import pytest
from pydantic import TypeAdapter
from sqlalchemy import Connection, select

from novitai.api.schemas.instances import ChangeInstanceRequest
from novitai.domain.api_key import Scope
from novitai.domain.instance import InstanceStatus
from novitai.domain.instance_details import InstanceDetails
from novitai.domain.requests import InstanceChange
from novitai.domain.webhook import OffReason, id_of_url
from novitai.lifecycle.commands.change_instance import PATCHABLE
from novitai.store.queries import webhooks
from novitai.store.tables import instance_tags
from tests.api.application import CREATE, Api
from tests.api.client import ApiProcess
from tests.lifecycle.world import on_both_stores

URL = "https://hooks.example.com/notify"
RED = {"team": "red"}


async def patch(
    api_process: ApiProcess, instance_id: str, body: object, **headers: str
) -> httpx2.Response:
    """Change an instance; `if_match` is sent as the header `If-Match`."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api_process.call("PATCH", f"/api/instances/{instance_id}", body=body, headers=sent)


async def tags_of(api_process: ApiProcess, instance_id: str) -> dict[str, str]:
    """Return the tags of an instance."""
    tags: dict[str, str] = (await api_process.call("GET", f"/api/instances/{instance_id}")).json()[
        "tags"
    ]
    return tags


async def tagged(api_process: ApiProcess, tags: object, **more: Any) -> str:
    """Have an instance with tags."""
    instance_id = await api_process.have(**more)
    assert (await patch(api_process, instance_id, {"tags": tags})).status_code == 200
    return instance_id


async def listed(api_process: ApiProcess, query: str) -> list[str]:
    """Return the IDs in a list, whose `total` must agree."""
    answer = await api_process.call("GET", f"/api/instances?{query}")
    assert answer.status_code == 200, answer.text
    found = [one["id"] for one in answer.json()["instances"]]
    if "limit" not in query:
        assert answer.json()["total"] == len(found)
    return found


def error_of(answer: httpx2.Response) -> tuple[int, str]:
    """Return the status and code of an error response."""
    return answer.status_code, answer.json()["error"]["code"]


def test_every_field_of_a_patch_has_its_line() -> None:
    """Body model, domain object and table have the same fields, so that none is ignored."""
    of_change = {one.name for one in fields(InstanceChange)} - {"given"}
    assert set(ChangeInstanceRequest.model_fields) == of_change == set(PATCHABLE)


@on_both_stores
async def test_a_patch_merges_tags(api_process: ApiProcess) -> None:
    """Sent tags are set, `null` removes one or all, others are kept; the response is the view."""
    instance_id = await tagged(api_process, {"team": "red", "user": "ann"})
    changed = await patch(
        api_process, instance_id, {"tags": {"team": "blue", "none": None, "x": ""}}
    )
    assert changed.status_code == 200
    TypeAdapter(InstanceDetails).validate_python(changed.json())
    assert changed.json()["tags"] == {"team": "blue", "user": "ann", "x": ""}
    shown = await api_process.call("GET", f"/api/instances/{instance_id}", scope=Scope.READ)
    assert (shown.json(), shown.headers["ETag"]) == (changed.json(), changed.headers["ETag"])
    await patch(api_process, instance_id, {"tags": {"user": None}})
    assert await tags_of(api_process, instance_id) == {"team": "blue", "x": ""}
    assert (await patch(api_process, instance_id, {"tags": None})).json()["tags"] == {}


@on_both_stores
async def test_the_rows_of_the_filter_are_the_tags(api_process: ApiProcess) -> None:
    """After any change, the table by which lists are filtered has exactly the instance's tags."""
    instance_id = await api_process.have()
    for body in (RED, {"team": None, "a": "1", "b": "2"}, {"a": "3"}, None):
        await patch(api_process, instance_id, {"tags": body})

        def rows(connection: Connection) -> dict[str, str]:
            query = select(instance_tags.c.name, instance_tags.c.value)
            found = connection.execute(query.where(instance_tags.c.instance_id == instance_id))
            return {row.name: row.value for row in found}

        assert await api_process.app.database.read(rows) == await tags_of(api_process, instance_id)


@on_both_stores
async def test_the_sixteenth_tag_is_the_last(api_process: ApiProcess) -> None:
    """17 tags after the merge are 400, and nothing is changed; a patch may replace all 16."""
    first = {f"a{number}": "x" for number in range(16)}
    instance_id = await tagged(api_process, first)
    refused = await patch(api_process, instance_id, {"tags": {"b": "x"}, "webhookUrl": URL})
    assert error_of(refused) == (400, "VALIDATION_ERROR")
    assert [one["field"] for one in refused.json()["error"]["details"]] == ["tags"]
    assert await tags_of(api_process, instance_id) == first
    others = {f"b{number}": "x" for number in range(16)}
    body = {"tags": {**dict.fromkeys(first), **others}}
    assert (await patch(api_process, instance_id, body)).json()["tags"] == others


@pytest.mark.parametrize(
    "tags",
    [
        "red",
        ["team"],
        {"Team": "red"},
        {"-team": "red"},
        {"x" * 64: "red"},
        {"": "red"},
        {"team": 1},
        {"team": {"a": "b"}},
        {"team": "x" * 257},
        {"team": "a\nb"},
        {"team": "a\u202eb"},
        {"Team": None},
    ],
)
async def test_wrong_tags_are_refused(api_process: ApiProcess, tags: object) -> None:
    """A wrong name or value is 400 and names the field, in a patch, a create and an adoption."""
    instance_id = await api_process.have()
    answers = [
        await patch(api_process, instance_id, {"tags": tags}),
        await api_process.call("POST", "/api/instances", body={**CREATE, "tags": tags}),
        await api_process.call(
            "POST",
            "/api/instances/adopt",
            scope=Scope.ADMIN,
            body={"upstreamId": "up-1", "tags": tags},
        ),
    ]
    for answer in answers:
        assert error_of(answer) == (400, "VALIDATION_ERROR")
        assert [one["field"] for one in answer.json()["error"]["details"]] == ["tags"]


@pytest.mark.parametrize("tags", [None, {"team": None}, {f"a{one}": "x" for one in range(17)}])
async def test_a_create_takes_tags_as_they_are(api: Api, tags: object) -> None:
    """`null` is a wrong value in a create, and 17 tags are too many."""
    answer = await api.call("POST", "/api/instances", body={**CREATE, "tags": tags})
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    assert api.instances.requests == []


async def test_a_create_hands_on_its_tags_and_its_key(api: Api) -> None:
    """The command gets the tags of the request, and the key as the actor."""
    tags = {"team": "vision", "a.b_c-d": "é 👩\u200d💻 x:y", "x" * 63: "y" * 256}
    answer = await api.call("POST", "/api/instances", body={**CREATE, "tags": tags})
    assert answer.status_code == 201
    assert api.instances.requests[0].tags == tags
    [actor] = api.instances.actors
    assert (actor.name, actor.system) == ("the write key", None)


@on_both_stores
async def test_a_list_has_the_instances_with_all_the_tags(api_process: ApiProcess) -> None:
    """`tag` may be repeated; the whole value must match, and a value may have colons."""
    one = await tagged(api_process, {"team": "red", "user": "ann"})
    two = await tagged(api_process, {"team": "red", "user": "bob", "path": "a:b"})
    gone = await tagged(api_process, RED, status=InstanceStatus.TERMINATED)
    await tagged(api_process, {"team": "redder"})
    await tagged(api_process, {"empty": ""})
    assert sorted(await listed(api_process, "tag=team:red")) == [one, two]
    assert await listed(api_process, "tag=team:red&tag=user:bob") == [two]
    assert await listed(api_process, "tag=user:bob&tag=team:red&tag=team:red") == [two]
    assert await listed(api_process, "tag=path:a:b") == [two]
    assert len(await listed(api_process, "tag=empty:")) == 1
    assert await listed(api_process, "tag=team:red&tag=team:redder") == []
    assert await listed(api_process, "tag=team:re") == []
    assert await listed(api_process, "tag=team:red&status=terminated") == [gone]
    assert len(await listed(api_process, "tag=team:red&includeTerminated=true")) == 3
    assert await listed(api_process, "tag=team:red&name=other") == []


@on_both_stores
async def test_pages_of_a_filtered_list_meet(api_process: ApiProcess) -> None:
    """Pages by tag have the order of the list, newest first, and miss and repeat nothing."""
    wanted = []
    for number in range(7):
        made = await tagged(api_process, {"team": "red" if number % 2 else "blue", "all": "x"})
        wanted += [made] if number % 2 else []
        await api_process.clock.advance(number % 3)  # some have the same time
    path: str | None = "/api/instances?tag=team:red&tag=all:x&limit=1"
    found = []
    while path is not None:
        answer = await api_process.call("GET", path)
        assert answer.json()["total"] == len(wanted)
        found += [one["id"] for one in answer.json()["instances"]]
        link = answer.headers.get("Link")
        path = None if link is None else link.partition("<")[2].partition(">")[0]
    everything = [one for one in await listed(api_process, "") if one in wanted]
    assert found == everything
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize(
    "query",
    [
        "tag=team",
        "tag=",
        "tag=Team:red",
        "tag=:red",
        "tag=team:a%0Ab",
        "tag=team:red&tag=blue",
        "&".join(f"tag=a{number}:x" for number in range(17)),
    ],
)
async def test_a_wrong_filter_is_refused(api_process: ApiProcess, query: str) -> None:
    """Without a colon, with a malformed name or value, or 17 times, `tag` is 400."""
    answer = await api_process.call("GET", f"/api/instances?{query}")
    assert error_of(answer) == (400, "VALIDATION_ERROR")
    assert [one["field"] for one in answer.json()["error"]["details"]] == ["tag"]


async def test_a_patch_says_what_is_wrong(api_process: ApiProcess) -> None:
    """Unknown fields, wrong URLs and missing instances are refused; nothing is changed."""
    instance_id = await api_process.have()
    unknown = await patch(api_process, instance_id, {"tags": RED, "nmae": "x"})
    assert error_of(unknown) == (400, "VALIDATION_ERROR")
    assert unknown.json()["error"]["details"][0]["field"] == "nmae"
    wrong = await patch(api_process, instance_id, {"webhookUrl": "ftp://example.com"})
    assert error_of(wrong) == (400, "INVALID_WEBHOOK_URL")
    assert error_of(await patch(api_process, "inst_none", {})) == (404, "INSTANCE_NOT_FOUND")
    reading = await api_process.call(
        "PATCH", f"/api/instances/{instance_id}", scope=Scope.READ, body={"tags": RED}
    )
    assert error_of(reading) == (403, "FORBIDDEN")
    assert await tags_of(api_process, instance_id) == {}


async def test_an_empty_patch_changes_nothing(api_process: ApiProcess) -> None:
    """`{}`, no body, and values that are set already give 200 with the same `ETag` and no event."""
    instance_id = await tagged(api_process, RED)
    before = (await api_process.call("GET", f"/api/instances/{instance_id}")).headers["ETag"]
    path = f"/api/instances/{instance_id}"
    for answer in (
        await patch(api_process, instance_id, {}),
        await api_process.call("PATCH", path),
        await patch(api_process, instance_id, {"tags": RED, "webhookUrl": None}),
    ):
        assert (answer.status_code, answer.headers["ETag"]) == (200, before)
    events = (await api_process.call("GET", f"{path}/events")).json()["events"]
    assert [one["type"] for one in events] == ["instance.updated"]


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 200),
        ("application/merge-patch+json; charset=utf-8", 200),
        ("application/json-patch+json", 415),
        ("application/problem+json", 415),
        ("text/plain", 415),
    ],
)
async def test_a_patch_is_a_merge_patch(
    api_process: ApiProcess, media_type: str, status: int
) -> None:
    """A PATCH takes JSON and merge patches; a JSON patch (RFC 6902) is not taken for one."""
    instance_id = await api_process.have()
    answer = await api_process.call(
        "PATCH",
        f"/api/instances/{instance_id}",
        content=b'{"tags": {"team": "red"}}',
        headers={"Content-Type": media_type},
    )
    assert answer.status_code == status
    assert await tags_of(api_process, instance_id) == (RED if status == 200 else {})


@on_both_stores
async def test_if_match_holds_until_the_instance_changes(api_process: ApiProcess) -> None:
    """The current `ETag` is accepted, with and without `W/`, and so is `*`; an old one is 412."""
    instance_id = await api_process.have()
    path = f"/api/instances/{instance_id}"
    old = (await api_process.call("GET", path)).headers["ETag"]
    assert (await patch(api_process, instance_id, {"tags": RED}, if_match=old)).status_code == 200
    stale = await patch(api_process, instance_id, {"tags": {"team": "blue"}}, if_match=old)
    assert error_of(stale) == (412, "PRECONDITION_FAILED")
    assert await tags_of(api_process, instance_id) == RED
    empty = await patch(api_process, instance_id, {}, if_match=old)
    assert error_of(empty) == (412, "PRECONDITION_FAILED")
    for number, form in enumerate(("{}", "{strong}", '"other", {}', "*")):
        current = (await api_process.call("GET", path)).headers["ETag"]
        given = form.format(current, strong=current.removeprefix("W/"))
        answer = await patch(api_process, instance_id, {"tags": {"n": str(number)}}, if_match=given)
        assert answer.status_code == 200, form
    missing = await patch(api_process, "inst_none", {}, if_match="*")
    assert error_of(missing) == (404, "INSTANCE_NOT_FOUND")


@on_both_stores
async def test_of_patches_with_one_if_match_one_wins(api_process: ApiProcess) -> None:
    """Of eight changes at once with the same `If-Match`, exactly one is made."""
    instance_id = await api_process.have()
    tag = (await api_process.call("GET", f"/api/instances/{instance_id}")).headers["ETag"]
    answers = await asyncio.gather(
        *(
            patch(api_process, instance_id, {"tags": {"winner": str(number)}}, if_match=tag)
            for number in range(8)
        )
    )
    assert sorted(one.status_code for one in answers) == [200] + [412] * 7
    [won] = [one for one in answers if one.status_code == 200]
    assert await tags_of(api_process, instance_id) == won.json()["tags"]


@on_both_stores
async def test_patches_at_once_lose_nothing(api_process: ApiProcess) -> None:
    """Without `If-Match`, changes of different tags at the same time are all made."""
    instance_id = await api_process.have()
    await asyncio.gather(
        *(patch(api_process, instance_id, {"tags": {f"a{number}": "x"}}) for number in range(8))
    )
    assert len(await tags_of(api_process, instance_id)) == 8


async def test_a_patch_sets_and_removes_the_webhook_url(api_process: ApiProcess) -> None:
    """Giving a URL switches its receiver on again; `null` removes it."""
    instance_id = await api_process.have(webhook_url=URL)
    await patch(api_process, instance_id, {"tags": RED})
    await api_process.call("POST", f"/api/instances/{instance_id}/stop")

    def switch_off(connection: Connection) -> bool:
        return webhooks.switch_off(
            connection, id_of_url(URL), OffReason.GONE, now=api_process.clock.now()
        )

    assert await api_process.app.database.write(switch_off)
    set_again = await patch(api_process, instance_id, {"webhookUrl": URL})
    assert set_again.json()["webhookUrl"] == URL
    receiver = await api_process.app.database.read(lambda c: webhooks.load(c, id_of_url(URL)))
    assert receiver is not None
    assert receiver.enabled
    moved = await patch(api_process, instance_id, {"webhookUrl": "https://u:p@b.example.com/x"})
    assert moved.json()["webhookUrl"] == "https://***@b.example.com/x"
    removed = await patch(api_process, instance_id, {"webhookUrl": None})
    assert "webhookUrl" not in removed.json()
    await api_process.call("DELETE", f"/api/instances/{instance_id}")
    path = f"/api/instances/{instance_id}/deliveries"
    told = (await api_process.call("GET", path)).json()["deliveries"]
    assert [one["type"] for one in told] == ["instance.stopping"]


async def test_an_ended_instance(api_process: ApiProcess) -> None:
    """A terminated instance can still be tagged; a released one is not managed any longer."""
    assert await tagged(api_process, RED, status=InstanceStatus.TERMINATED)
    released = await api_process.have(InstanceStatus.RELEASED)
    refused = await patch(api_process, released, {"tags": RED}, if_match='"old"')
    assert error_of(refused) == (409, "INSTANCE_RELEASED")


async def test_a_change_is_an_event_with_its_actor(api_process: ApiProcess) -> None:
    """`instance.updated` has the view, the changed fields and the key; webhooks do not get it."""
    standing = await api_process.call("POST", "/api/webhooks", body={"url": URL})
    instance_id = await api_process.have()
    await patch(api_process, instance_id, {"tags": RED, "webhookUrl": URL})
    path = f"/api/instances/{instance_id}"
    [event] = (await api_process.call("GET", f"{path}/events")).json()["events"]
    assert event["type"] == "instance.updated"
    assert event["data"]["changed"] == ["tags", "webhookUrl"]
    assert event["data"]["tags"] == RED
    assert event["actor"]["name"] == "the write key"
    assert event["actor"]["keyId"].startswith("key_")
    deliveries = f"/api/webhooks/{standing.json()['id']}/deliveries"
    assert (await api_process.call("GET", deliveries)).json()["deliveries"] == []
