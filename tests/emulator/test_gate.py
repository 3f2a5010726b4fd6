# SPDX-License-Identifier: Apache-2.0
"""Authentication, and the form of requests."""

from __future__ import annotations

import httpx2
import pytest

from novitai.emulator import EmulatorConfig, create_app
from tests.emulator.client import Client

UNAUTHORIZED = {"code": 401, "reason": "UNAUTHORIZED", "message": "unauthorized", "metadata": {}}


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer  ", "Basic abc"])
async def test_without_a_bearer_key_nobody_gets_in(client: Client, header: str) -> None:
    """The API answers 401 without a key; the control API needs no key."""
    response = await client.raw("GET", "/clusters", headers={"Authorization": header})
    assert response.status_code == 401
    assert response.json() == UNAUTHORIZED
    assert (await client.http.get("/_emulator/", headers={"Authorization": header})).is_success


async def test_a_named_key_is_the_only_one() -> None:
    """If `api_key` is set, every other key is refused."""
    app = create_app(EmulatorConfig(api_key="the-one"))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://e") as http:
        for key, status in (("the-one", 200), ("another", 401)):
            response = await http.get(
                "/gpu-instance/openapi/v1/clusters", headers={"Authorization": f"Bearer {key}"}
            )
            assert response.status_code == status


async def test_no_content_type_is_needed(client: Client) -> None:
    """A body without a content type is read as JSON."""
    response = await client.raw("POST", "/repository/auth/delete", content=b'{"id": "nobody"}')
    assert response.json()["reason"] == "RESOURCE_NOT_FOUND"


@pytest.mark.parametrize("content", [b"[]", b"not json", b'"text"'])
async def test_a_body_that_is_no_object_is_refused(client: Client, content: bytes) -> None:
    """A body that is not a JSON object is refused with VALIDATOR_PARAM."""
    response = await client.raw("POST", "/gpu/instance/create", content=content)
    assert response.status_code == 400
    assert response.json()["reason"] == "VALIDATOR_PARAM"


@pytest.mark.parametrize("path", ["/gpu/instance/list", "/gpu/instance/get", "/endpoint/list"])
async def test_paths_that_do_not_exist_upstream_do_not_exist_here(
    client: Client, path: str
) -> None:
    """Paths that only third-party notes mention are a 404 with the router's text."""
    response = await client.raw("GET", path)
    assert (response.status_code, response.text) == (404, "404 page not found\n")
