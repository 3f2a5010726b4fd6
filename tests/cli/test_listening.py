# SPDX-License-Identifier: Apache-2.0
"""The listening socket: bound first, or refused with a message that says what to do."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from novitai.cli.listening import answer, bind, bind_near, is_loopback, url_of
from novitai.errors import StartupError


def test_a_taken_port_is_refused_with_its_number() -> None:
    """The message names the port; `bind_near` takes a free one instead."""
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"port {port} on 127.0.0.1 is in use"):
            bind("127.0.0.1", port)
        with bind_near("127.0.0.1", port) as other:
            assert other.getsockname()[1] != port


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    """The message names the address and the option."""
    with pytest.raises(StartupError, match=rf"cannot listen on {host}, port 0: .*--host"):
        bind(host, 0)


def test_the_url_is_the_one_that_is_reached() -> None:
    """The URL has the actual port, and a wildcard address does not count as loopback."""
    with bind("127.0.0.1", 0) as here, bind("0.0.0.0", 0) as everywhere:  # noqa: S104 - to be told apart
        assert url_of("127.0.0.1", here) == f"http://127.0.0.1:{here.getsockname()[1]}"
        assert url_of("::1", here).startswith("http://[::1]:")
        assert is_loopback(here)
        assert not is_loopback(everywhere)


async def test_a_request_in_hand_is_answered_before_the_end() -> None:
    """On shutdown, the server finishes running requests and accepts no new ones."""
    begun, go_on, until, ready = (asyncio.Event() for _ in range(4))

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        begun.set()
        await go_on.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    listening = bind("127.0.0.1", 0)
    url = url_of("127.0.0.1", listening)
    serving = asyncio.create_task(answer(app, listening, until, ready=ready.set))
    await ready.wait()
    async with httpx2.AsyncClient(trust_env=False) as client:
        request = asyncio.create_task(client.get(url))
        await begun.wait()
        until.set()
        while listening.fileno() >= 0:  # noqa: ASYNC110 - no event for the close
            await asyncio.sleep(0.01)
        go_on.set()
        response = await request
        assert response.status_code == 204
        assert "server" not in response.headers
        await serving
        with pytest.raises(httpx2.ConnectError):
            await client.get(url)
