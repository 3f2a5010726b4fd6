# SPDX-License-Identifier: Apache-2.0
"""An instance is ready when every watched port answers."""

from __future__ import annotations

import asyncio
import gc
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address

import pytest

from novitai.domain.addresses import Address, Reach
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
from novitai.egress.guard import EndpointGuard, UpstreamReach
from novitai.egress.resolving import Resolver
from novitai.egress.wire import Wire
from novitai.lifecycle.operations.probes import Places, Prober, Silence
from novitai.testing import ManualClock, an_instance

HTTP, TCP = PortType.HTTP, PortType.TCP

TLS = ssl.create_default_context()

PLAIN = an_instance(InstanceStatus.STARTING)


def published(*mappings: tuple[int, str, PortType]) -> Instance:
    """Return an instance with these port mappings."""
    found = tuple(PortMapping(port, where, kind.value) for port, where, kind in mappings)
    return replace(PLAIN, observed=Observed(port_mappings=found))


async def private() -> Reach:
    """Return the reach of probes for an upstream on this machine."""
    return Reach.PRIVATE


async def public() -> Reach:
    """Return the reach of probes for an upstream on the public internet."""
    return Reach.PUBLIC


async def at_home(_name: str, _port: int) -> Sequence[Address]:
    """Resolve every name to this machine."""
    return [ip_address("127.0.0.1")]


def a_prober(
    reach: Callable[[], Awaitable[Reach]] = private,
    *,
    resolve: Resolver = at_home,
    deadline: float = 3.0,
    quick: float = 0.05,
    places: Places | None = None,
    tls: ssl.SSLContext | None = None,
) -> Prober:
    """Return a prober on the real network, which is the loopback here."""
    guard = EndpointGuard(reach, resolve)
    return Prober(guard, Wire(tls or TLS), deadline=deadline, quick=quick, places=places)


@pytest.fixture
async def prober() -> AsyncIterator[Prober]:
    """Return a prober with an upstream on this machine."""
    made = a_prober()
    yield made
    await made.aclose()


class Service:
    """Answers every connection with a fixed answer, or never answers."""

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
    """Return an HTTP answer."""
    return f"HTTP/1.1 {code} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


async def silent(prober: Prober, instance: Instance, ports: Sequence[Port]) -> list[int]:
    """Probe, and return the ports that do not answer."""
    found = await prober.not_ready(instance, LaunchSpec("image", ports=tuple(ports)))
    return [silence.port.port for silence in found]


@pytest.mark.parametrize("code", [200, 204, 301, 401, 403, 404, 500, 501])
async def test_any_answer_but_the_gateways_means_alive(prober: Prober, code: int) -> None:
    """Any other status means alive, such as 401 of a protected Jupyter."""
    async with Service(status(code)) as port:
        instance = published((80, f"http://127.0.0.1:{port}/", HTTP))
        assert await silent(prober, instance, [Port(80, HTTP)]) == []


@pytest.mark.parametrize("code", [502, 503, 504])
async def test_the_gateways_own_answers_mean_not_yet(prober: Prober, code: int) -> None:
    """502, 503 and 504 mean that the service is down."""
    async with Service(status(code)) as port:
        instance = published((80, f"http://127.0.0.1:{port}/", HTTP))
        assert await silent(prober, instance, [Port(80, HTTP)]) == [80]


async def test_a_tcp_port_is_alive_when_it_accepts(prober: Prober) -> None:
    """An accepted connection is enough; no data is sent."""
    async with Service(b"") as port:
        instance = published((22, f"127.0.0.1:{port}", TCP))
        assert await silent(prober, instance, [Port(22, TCP)]) == []
    assert await silent(prober, instance, [Port(22, TCP)]) == [22]


