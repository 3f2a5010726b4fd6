# SPDX-License-Identifier: Apache-2.0
"""An instance is ready when every port that was asked for answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from novitai.domain.instance import (
    Instance,
    InstanceStatus,
    LaunchSpec,
    Observed,
    Port,
    PortMapping,
    PortType,
    Tool,
)
from novitai.lifecycle.readiness import Prober
from tests.domain.making import an_instance

HTTP, TCP = PortType.HTTP, PortType.TCP

PLAIN = an_instance(InstanceStatus.STARTING)


def published(*mappings: tuple[int, str, PortType]) -> Instance:
    """An instance with these port mappings."""
    found = tuple(PortMapping(port, where, kind.value) for port, where, kind in mappings)
    return replace(PLAIN, observed=Observed(port_mappings=found))


@pytest.fixture
async def prober() -> AsyncIterator[Prober]:
    """A prober on the real network, which here is the loopback."""
    made = Prober()
    yield made
    await made.aclose()


class Service:
    """Answers every connection with a fixed answer, or with silence."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    async def __aenter__(self) -> int:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(self.answer)
        writer.close()

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()


def status(code: int) -> bytes:
    """An HTTP answer."""
    return f"HTTP/1.1 {code} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


async def silent(prober: Prober, instance: Instance, ports: Sequence[Port]) -> list[int]:
    """Probe, and list the ports that do not answer."""
    found = await prober.not_ready(instance, LaunchSpec("image", ports=tuple(ports)))
    return [port.port for port in found]


@pytest.mark.parametrize("code", [200, 204, 301, 401, 403, 404, 500, 501])
async def test_any_answer_but_the_gateways_means_alive(prober: Prober, code: int) -> None:
    """A Jupyter behind a password answers 401 and is ready."""
    async with Service(status(code)) as port:
        instance = published((80, f"http://127.0.0.1:{port}/", HTTP))
        assert await silent(prober, instance, [Port(80, HTTP)]) == []


@pytest.mark.parametrize("code", [502, 503, 504])
async def test_the_gateways_own_answers_mean_not_yet(prober: Prober, code: int) -> None:
    """Nobody is behind it."""
    async with Service(status(code)) as port:
        instance = published((80, f"http://127.0.0.1:{port}/", HTTP))
        assert await silent(prober, instance, [Port(80, HTTP)]) == [80]


async def test_a_tcp_port_is_alive_when_it_accepts(prober: Prober) -> None:
    """Nothing is sent."""
    async with Service(b"") as port:
        instance = published((22, f"127.0.0.1:{port}", TCP))
        assert await silent(prober, instance, [Port(22, TCP)]) == []
    assert await silent(prober, instance, [Port(22, TCP)]) == [22]


@pytest.mark.parametrize(
    "endpoint", ["", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:99999", ":1", "::"]
)
async def test_an_endpoint_that_means_nothing_is_not_ready(prober: Prober, endpoint: str) -> None:
    """Never a crash."""
    instance = published((22, endpoint, TCP))
    assert await silent(prober, instance, [Port(22, TCP)]) == [22]


@pytest.mark.parametrize("endpoint", ["http://", "http://[::", "https://127.0.0.1:1/", "http://\n"])
async def test_a_url_that_leads_nowhere_is_not_ready(prober: Prober, endpoint: str) -> None:
    """Never a crash."""
    instance = published((80, endpoint, HTTP))
    assert await silent(prober, instance, [Port(80, HTTP)]) == [80]


async def test_a_port_that_is_not_mapped_yet_is_not_ready(prober: Prober) -> None:
    """Mappings may be empty until `running`, and incomplete after."""
    assert await silent(prober, PLAIN, [Port(80, HTTP), Port(22, TCP)]) == [80, 22]


async def test_without_ports_it_is_ready_at_once(prober: Prober) -> None:
    """Nothing has to answer."""
    assert await silent(prober, PLAIN, []) == []


async def test_tools_are_watched_like_ports(prober: Prober) -> None:
    """A Jupyter that was asked for has to answer."""
    spec = LaunchSpec("image", tools=(Tool("Jupyter", 8888, HTTP),))
    [port] = await prober.not_ready(PLAIN, spec)
    assert port == Port(8888, HTTP)


async def test_a_redirect_is_not_followed(prober: Prober) -> None:
    """An answer is an answer, and nobody leads us elsewhere."""
    moved = b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with Service(moved) as port:
        instance = published((80, f"http://127.0.0.1:{port}/", HTTP))
        assert await silent(prober, instance, [Port(80, HTTP)]) == []
