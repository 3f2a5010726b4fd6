# SPDX-License-Identifier: Apache-2.0
"""Promises that only a real server over a real socket can break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
import uvicorn

from novitai.api.body import MAX_BODY
from tests.api.conftest import CREATE, Api


@asynccontextmanager
async def served(api: Api) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve the application on a free port."""
    config = uvicorn.Config(
        api.gateway, port=0, log_config=None, lifespan="on", proxy_headers=False, ws="none"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield client
    server.should_exit = True
    await serving


@pytest.mark.parametrize("size", [MAX_BODY + 1, 5 * MAX_BODY])
async def test_a_client_that_sends_too_much_is_told_so(api: Api, size: int) -> None:
    """413 reaches a client that is still sending, declared or not, and not a reset."""

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(0, size, 65_536):
            yield b"x" * 65_536

    headers = {**api.bearer(), "Content-Type": "application/json"}
    async with served(api) as client:
        declared = await client.post("/api/instances", content=b"x" * size, headers=headers)
        streamed = await client.post("/api/instances", content=stream(), headers=headers)
        assert (declared.status_code, streamed.status_code) == (413, 413)
        after = await client.post("/api/instances", json=CREATE, headers=headers)
        assert after.status_code == 201


async def test_head_and_304_keep_the_connection_in_step(api: Api) -> None:
    """An answer without a body does not confuse the next one on the same connection."""
    api.instances.views["inst_1"] = {"id": "inst_1"}
    async with served(api) as client:
        for _ in range(2):
            headed = await client.head("/api/instances/inst_1", headers=api.bearer())
            assert (headed.status_code, headed.content) == (200, b"")
            tag = {"If-None-Match": headed.headers["ETag"]}
            fresh = await client.get("/api/instances/inst_1", headers={**api.bearer(), **tag})
            assert (fresh.status_code, fresh.content) == (304, b"")
            whole = await client.get("/api/instances/inst_1", headers=api.bearer())
            assert whole.json() == {"id": "inst_1"}