@pytest.mark.parametrize(
    "endpoint", ["", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:99999", ":1", "::"]
)
async def test_an_endpoint_that_means_nothing_is_not_ready(prober: Prober, endpoint: str) -> None:
    """A malformed endpoint is not ready, and raises nothing."""
    instance = published((22, endpoint, TCP))
    assert await silent(prober, instance, [Port(22, TCP)]) == [22]


@pytest.mark.parametrize("endpoint", ["http://", "http://[::", "https://127.0.0.1:1/", "http://\n"])
async def test_a_url_that_leads_nowhere_is_not_ready(prober: Prober, endpoint: str) -> None:
    """An invalid URL is not ready, and raises nothing."""
    instance = published((80, endpoint, HTTP))
    assert await silent(prober, instance, [Port(80, HTTP)]) == [80]


async def test_a_port_that_is_not_mapped_yet_is_not_ready(prober: Prober) -> None:
    """A port without a mapping is not ready."""
    assert await silent(prober, PLAIN, [Port(80, HTTP), Port(22, TCP)]) == [80, 22]


async def test_without_ports_it_is_ready_at_once(prober: Prober) -> None:
    """Without watched ports the instance is ready."""
    assert await silent(prober, PLAIN, []) == []


async def test_tools_are_watched_like_ports(prober: Prober) -> None:
    """The port of a requested Jupyter must answer."""
    spec = LaunchSpec("image", tools=(Tool("Jupyter", 8888, HTTP),))
    [silence] = await prober.not_ready(PLAIN, spec)
    assert silence == Silence(Port(8888, HTTP), "not mapped yet")


@pytest.mark.parametrize("mapped", [(), ((8888, "", HTTP),)], ids=["unmapped", "without a place"])
async def test_jupyter_is_probed_at_its_own_address(
    prober: Prober, mapped: tuple[tuple[int, str, PortType], ...]
) -> None:
    """Jupyter is probed at its separate address if its port is not mapped."""
    spec = LaunchSpec("image", tools=(Tool("Jupyter", 8888, HTTP), Tool("Other", 9999, HTTP)))
    instance = published(*mapped)
    for code, missing in ((401, [9999]), (502, [8888, 9999])):
        async with Service(status(code)) as port:
            seen = replace(instance.observed, jupyter=f"http://127.0.0.1:{port}/lab")
            silences = await prober.not_ready(replace(instance, observed=seen), spec)
        assert [one.port.port for one in silences] == missing


async def test_a_redirect_is_not_followed(prober: Prober) -> None:
    """A redirect counts as an answer and is not followed."""
    moved = b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with Service(moved) as port:
        instance = published((80, f"http://127.0.0.1:{port}/", HTTP))
        assert await silent(prober, instance, [Port(80, HTTP)]) == []


@dataclass
class Peer:
    """A peer that delays its callers, and a record of its connections."""

    port: int = 0
    heads: list[str] = field(default_factory=list)
    present: int = 0
    most: int = 0


class Hanging:
    """A resolver that never answers, and counts its calls."""

    def __init__(self) -> None:
        self.asked = self.present = self.most = 0

    async def __call__(self, _name: str, _port: int) -> Sequence[Address]:
        """Hang until the caller gives up."""
        self.asked += 1
        self.present += 1
        self.most = max(self.most, self.present)
        try:
            await asyncio.Event().wait()
        finally:
            self.present -= 1
        raise AssertionError


@asynccontextmanager
async def dripping(every: float = 0.02, *, ever: bool = True) -> AsyncIterator[Peer]:
    """Send one header line after another without end, or send nothing."""
    peer = Peer()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        peer.present += 1
        peer.most = max(peer.most, peer.present)
        try:
            peer.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(b"HTTP/1.1 200 OK\r\n" if ever else b"")
            while not reader.at_eof():
                writer.write(b"X-Again: and again\r\n" if ever else b"")
                await writer.drain()
                await asyncio.sleep(every)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            peer.present -= 1
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Disable the garbage collector, so that it does not close leaked sockets."""
    gc.disable()
    yield
    gc.enable()


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for an event on another connection."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def test_a_probe_ends_at_its_deadline_whatever_the_peer_sends() -> None:
    """Slow header lines do not extend a probe; its connection is closed."""
    prober = a_prober(deadline=0.3)
    async with dripping() as peer:
        instance = published((80, f"http://127.0.0.1:{peer.port}/", HTTP))
        began = time.monotonic()
        [silence] = await prober.not_ready(instance, LaunchSpec("image", ports=(Port(80, HTTP),)))
        assert time.monotonic() - began < 2
        assert silence.why == "no answer within 0.3 s"
        await until(lambda: peer.present == 0)


async def test_a_handshake_that_never_ends_is_ended_and_closed(without_collector: None) -> None:
    """A peer without a TLS answer holds neither the probe nor a socket."""
    prober = a_prober(deadline=0.3)
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        instance = published((80, f"https://service.example:{port}/", HTTP))
        assert await silent(prober, instance, [Port(80, HTTP)]) == [80]
        await asyncio.wait_for(gone.wait(), 5)


async def test_a_name_that_never_resolves_is_given_up_at_the_deadline() -> None:
    """The deadline of a probe includes name resolution."""

    async def never(_name: str, _port: int) -> Sequence[Address]:
        await asyncio.Event().wait()
        raise AssertionError

    prober = a_prober(resolve=never, deadline=0.2)
    instance = published((80, "http://slow.example/", HTTP), (22, "slow.example:22", TCP))
    assert await silent(prober, instance, [Port(80, HTTP), Port(22, TCP)]) == [80, 22]


async def test_at_most_four_ports_of_an_instance_are_probed_at_the_same_time() -> None:
    """Ten slow ports take turns; duplicate ports are probed once."""
    hanging = Hanging()
    prober = a_prober(deadline=0.2, resolve=hanging)
    ports = [Port(number, HTTP) for number in range(1, 11)]
    instance = published(*((port.port, "http://gw.example/", HTTP) for port in ports))
    assert await silent(prober, instance, [*ports, *ports]) == list(range(1, 11))
    assert (hanging.most, hanging.asked, hanging.present) == (4, 10, 0)


async def test_slow_instances_keep_no_other_waiting() -> None:
    """Slow instances use only a part of the places."""
    hanging = Hanging()
    prober = a_prober(resolve=hanging, deadline=0.5, places=Places(total=8, slow=6))
    spec = LaunchSpec("image", ports=(Port(80, HTTP),))
    slow = published((80, "http://slow.example/", HTTP))
    # It has timed out once, so it counts as slow.
    assert await prober.not_ready(slow, spec)
    woken: list[int] = []
    for number in range(60):
        wake = partial(woken.append, number)
        assert await prober.poll(f"op_{number}", slow, spec, wake=wake) is None
    async with Service(status(200)) as port:
        innocent = published((80, f"http://127.0.0.1:{port}/", HTTP))
        began = time.monotonic()
        other = replace(innocent, id="inst_other")
        assert await prober.not_ready(other, spec) == ()
        assert time.monotonic() - began < 0.4
    assert hanging.most <= 6
    await until(lambda: len(woken) >= 12)
    assert woken[:6] == list(range(6))
    await prober.aclose()


async def test_a_step_never_waits_for_a_slow_peer() -> None:
    """The round continues, wakes the step at its end, and keeps its result."""
    prober = a_prober(deadline=0.5, quick=0.05)
    spec = LaunchSpec("image", ports=(Port(80, HTTP),))
    woken = asyncio.Event()
    async with dripping() as peer:
        instance = published((80, f"http://127.0.0.1:{peer.port}/", HTTP))
        began = time.monotonic()
        assert await prober.poll("op_1", instance, spec, wake=woken.set) is None
        assert await prober.poll("op_1", instance, spec, wake=woken.set) is None
        assert time.monotonic() - began < 0.4
        await asyncio.wait_for(woken.wait(), 5)
        result = await prober.poll("op_1", instance, spec, wake=woken.set)
        assert [silence.port.port for silence in result or ()] == [80]
        assert len(peer.heads) == 1
    await prober.aclose()


async def test_other_endpoints_make_another_round() -> None:
    """Changed endpoints, as after a restart, begin a new round."""
    prober = a_prober(deadline=5, quick=1)
    spec = LaunchSpec("image", ports=(Port(80, HTTP),))
    async with dripping(ever=False) as peer, Service(status(200)) as port:
        before = published((80, f"http://127.0.0.1:{peer.port}/", HTTP))
        assert await prober.poll("op_1", before, spec, wake=lambda: None) is None
        after = published((80, f"http://127.0.0.1:{port}/", HTTP))
        assert await prober.poll("op_1", after, spec, wake=lambda: None) == ()
        await until(lambda: peer.present == 0)
    await prober.aclose()


INWARD = [
    (HTTP, "http://127.0.0.1:{port}/admin?x=1"),
    (HTTP, "127.0.0.1:{port}"),
    (HTTP, "http://2130706433:{port}/"),
    (HTTP, "http://0x7f.1:{port}/"),
    (HTTP, "http://0177.0.0.1:{port}/"),
    (HTTP, "http://[::ffff:127.0.0.1]:{port}/"),
    (HTTP, "http://localhost:{port}/"),
    (HTTP, "http://metadata:{port}/"),
    (HTTP, "http://a.svc:{port}/"),
    (HTTP, "http://rebind.example.com:{port}/"),
    (HTTP, "http://user:pw@rebind.example.com:{port}/"),
    (TCP, "127.0.0.1:{port}"),
    (TCP, "tcp://127.0.0.1:{port}"),
    (TCP, "2130706433:{port}"),
    (TCP, "[::ffff:127.0.0.1]:{port}"),
    (TCP, "localhost:{port}"),
    (TCP, "rebind.example.com:{port}"),
    (TCP, "http://127.0.0.1:{port}/"),
]


@pytest.mark.parametrize(("kind", "endpoint"), INWARD)
async def test_no_probe_leads_inward_where_upstream_is_public(
    kind: PortType, endpoint: str
) -> None:
    """With a public upstream, no private endpoint is probed."""
    prober = a_prober(public)
    async with dripping() as peer:
        instance = published((80, endpoint.format(port=peer.port), kind))
        [silence] = await prober.not_ready(instance, LaunchSpec("image", ports=(Port(80, kind),)))
        assert silence.why.startswith("not probed: ")
    assert peer.most == 0


@pytest.mark.parametrize(
    ("kind", "endpoint"),
    [
        (HTTP, "http://user:pw@127.0.0.1:{port}/"),
        (HTTP, "http://@127.0.0.1:{port}/"),
        (HTTP, "http://2130706433:{port}/"),
        (HTTP, "http://127.1:{port}/"),
        (HTTP, "http://127.0.0.1.:{port}/"),
        (HTTP, "ftp://127.0.0.1:{port}/"),
        (HTTP, "http://127.0.0.1:{port}/ x"),
        (HTTP, "http://127.0.0.1:{port}\\@8.8.8.8/"),
        (TCP, "0x7f000001:{port}"),
        (TCP, "user@127.0.0.1:{port}"),
        (TCP, "tcp://tcp://127.0.0.1:{port}"),
        (TCP, "file://127.0.0.1:{port}"),
        (HTTP, "http://169.254.169.254/latest/meta-data"),
        (HTTP, "http://[fd00:ec2::254]/"),
        (HTTP, "http://[fe80::1]/"),
        (HTTP, "http://0.0.0.0:{port}/"),
        (TCP, "224.0.0.1:{port}"),
        (TCP, "255.255.255.255:{port}"),
    ],
)
async def test_even_beside_an_upstream_on_this_machine_an_odd_endpoint_is_refused(
    prober: Prober, kind: PortType, endpoint: str
) -> None:
    """User info, other schemes, metadata and multicast are refused."""
    async with dripping() as peer:
        instance = published((80, endpoint.format(port=peer.port), kind))
        [silence] = await prober.not_ready(instance, LaunchSpec("image", ports=(Port(80, kind),)))
        assert silence.why.startswith("not probed: ")
    assert peer.most == 0


async def test_the_probe_goes_to_the_address_that_was_checked() -> None:
    """The name is resolved once; the `Host` header keeps it."""
    asked: list[str] = []

    async def once(name: str, _port: int) -> Sequence[Address]:
        asked.append(name)
        return [ip_address("127.0.0.1")] if len(asked) == 1 else [ip_address("127.0.0.99")]

    prober = a_prober(resolve=once, deadline=0.3)
    async with dripping() as peer:
        instance = published((80, f"http://gw.example:{peer.port}/a?b=c", HTTP))
        await silent(prober, instance, [Port(80, HTTP)])
    assert asked == ["gw.example"]
    [head] = peer.heads
    assert head.startswith("GET /a?b=c HTTP/1.1\r\n")
    assert f"\r\nHost: gw.example:{peer.port}\r\n" in head


@pytest.mark.parametrize(
    ("url", "addresses", "reach"),
    [
        ("http://127.0.0.1:9090", None, Reach.PRIVATE),
        ("http://10.0.0.7", None, Reach.PRIVATE),
        ("https://8.8.8.8", None, Reach.PUBLIC),
        ("http://emulator:9090", ["172.18.0.2"], Reach.PRIVATE),
        ("https://api.novita.ai", ["93.184.215.14"], Reach.PUBLIC),
        ("https://api.novita.ai", ["93.184.215.14", "10.0.0.1"], Reach.PUBLIC),
        ("https://api.novita.ai", [], Reach.PUBLIC),
        ("http://no-such-name.example", OSError("no address"), Reach.PUBLIC),
    ],
)
async def test_private_addresses_are_probed_only_where_upstreams_own_is_private(
    url: str, addresses: Sequence[str] | OSError | None, reach: Reach
) -> None:
    """If the upstream's address is unknown, no private one is probed."""
    asked: list[str] = []

    async def resolve(name: str, _port: int) -> Sequence[Address]:
        asked.append(name)
        if isinstance(addresses, OSError):
            raise addresses
        assert addresses is not None
        return [ip_address(text) for text in addresses]

    clock = ManualClock()
    upstream = UpstreamReach(url, clock, resolve)
    assert await upstream() is reach
    assert await upstream() is reach
    assert len(asked) == (2 if isinstance(addresses, OSError) else int(addresses is not None))
