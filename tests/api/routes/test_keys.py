# SPDX-License-Identifier: Apache-2.0
"""Tests of the key routes."""

from __future__ import annotations

import re

import pytest
from pydantic import TypeAdapter

from novitai.api.schemas.keys import CreateKeyResponse, CurrentKeyResponse, ListKeysResponse
from novitai.domain.api_key import Scope
from tests.api.application import Api

NEW = {"name": "ci", "scopes": ["read"]}


async def test_a_key_is_made_and_shown_once(api: Api) -> None:
    """201 with the key, which works at once and is in no later response."""
    answer = await api.call(
        "POST",
        "/api/keys",
        scope=Scope.ADMIN,
        body={"name": "ci", "scopes": ["write", "read"], "expiresAt": "2030-01-01T00:00:00Z"},
    )
    assert answer.status_code == 201
    TypeAdapter(CreateKeyResponse).validate_python(answer.json())
    made = answer.json()
    assert re.fullmatch(r"nvt_[A-Za-z0-9]{38}", made["key"])
    assert made["scopes"] == ["read", "write"]
    assert made["createdAt"] == "2025-10-09T08:53:20.000Z"
    assert made["expiresAt"] == "2030-01-01T00:00:00.000Z"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Location" not in answer.headers  # no route reads one key
    headers = {"Authorization": f"Bearer {made['key']}"}
    used = await api.call("GET", "/api/instances", scope=None, headers=headers)
    assert used.status_code == 200
    listed = await api.call("GET", "/api/keys", scope=Scope.ADMIN)
    assert made["key"] not in listed.text
    assert "digest" not in listed.text


async def test_a_key_can_read_what_it_may_do(api: Api) -> None:
    """Any key reads its own name, scopes, limits and expiry, and its text is never shown."""
    limits = {"maxInstances": 3, "budget": {"amount": 5.0, "period": "day"}}
    new = {"name": "ci", "scopes": ["read"], "expiresAt": "2030-01-01T00:00:00Z", "limits": limits}
    made = (await api.call("POST", "/api/keys", scope=Scope.ADMIN, body=new)).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    answer = await api.call("GET", "/api/key", scope=None, headers=headers)
    assert answer.status_code == 200
    TypeAdapter(CurrentKeyResponse).validate_python(answer.json())
    assert answer.json() == {name: value for name, value in made.items() if name != "key"}
    assert (await api.call("GET", "/api/key", scope=None)).status_code == 401


async def test_keys_are_listed_with_their_use(api: Api) -> None:
    """Every key is listed with its fields, in pages that link to the next."""
    await api.call("GET", "/api/instances", scope=Scope.READ)
    await api.services.keys.flush()
    ids = []
    path = "/v1/api/keys?limit=2"
    for _ in range(2):
        answer = await api.call("GET", path, scope=Scope.ADMIN)
        TypeAdapter(ListKeysResponse).validate_python(answer.json())
        ids += [key["id"] for key in answer.json()["keys"]]
        if "nextCursor" in answer.json():
            link = answer.headers["Link"]
            path = link[1 : link.index(">")]
            assert 'rel="next"' in link
            assert "limit=2" in path
    assert len(set(ids)) == 3
    assert "nextCursor" not in answer.json()
    everything = (await api.call("GET", "/api/keys", scope=Scope.ADMIN)).json()["keys"]
    used = {key["name"]: key.get("lastUsedAt") for key in everything}
    assert used["the read key"] == "2025-10-09T08:53:20.000Z"
    assert used["the write key"] is None


async def test_a_revoked_key_is_refused_at_once(api: Api) -> None:
    """The next request with the key is 401; the key stays in the list."""
    made = (
        await api.call(
            "POST", "/api/keys", scope=Scope.ADMIN, body={"name": "x", "scopes": ["read"]}
        )
    ).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert (await api.call("GET", "/api/instances", scope=None, headers=headers)).status_code == 200
    answer = await api.call("DELETE", f"/api/keys/{made['id']}", scope=Scope.ADMIN)
    assert answer.status_code == 200
    assert answer.json()["revokedAt"]
    assert (await api.call("GET", "/api/instances", scope=None, headers=headers)).status_code == 401
    again = await api.call("DELETE", f"/api/keys/{made['id']}", scope=Scope.ADMIN)
    assert again.status_code == 200


