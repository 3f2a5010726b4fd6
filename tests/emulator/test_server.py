# SPDX-License-Identifier: Apache-2.0
"""The emulator on real sockets: dropped connections, TCP ports, the process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import cast

import httpx2
import pytest

from novitai.emulator import EmulatorConfig, serve
from novitai.emulator.calling import GPU
from tests.emulator.client import KEY, Json

CREATE: Json = {
    "name": "x",
    "productId": "gpu-basic.8c32g",
    "gpuNum": 1,
    "rootfsSize": 60,
    "imageUrl": "ubuntu",
    "ports": "9000/tcp,80/http",
}


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an emulator with a real socket."""
    async with (
        serve(EmulatorConfig(port=0, seed=7)) as url,
        httpx2.AsyncClient(base_url=url, headers=KEY) as client,
    ):
        yield client


async def ask(http: httpx2.AsyncClient, method: str, path: str, body: object = None) -> Json:
    """Send a call that must succeed and return its JSON."""
    response = await http.request(method, path, json=body)
    assert response.status_code == 200, response.text
    return cast("Json", response.json())


async def advance(http: httpx2.AsyncClient, seconds: float) -> None:
    """Advance the virtual time; the sockets are up to date on return."""
    await ask(http, "POST", "/_emulator/clock", {"advance": seconds})


async def instance(http: httpx2.AsyncClient, instance_id: str) -> Json:
    """Return an instance as the API shows it."""
    return await ask(http, "GET", f"{GPU}/gpu/instance?instanceId={instance_id}")


def address(shown: Json) -> tuple[str, int]:
    """Return the address of an instance's TCP port."""
    mappings = cast("list[Json]", shown["portMappings"])
    host, _, port = str(mappings[0]["endpoint"]).partition(":")
    return host, int(port)


