# SPDX-License-Identifier: Apache-2.0
"""Tests of the cache routes."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from novitai.api.schemas.caches import CacheDetails, CachesResponse
from novitai.domain.api_key import Scope
from tests.api.application import Api


@pytest.fixture
async def filled(api: Api) -> Api:
    """Return an application with two filled caches: one hit, one miss, one eviction."""
    templates = api.services.caches.named("templates")
    for key in ("a", "b/c", "d"):
        templates.put(key, object())
    templates.peek("d")
    templates.peek("a")
    await api.clock.advance(10)
    api.services.caches.named("products").put("p", object())
    return api


async def test_all_caches_are_shown_together(filled: Api) -> None:
    """The response has the statistics of each cache by name, and their totals."""
    answer = await filled.call("GET", "/v1/api/cache/stats", scope=Scope.READ)
    TypeAdapter(CachesResponse).validate_python(answer.json())
    body = answer.json()
    assert body["caches"]["templates"] == {
        "hits": 1,
        "misses": 1,
        "hitRatio": 0.5,
        "size": 2,
        "maxSize": 2,
        "ttlSeconds": 60,
        "evictions": 1,
        "expired": 0,
    }
    assert body["summary"] == {
        "totalCaches": 2,
        "totalEntries": 3,
        "totalHits": 1,
        "totalMisses": 1,
        "overallHitRatio": 0.5,
    }


async def test_one_cache_is_shown_with_its_keys(filled: Api) -> None:
    """Each key has its age and remaining lifetime."""
    answer = await filled.call("GET", "/api/cache/templates/stats", scope=Scope.READ)
    TypeAdapter(CacheDetails).validate_python(answer.json())
    body = answer.json()
    assert (body["cacheName"], body["size"]) == ("templates", 2)
    assert {"key": "d", "ageSeconds": 10, "timeLeftSeconds": 50} in body["keys"]


async def test_all_caches_are_cleared(filled: Api) -> None:
    """Without a name, with or without a body, all are cleared, with the reference's message."""
    answer = await filled.call("POST", "/api/cache/clear", scope=Scope.ADMIN)
    assert answer.json() == {
        "message": "All caches cleared successfully",
        "timestamp": "2025-10-09T08:53:30.000Z",
        "entriesRemoved": 3,
    }
    again = await filled.call("POST", "/api/cache/clear", scope=Scope.ADMIN, body={})
    assert again.json()["entriesRemoved"] == 0


async def test_one_cache_is_cleared(filled: Api) -> None:
    """The other caches keep their entries."""
    answer = await filled.call(
        "POST", "/api/cache/clear", scope=Scope.ADMIN, body={"cacheName": "templates"}
    )
    assert answer.json()["message"] == "Cache 'templates' cleared successfully"
    assert answer.json()["entriesRemoved"] == 2
    assert filled.services.caches.named("products").stats().size == 1


async def test_expired_entries_are_cleaned_up(filled: Api) -> None:
    """Only expired entries are removed and counted."""
    await filled.clock.advance(50)
    answer = await filled.call("POST", "/api/cache/cleanup", scope=Scope.ADMIN)
    assert answer.json()["message"] == "Expired entries cleaned up"
    assert answer.json()["entriesRemoved"] == 3
    filled.services.caches.named("products").put("q", object())
    again = await filled.call("POST", "/api/cache/cleanup", scope=Scope.ADMIN)
    assert again.json()["entriesRemoved"] == 0


