# SPDX-License-Identifier: Apache-2.0
"""Calls to Novita through a proxy: HTTP, a tunnel for HTTPS, SOCKS5."""

from __future__ import annotations

import asyncio
import base64
import gc
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from novitai.testing import ManualClock
from novitai.upstream.errors import Ambiguous, ConnectionFailed, NotSent, Timeout
from novitai.upstream.models import CreateInstance
from novitai.upstream.transport import UpstreamCall
from tests.egress.certificates import certificate_for
from tests.upstream.servers import Maker, RawServer
from tests.windows import window_until

REQUEST = CreateInstance("n", "p", 1, 10, "i")
_A_CALL = UpstreamCall("GET", "/clusters")
BASIC = "Basic " + base64.b64encode(b"me:s@cret").decode()


@dataclass
class Proxy:
    """A proxy that forwards everything to one port, and the requests it got."""

    port: int = 0
    refuses: bytes | None = None
    heads: list[str] = field(default_factory=list)
    socks: list[tuple[str, int]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy bytes until the end of the stream."""
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def tunnel(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, head: bytes = b""
) -> None:
    """Connect both sides, after forwarding the bytes already read."""
    there, back = await asyncio.open_connection("127.0.0.1", port)
    back.write(head)
    await asyncio.gather(pump(reader, back), pump(there, writer))


@asynccontextmanager
async def proxying(to_port: int) -> AsyncIterator[Proxy]:
    """Run an HTTP and SOCKS5 proxy that forwards every request to this port."""
    proxy = Proxy()

    async def socks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        methods = await reader.readexactly((await reader.readexactly(1))[0])
        if 2 in methods:
            writer.write(b"\x05\x02")
            await reader.readexactly(1)
            user = await reader.readexactly((await reader.readexactly(1))[0])
            word = await reader.readexactly((await reader.readexactly(1))[0])
            proxy.heads.append(f"{user.decode()}:{word.decode()}")
            writer.write(b"\x01\x00")
        else:
            writer.write(b"\x05\x00")
        head = await reader.readexactly(4)
        if head[3] == 3:
            name = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            name = ".".join(map(str, await reader.readexactly(4)))
        proxy.socks.append((name, int.from_bytes(await reader.readexactly(2))))
        writer.write(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
        await tunnel(reader, writer, to_port)

    async def http(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes
    ) -> None:
        head = first + await reader.readuntil(b"\r\n\r\n")
        proxy.heads.append(head.decode())
        proxy.asked.set()
        if proxy.refuses is not None:
            writer.write(proxy.refuses)
        elif head.startswith(b"CONNECT "):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await tunnel(reader, writer, to_port)
        else:
            await tunnel(reader, writer, to_port, head)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            first = await reader.readexactly(1)
            if first == b"\x05" and proxy.refuses is None:
                await socks(reader, writer)
            elif first == b"\x05":
                writer.write(proxy.refuses or b"")
            else:
                await http(reader, writer, first)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    yield proxy
    server.close()


@asynccontextmanager
async def over_tls(raw: RawServer, folder: Path) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """Serve the raw server over TLS as `api.novita.example`; yield its port and certificate."""
    authority, side = certificate_for("api.novita.example", folder)
    server = await asyncio.start_server(raw.handle, "127.0.0.1", 0, ssl=side)
    yield server.sockets[0].getsockname()[1], ssl.create_default_context(cafile=str(authority))
    server.close()


def port_of(raw: RawServer) -> int:
    """Return the port of the raw server."""
    return int(raw.url.rpartition(":")[2])


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_calls_go_through_the_proxy_and_nowhere_else(
    raw: RawServer, make: Maker, scheme: str
) -> None:
    """The proxy resolves upstream's name, and only the proxy gets the credentials."""
    raw.reply(body={"data": []})
    async with proxying(port_of(raw)) as proxy:
        client = make.at(
            "http://api.novita.example:81", proxy=f"{scheme}://me:s%40cret@127.0.0.1:{proxy.port}"
        )
        assert await client.clusters() == []
        if scheme == "http":
            assert proxy.heads[0].startswith("GET http://api.novita.example:81/gpu-instance/")
            assert f"Proxy-Authorization: {BASIC}\r\n" in proxy.heads[0]
        else:
            assert proxy.heads == ["me:s@cret"]
            assert proxy.socks == [("api.novita.example", 81)]
        assert raw.received[0].headers["host"] == "api.novita.example:81"
        await make.aclose()


async def test_https_goes_through_a_tunnel(raw: RawServer, make: Maker, tmp_path: Path) -> None:
    """The proxy sees only host and port; TLS and the key end at upstream."""
    raw.reply(body={"data": []})
    async with over_tls(raw, tmp_path) as (port, tls), proxying(port) as proxy:
        url = f"http://me:s%40cret@127.0.0.1:{proxy.port}"
        client = make.at("https://api.novita.example", proxy=url, tls=tls)
        assert await client.clusters() == []
        assert await client.clusters() == []
        [head] = proxy.heads
        assert head.startswith("CONNECT api.novita.example:443 HTTP/1.1\r\n")
        assert "Authorization: Bearer" not in head
        assert "proxy-authorization" not in raw.received[0].headers
        await make.aclose()


async def test_the_last_say_before_a_create_comes_after_the_tunnel(
    raw: RawServer, make: Maker, clock: ManualClock, tmp_path: Path
) -> None:
    """The window is checked after the tunnel is open, just before the create is sent."""
    raw.reply(body={"id": "up-1"})
    async with over_tls(raw, tmp_path) as (port, tls), proxying(port) as proxy:
        client = make.at(
            "https://api.novita.example", proxy=f"http://127.0.0.1:{proxy.port}", tls=tls
        )
        permit = await client.permit_create()
        sending = asyncio.create_task(
            client.create(REQUEST, permit=permit, window=window_until(clock.now() + 1000))
        )
        await proxy.asked.wait()
        await clock.advance(2)
        with pytest.raises(NotSent) as caught:
            await sending
        assert caught.value.reason == "CLAIM_ENDED"
        assert not raw.received
        await make.aclose()


REFUSALS = [
    b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
    b"gibberish\r\n\r\n",
    b"",
]


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize(("scheme", "url"), [("http", "https"), ("socks5", "http")])
async def test_what_a_proxy_refused_was_certainly_not_sent(
    make: Maker, clock: ManualClock, refusal: bytes, scheme: str, url: str
) -> None:
    """If the proxy refuses, nothing was sent, and the error shows no credentials."""
    async with proxying(1) as proxy:
        proxy.refuses = refusal
        client = make.at(
            f"{url}://api.novita.example", proxy=f"{scheme}://me:s%40cret@127.0.0.1:{proxy.port}"
        )
        permit = await client.permit_create()
        with pytest.raises(NotSent) as caught:
            await client.create(REQUEST, permit=permit, window=window_until(clock.now() + 1000))
        assert "cret" not in str(caught.value)
        await make.aclose()


async def test_a_proxy_that_wants_credentials_for_plain_http(
    make: Maker, clock: ManualClock
) -> None:
    """A 407 of the proxy does not count as a refusal of Novita."""
    async with proxying(1) as proxy:
        proxy.refuses = REFUSALS[0]
        client = make.at("http://api.novita.example", proxy=f"http://127.0.0.1:{proxy.port}")
        permit = await client.permit_create()
        with pytest.raises(NotSent, match="credentials"):
            await client.create(REQUEST, permit=permit, window=window_until(clock.now() + 1000))
        await make.aclose()


async def test_a_connection_that_breaks_behind_the_tunnel_says_nothing(
    raw: RawServer, make: Maker, clock: ManualClock, tmp_path: Path
) -> None:
    """A create whose connection breaks behind the tunnel is ambiguous."""
    raw.reset()
    async with over_tls(raw, tmp_path) as (port, tls), proxying(port) as proxy:
        client = make.at(
            "https://api.novita.example", proxy=f"http://127.0.0.1:{proxy.port}", tls=tls
        )
        permit = await client.permit_create()
        with pytest.raises(Ambiguous):
            await client.create(REQUEST, permit=permit, window=window_until(clock.now() + 1000))
        await make.aclose()


async def test_no_proxy_listens(make: Maker) -> None:
    """An unreachable proxy has another message than an unreachable upstream."""
    client = make.at("http://api.novita.example", proxy="http://127.0.0.1:1", timeout=1)
    with pytest.raises(ConnectionFailed, match="through the proxy"):
        await client._gateway._transport.send(_A_CALL)


@pytest.mark.parametrize("proxy_scheme", [None, "http", "socks5"])
async def test_a_handshake_that_never_ends_leaves_no_connection_open(
    make: Maker, proxy_scheme: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a peer accepts and never answers, the connection is closed explicitly."""
    monkeypatch.setattr("novitai.upstream.transport._CONNECT_SHARE", 1.0)
    gc.disable()
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        place = f"127.0.0.1:{port}"
        proxy = proxy_scheme and f"{proxy_scheme}://{place}"
        client = make.at(f"https://{place}", timeout=0.4, proxy=proxy)
        with pytest.raises((ConnectionFailed, Timeout)):
            await client._gateway._transport.send(_A_CALL)
        try:
            await asyncio.wait_for(gone.wait(), 5)
        finally:
            gc.enable()