async def connects(where: tuple[str, int]) -> bool:
    """Whether a process listens at the address."""
    try:
        _, writer = await asyncio.open_connection(*where)
    except ConnectionRefusedError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def exchange(base_url: str, body: Json) -> bytes:
    """Send a create on a plain socket and return the response bytes; empty if reset."""
    host, _, port = base_url.removeprefix("http://").partition(":")
    content = json.dumps(body).encode()
    head = (
        f"POST {GPU}/gpu/instance/create HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: Bearer k\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode() + content)
        try:
            return connection.recv(65_536)
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(("when", "created"), [("before", 0), ("after", 1)])
async def test_a_dropped_connection_is_closed_without_a_byte(
    http: httpx2.AsyncClient, when: str, created: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The client receives no bytes; `when` decides whether the work is done; nothing is logged."""
    fault = {"kind": "call", "path": "/gpu/instance/create", "drop": True, "when": when, "times": 1}
    await ask(http, "POST", "/_emulator/faults", fault)
    base_url = str(http.base_url).rstrip("/")
    assert await asyncio.to_thread(exchange, base_url, CREATE) == b""
    assert (await ask(http, "GET", "/_emulator/instances"))["total"] == created
    assert b"200 OK" in await asyncio.to_thread(exchange, base_url, CREATE)
    assert caplog.records == []


async def test_a_reply_has_one_date_and_it_is_virtual(http: httpx2.AsyncClient) -> None:
    """The server does not add a second `Date` header."""
    await advance(http, 10 * 86_400)
    [date] = (await http.get(f"{GPU}/clusters")).headers.get_list("date")
    ahead = parsedate_to_datetime(date).timestamp() - time.time()
    assert ahead == pytest.approx(10 * 86_400, abs=60)


async def test_a_client_sees_a_dropped_connection_as_a_transport_error(
    http: httpx2.AsyncClient,
) -> None:
    """A dropped connection is a transport error, not a response."""
    fault = {"kind": "call", "path": "/clusters", "drop": True, "times": 1}
    await ask(http, "POST", "/_emulator/faults", fault)
    with pytest.raises(httpx2.TransportError):
        await http.get(f"{GPU}/clusters")
    assert (await http.get(f"{GPU}/clusters")).status_code == 200


async def test_a_tcp_port_listens_from_boot_to_stop(http: httpx2.AsyncClient) -> None:
    """The port refuses before boot, then listens, then closes; a new start uses another port."""
    instance_id = str((await ask(http, "POST", f"{GPU}/gpu/instance/create", CREATE))["id"])
    while (shown := await instance(http, instance_id))["status"] != "running":
        await advance(http, 1)
    first = address(shown)
    assert not await connects(first)
    await advance(http, 10)
    assert address(await instance(http, instance_id)) == first
    assert await connects(first)

    await ask(http, "POST", f"{GPU}/gpu/instance/stop", {"instanceId": instance_id})
    await advance(http, 60)
    assert not await connects(first)
    await ask(http, "POST", f"{GPU}/gpu/instance/start", {"instanceId": instance_id})
    await advance(http, 300)
    second = address(await instance(http, instance_id))
    assert await connects(second)
    await ask(http, "POST", f"/_emulator/instances/{instance_id}/delete", {})
    assert not await connects(second)


async def test_an_open_tcp_connection_ends_with_the_instance(http: httpx2.AsyncClient) -> None:
    """A client that is connected when the instance stops reads the end of the stream."""
    seed = {"names": ["x"], "ports": "22/tcp"}
    [instance_id] = cast("list[str]", (await ask(http, "POST", "/_emulator/seed", seed))["ids"])
    reader, writer = await asyncio.open_connection(*address(await instance(http, instance_id)))
    await ask(http, "POST", f"/_emulator/instances/{instance_id}/stop", {})
    assert await asyncio.wait_for(reader.read(), 60) == b""
    writer.close()
    await writer.wait_closed()


async def test_more_ports_than_sockets_is_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If no sockets are left, the API shows ports on which nothing listens."""
    monkeypatch.setattr("novitai.emulator.listeners.most_sockets", lambda: 2)
    async with (
        serve(EmulatorConfig(port=0)) as url,
        httpx2.AsyncClient(base_url=url, headers=KEY) as http,
    ):
        await ask(http, "POST", "/_emulator/seed", {"count": 5, "ports": "22/tcp"})
        rows = cast("list[Json]", (await ask(http, "GET", f"{GPU}/gpu/instances"))["instances"])
        assert sum([await connects(address(row)) for row in rows]) == 2
        figures = await state(http)
        assert (figures["tcpSockets"], figures["tcpSocketsRefused"]) == (2, 3)


async def test_sockets_follow_the_clock_without_being_asked() -> None:
    """At a high speed, a port opens without a request once its instance has booted."""
    async with (
        serve(EmulatorConfig(port=0, speed=5000)) as url,
        httpx2.AsyncClient(base_url=url, headers=KEY) as http,
    ):
        await ask(http, "POST", f"{GPU}/gpu/instance/create", CREATE)
        for _ in range(1000):
            if (await state(http))["tcpSockets"]:
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("no socket was opened")
        await ask(http, "POST", "/_emulator/reset")
        assert (await state(http))["tcpSockets"] == 0


async def state(http: httpx2.AsyncClient) -> Json:
    """Return the emulator's state counters."""
    return cast("Json", (await ask(http, "GET", "/_emulator/"))["state"])


async def test_http_mappings_work_on_whatever_port_is_listened_on(
    http: httpx2.AsyncClient,
) -> None:
    """The endpoint is an absolute URL that works."""
    seed = {"names": ["x"], "ports": "80/http"}
    [instance_id] = cast("list[str]", (await ask(http, "POST", "/_emulator/seed", seed))["ids"])
    [mapping] = cast("list[Json]", (await instance(http, instance_id))["portMappings"])
    async with httpx2.AsyncClient() as elsewhere:
        assert (await elsewhere.get(str(mapping["endpoint"]))).status_code == 200


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `python -m novitai.emulator` with these arguments."""
    with subprocess.Popen(
        [sys.executable, "-m", "novitai.emulator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    ) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.blackbox
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_process_says_where_it_listens_and_leaves_cleanly(number: signal.Signals) -> None:
    """The process prints its URL, serves, and exits with 0 and no stderr on a signal."""
    with process("--port", "0", "--speed", "60") as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        assert line.startswith("novitai emulator: listening on http://127.0.0.1:")
        assert line.endswith(" at speed 60\n")
        url = line.split()[4]
        assert httpx2.get(f"{url}/_emulator/clock").json()["speed"] == 60
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
        assert (running.returncode, out, err) == (0, "", "")


@pytest.mark.blackbox
def test_a_busy_port_is_said_clearly() -> None:
    """The exit code is 1, and stderr names the address without a stack trace."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with process("--port", str(port)) as running:
            _, err = running.communicate(timeout=60)
        assert running.returncode == 1
        assert f"127.0.0.1:{port}" in err
        assert "Traceback" not in err


@pytest.mark.blackbox
def test_importing_the_package_is_cheap() -> None:
    """Importing the package does not import the web framework."""
    code = "import sys, novitai.emulator; sys.exit('starlette' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