@pytest.mark.parametrize("path", ["d", "b/c", "b%2Fc"])
async def test_one_key_is_deleted(filled: Api, path: str) -> None:
    """The message is the API reference's; a key may contain slashes."""
    answer = await filled.call("DELETE", f"/api/cache/templates/{path}", scope=Scope.ADMIN)
    key = path.replace("%2F", "/")
    assert answer.json()["message"] == f"Key '{key}' deleted from cache 'templates'"
    assert ("DELETE", "/api/cache/{cacheName}/{key}") in filled.services.requests.routes
    gone = await filled.call("DELETE", f"/api/cache/templates/{path}", scope=Scope.ADMIN)
    assert gone.status_code == 404
    assert gone.json()["error"]["code"] == "CACHE_KEY_NOT_FOUND"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/cache/nothing/stats", None),
        ("DELETE", "/api/cache/nothing/a", None),
        ("POST", "/api/cache/clear", {"cacheName": "nothing"}),
    ],
)
async def test_an_unknown_cache_is_told(filled: Api, method: str, path: str, body: object) -> None:
    """The response is 404 `CACHE_NOT_FOUND`, and nothing is removed."""
    answer = await filled.call(method, path, scope=Scope.ADMIN, body=body)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "CACHE_NOT_FOUND"
    assert filled.services.caches.named("templates").stats().size == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/cache/clear", {"cacheName": None}),
        ("/api/cache/clear", {"cacheName": ""}),
        ("/api/cache/clear", {"name": "templates"}),
        ("/api/cache/cleanup", {"cacheName": "templates"}),
    ],
)
async def test_a_wrong_body_clears_nothing(filled: Api, path: str, body: object) -> None:
    """An invalid body clears nothing."""
    answer = await filled.call("POST", path, scope=Scope.ADMIN, body=body)
    assert answer.status_code == 400
    assert filled.services.caches.named("templates").stats().size == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/cache/clear"),
        ("POST", "/api/cache/cleanup"),
        ("DELETE", "/api/cache/templates/d"),
    ],
)
async def test_only_an_admin_changes_caches(filled: Api, method: str, path: str) -> None:
    """Reading needs the scope `read`, clearing needs `admin`."""
    assert (await filled.call(method, path, scope=Scope.WRITE)).status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/cache/clear", None),
        ("POST", "/api/cache/clear", {"cacheName": "templates"}),
        ("POST", "/api/cache/cleanup", None),
        ("DELETE", "/api/cache/templates/d", None),
    ],
)
async def test_a_repeated_change_is_made_once(
    filled: Api, method: str, path: str, body: object
) -> None:
    """A replay with the same `Idempotency-Key` does not remove entries that were added since."""
    headers = {"Idempotency-Key": "once"}
    await filled.clock.advance(3600)
    first = await filled.call(method, path, scope=Scope.ADMIN, body=body, headers=headers)
    assert first.status_code == 200, first.text
    templates = filled.services.caches.named("templates")
    templates.clear()
    templates.put("d", "new")
    again = await filled.call(method, path, scope=Scope.ADMIN, body=body, headers=headers)
    assert (again.content, again.headers["Idempotent-Replayed"]) == (first.content, "true")
    assert templates.peek("d") == "new"


async def test_another_body_with_the_same_key_is_refused(filled: Api) -> None:
    """The response is 422, and nothing is cleared."""
    headers = {"Idempotency-Key": "once"}
    path = "/api/cache/clear"
    await filled.call("POST", path, scope=Scope.ADMIN, headers=headers)
    filled.services.caches.named("templates").put("b", "new")
    answer = await filled.call(
        "POST", path, scope=Scope.ADMIN, headers=headers, body={"cacheName": "templates"}
    )
    assert answer.status_code == 422
    assert filled.services.caches.named("templates").peek("b") == "new"


async def test_an_unknown_key_is_no_answer_to_remember(filled: Api) -> None:
    """A 404 is not stored for its `Idempotency-Key`: the next request is executed."""
    path, headers = "/api/cache/templates/later", {"Idempotency-Key": "once"}
    before = await filled.call("DELETE", path, scope=Scope.ADMIN, headers=headers)
    filled.services.caches.named("templates").put("later", "x")
    after = await filled.call("DELETE", path, scope=Scope.ADMIN, headers=headers)
    assert (before.status_code, after.status_code) == (404, 200)


@pytest.mark.parametrize("path", ["/api/cache/cleanup", "/api/cache/clear"])
async def test_fields_that_nobody_reads_are_refused(filled: Api, path: str) -> None:
    """A misspelt `cacheName` must not clear all caches."""
    answer = await filled.call("POST", path, scope=Scope.ADMIN, body={"cachename": "templates"})
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == "cachename"