async def test_an_unknown_key_is_not_found(api: Api) -> None:
    """An unknown key is 404 in the envelope."""
    answer = await api.call("DELETE", "/api/keys/key_nobody", scope=Scope.ADMIN)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "KEY_NOT_FOUND"


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "cursor=%20", "cursor=nonsense", "x=1"])
async def test_a_wrong_query_is_told(api: Api, query: str) -> None:
    """Queries are validated as strictly as bodies."""
    answer = await api.call("GET", f"/api/keys?{query}", scope=Scope.ADMIN)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == query.partition("=")[0]


async def test_a_repeated_request_makes_no_second_key_and_shows_none(api: Api) -> None:
    """409 with the ID of the key, because the key itself is not stored. Another body is 422."""
    headers = {"Idempotency-Key": "once"}
    body = {"name": "ci", "scopes": ["read"]}
    first = await api.call("POST", "/api/keys", scope=Scope.ADMIN, body=body, headers=headers)
    assert first.status_code == 201
    again = await api.call("POST", "/v1/api/keys", scope=Scope.ADMIN, body=body, headers=headers)
    assert again.status_code == 409
    assert again.json()["error"]["code"] == "IDEMPOTENCY_NOT_REPLAYABLE"
    assert again.json()["error"]["details"] == {"id": first.json()["id"]}
    assert first.json()["key"] not in again.text
    other = await api.call(
        "POST", "/api/keys", scope=Scope.ADMIN, body={**body, "name": "x"}, headers=headers
    )
    assert other.status_code == 422
    listed = (await api.call("GET", "/api/keys", scope=Scope.ADMIN)).json()["keys"]
    assert len(listed) == 4


async def test_a_repeated_revocation_gets_the_same_answer(api: Api) -> None:
    """The replay is identical to the first response, and another body is rejected."""
    made = (await api.call("POST", "/api/keys", scope=Scope.ADMIN, body=NEW)).json()
    path, headers = f"/api/keys/{made['id']}", {"Idempotency-Key": "once"}
    first = await api.call("DELETE", path, scope=Scope.ADMIN, headers=headers)
    await api.clock.advance(5)
    again = await api.call("DELETE", f"/v1{path}", scope=Scope.ADMIN, headers=headers)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.content == again.content
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_a_revocation_that_found_nothing_is_not_remembered(api: Api) -> None:
    """Errors are not replayed: a retry is executed."""
    for _ in range(2):
        answer = await api.call(
            "DELETE", "/api/keys/key_0", scope=Scope.ADMIN, headers={"Idempotency-Key": "once"}
        )
        assert answer.status_code == 404
        assert "Idempotent-Replayed" not in answer.headers


async def test_a_revocation_takes_no_fields(api: Api) -> None:
    """An unknown field such as `force` is rejected, and nothing is done."""
    made = (await api.call("POST", "/api/keys", scope=Scope.ADMIN, body=NEW)).json()
    path = f"/api/keys/{made['id']}"
    answer = await api.call("DELETE", path, scope=Scope.ADMIN, body={"force": True})
    assert answer.status_code == 400
    listed = (await api.call("GET", "/api/keys", scope=Scope.ADMIN)).json()["keys"]
    assert "revokedAt" not in next(key for key in listed if key["id"] == made["id"])


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59.9999Z"])
async def test_an_expiry_that_cannot_be_written_again_is_refused(api: Api, at: str) -> None:
    """An expiry that falls in the year 10000 in UTC is rejected."""
    body = {"name": "ci", "scopes": ["read"], "expiresAt": at}
    answer = await api.call("POST", "/api/keys", scope=Scope.ADMIN, body=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == "expiresAt"
