# SPDX-License-Identifier: Apache-2.0
"""Tests of authentication and scopes."""

from __future__ import annotations

import asyncio
import random

import pytest

from novitai.domain.api_key import KeyRequest, Scope, make_key
from novitai.domain.instance import InstanceStatus
from novitai.ids import Ids
from tests.api.application import CREATE, Api, ApiFactory
from tests.api.client import ApiProcess
from tests.api.wire import serving

# The same in every process that collects these tests.
UNKNOWN = make_key(Ids(random.Random(1)))

ROUTES = [
    ("GET", "/api/instances", Scope.READ),
    ("GET", "/api/instances/inst_1", Scope.READ),
    ("POST", "/api/instances", Scope.WRITE),
    ("GET", "/api/keys", Scope.ADMIN),
    ("POST", "/api/keys", Scope.ADMIN),
    ("DELETE", "/api/keys/key_1", Scope.ADMIN),
]


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        UNKNOWN,
        f"Token {UNKNOWN}",
        f"Bearer {UNKNOWN}",
        f"Bearer {UNKNOWN} x",
        "Bearer secret",
    ],
)
async def test_without_a_good_key_there_is_nothing(api: Api, header: str | None) -> None:
    """Missing, malformed and unknown keys get the same 401."""
    headers = {} if header is None else {"Authorization": header}
    answer = await api.call("GET", "/api/instances", scope=None, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert (error["code"], error["category"]) == ("UNAUTHORIZED", "AUTHENTICATION_ERROR")
    assert "details" not in error


async def test_two_keys_at_once_are_none(api: Api) -> None:
    """Two `Authorization` headers are 401, because the caller would be ambiguous."""
    headers = [("Authorization", value) for value in api.bearer().values()] * 2
    assert (await api.client.get("/api/instances", headers=headers)).status_code == 401


async def test_the_scheme_is_read_in_any_case(api: Api) -> None:
    """The scheme's letter case does not matter (RFC 9110)."""
    headers = {"Authorization": f"bEARER  {api.keys[Scope.READ]}"}
    answer = await api.call("GET", "/api/instances", scope=None, headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize(("method", "path", "needed"), ROUTES)
@pytest.mark.parametrize("held", list(Scope))
async def test_each_route_insists_on_its_scope(
    api: Api, method: str, path: str, needed: Scope, held: Scope
) -> None:
    """A smaller scope is 403 and the error names the missing scope; a larger scope is accepted."""
    answer = await api.call(method, path, scope=held)
    if held.rank >= needed.rank:
        assert answer.status_code not in {401, 403}
        return
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert (error["code"], error["category"]) == ("FORBIDDEN", "AUTHORIZATION_ERROR")
    assert needed.value in error["message"]
    assert error["details"] == {"missingScope": needed.value}


@pytest.mark.parametrize(
    "path", ["/health", "/health/live", "/health/ready", "/openapi.json", "/docs"]
)
async def test_what_needs_no_key(api: Api, path: str) -> None:
    """Health, the OpenAPI document and its page need no key."""
    assert (await api.call("GET", path, scope=None)).status_code == 200


async def test_revoked_and_expired_keys_are_refused(api: Api) -> None:
    """A revoked key is refused at once, an expired one to the millisecond."""
    expiring = await api.services.keys.create(
        KeyRequest("brief", frozenset({Scope.READ}), api.clock.now() + 1000)
    )
    headers = {"Authorization": f"Bearer {expiring.text}"}
    answer = await api.call("GET", "/api/instances", scope=None, headers=headers)
    assert answer.status_code == 200
    await api.clock.advance(1)
    answer = await api.call("GET", "/api/instances", scope=None, headers=headers)
    assert answer.status_code == 401


async def test_the_settings_key_may_do_everything(factory: ApiFactory) -> None:
    """NOVITAI_ADMIN_API_KEY is an admin key and may have any form."""
    api = await factory.make(admin_api_key="correct-horse-battery-staple")
    headers = {"Authorization": "Bearer correct-horse-battery-staple"}
    made = await api.call("POST", "/api/instances", scope=None, body=CREATE, headers=headers)
    listed = await api.call("GET", "/api/keys", scope=None, headers=headers)
    assert (made.status_code, listed.status_code) == (201, 200)


async def test_a_refused_caller_is_not_read(api: Api) -> None:
    """The body of an unauthenticated request is not read."""
    answer = await api.call("POST", "/api/instances", scope=None, content=b"{")
    assert answer.status_code == 401


async def revoke(api_process: ApiProcess, scope: Scope) -> None:
    """Revoke the key of a scope, with another one."""
    keys = (await api_process.app.keys.page()).keys
    await api_process.app.keys.revoke(next(key.id for key in keys if key.scopes == {scope}))


async def test_a_body_that_comes_after_the_revocation_changes_nothing(
    api_process: ApiProcess,
) -> None:
    """Who holds back the end of a request cannot make a new key with a revoked one."""
    body = b'{"name":"made too late","scopes":["admin"]}'
    async with serving(api_process.gateway) as server:
        wire = await server.connect()
        head = (
            "POST /api/keys HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {api_process.keys[Scope.ADMIN]}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        await wire.send(head.encode() + body[:5])
        while not api_process.app.keys._remembered:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        await revoke(api_process, Scope.ADMIN)
        await api_process.clock.advance(1)
        await wire.send(body[5:])
        answer = await wire.reader.readuntil(b"\r\n")
        assert answer.startswith(b"HTTP/1.1 401 ")
    assert "made too late" not in {key.name for key in (await api_process.app.keys.page()).keys}


async def test_a_wait_shows_nothing_after_the_revocation(api_process: ApiProcess) -> None:
    """A request that waited is answered as one that comes now."""
    instance_id = await api_process.have(InstanceStatus.STARTING)
    path = f"/api/instances/{instance_id}/wait?timeout=5"
    waiting = asyncio.ensure_future(api_process.call("GET", path, scope=Scope.READ))
    with pytest.raises(AssertionError, match="not within"):
        await api_process.through(asyncio.shield(waiting), within=2)
    await revoke(api_process, Scope.READ)
    answer = await api_process.through(waiting, within=5)
    assert answer.status_code == 401
    assert instance_id not in answer.text
