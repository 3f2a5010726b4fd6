# SPDX-License-Identifier: Apache-2.0
"""The demonstration: the emulator, the real server, and one instance, over HTTP on the loopback.

Everything runs in one process, with its files in a folder that is deleted at the end. The user's
settings are not read, so that nothing real can be bought.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import httpx2
from pydantic import SecretStr

from novitai.app import Application
from novitai.cli.dashboard_address import dashboard_address
from novitai.cli.demo_receiver import Receiver
from novitai.cli.ending import Ending
from novitai.cli.entry import INTERRUPTED
from novitai.cli.listening import answer, bind_near, url_of
from novitai.cli.output import note, say
from novitai.cli.watching import Screen, open_screen
from novitai.clock import SystemClock
from novitai.emulator import EmulatorConfig
from novitai.emulator import serve as serve_emulator
from novitai.emulator.config import Delays
from novitai.emulator.config import Settings as Switches
from novitai.errors import StartupError
from novitai.ids import Ids
from novitai.lifecycle.webhooks.installation_secret import fresh_secret
from novitai.settings import ArgumentsOnly, Settings
from novitai.telemetry import logs

HOST: Final = "127.0.0.1"
PORT: Final = 8080
EMULATOR_PORT: Final = 9090
SPEED: Final = 25.0
"""Speed of the emulator: its longest start of an instance, four minutes, takes ten seconds."""
BOOT: Final = 60.0
"""Virtual seconds between `running` at Novita and the first answer of a port. At this speed, that
is long enough to see that novitai reports `running` only once the port answers."""
WITHIN: Final = 90.0
WEBHOOK_WITHIN: Final = 15.0
_LOOK_EVERY: Final = 0.1
_LOG_LINES: Final = 20
REQUEST: Final = {
    "name": "my-first-instance",
    "productName": "RTX 4090 24GB",
    "templateId": "tmpl-12345",
    "gpuNum": 1,
    "rootfsSize": 60,
    "region": "US-WEST-01",
}


class DemoSettings(ArgumentsOnly, Settings):
    """The settings of the demo."""


@dataclass(frozen=True, slots=True)
class _DemoServer:
    url: str
    key: str
    dashboard: Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class _Shown:
    instance_id: str
    hourly_price: float | None


async def demonstrate(ending: Ending, *, once: bool) -> None:
    """Run the demonstration; then, unless `once`, stay up until a signal ends it.

    Raises:
        StartupError: the instance did not reach `running`; the message says why.
    """
    with tempfile.TemporaryDirectory(prefix="novitai-demo-") as name:
        folder = Path(name)
        log = folder / "server.log"
        with log.open("w") as stream:
            logs.set_up(production=False, stream=stream)
            receiver = Receiver(fresh_secret(Ids()))
            say("Starting a stand-in for Novita: nothing real is bought ...")
            async with _emulator() as upstream, receiver.listening(HOST):
                say(f"A stand-in for Novita answers at {upstream}; time passes {SPEED:g}x in it.")
                say("Starting novitai on an empty database ...")
                async with _server(folder, upstream, receiver) as server:
                    say(f"novitai answers at {server.url}.")
                    try:
                        shown = await _until_asked(ending, _show(server, receiver))
                    except StartupError:
                        stream.flush()
                        _show_log(log)
                        raise
                    if shown is None:
                        raise StartupError(
                            "stopped before the instance was running", exit_code=INTERRUPTED
                        )
                    if once:
                        say("\nWithout --once the demo stays up and prints curl lines to try.")
                        return
                    _explain(server, shown.instance_id, await server.dashboard())
                    await ending.asked.wait()


async def _show(server: _DemoServer, receiver: Receiver) -> _Shown:
    """Create an instance, watch it until it runs, and print its price and the webhooks received."""
    headers = {"Authorization": f"Bearer {server.key}"}
    async with httpx2.AsyncClient(
        base_url=server.url, headers=headers, trust_env=False, timeout=10
    ) as client:
        request = {**REQUEST, "webhookUrl": receiver.url}
        response = await client.post("/api/instances", json=request)
        if response.status_code != 201:
            raise StartupError(f"the request was answered {response.status_code}: {response.text}")
        instance_id: str = response.json()["instanceId"]
        say(f"POST /api/instances answers 201: {instance_id}")
        with open_screen() as screen:
            price = await _watch(client, instance_id, screen)
    if price is not None:
        say(f"Price: {price:g} USD an hour")
    if not await receiver.wait_for("instance.running", WEBHOOK_WITHIN):
        raise StartupError(f"no webhook arrived within {WEBHOOK_WITHIN:g} s")
    say(f"Webhooks received at {receiver.url}, signatures valid: {', '.join(receiver.types)}")
    return _Shown(instance_id, price)


async def _watch(client: httpx2.AsyncClient, instance_id: str, screen: Screen) -> float | None:
    """Show each state of the instance until it runs; return its price in USD an hour, if known."""
    began = time.monotonic()
    while True:
        view = (await client.get(f"/api/instances/{instance_id}")).json()
        elapsed = time.monotonic() - began
        status = str(view["status"])
        screen.show(status, str(view.get("upstreamStatus", "")), elapsed)
        if status == "running":
            price = view.get("hourlyPrice")
            return float(price) if price is not None else None
        if status in {"failed", "terminated"}:
            why = view.get("error", {}).get("message", "no reason is recorded")
            raise StartupError(f"the instance is {status}: {why}")
        if elapsed > WITHIN:
            raise StartupError(f"the instance is still {status} after {WITHIN:g} s")
        await asyncio.sleep(_LOOK_EVERY)


async def _until_asked(ending: Ending, showing: Coroutine[None, None, _Shown]) -> _Shown | None:
    """Wait for the result; None if the process is asked to end earlier."""
    task = asyncio.create_task(showing)
    asked = asyncio.create_task(ending.asked.wait())
    await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if task.done():
        return task.result()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return None


@contextlib.asynccontextmanager
async def _emulator() -> AsyncIterator[str]:
    """Run the emulator on its usual port or, if that is in use, on a free one."""
    switches = Switches(delays=Delays(boot=(BOOT, BOOT)))
    async with contextlib.AsyncExitStack() as stack:
        try:
            config = EmulatorConfig(host=HOST, port=EMULATOR_PORT, speed=SPEED, settings=switches)
            url = await stack.enter_async_context(serve_emulator(config))
        except OSError:
            config = EmulatorConfig(host=HOST, port=0, speed=SPEED, settings=switches)
            url = await stack.enter_async_context(serve_emulator(config))
        yield url


@contextlib.asynccontextmanager
async def _server(folder: Path, upstream: str, receiver: Receiver) -> AsyncIterator[_DemoServer]:
    """Run the same server as `novitai serve`."""
    settings = DemoSettings(
        NOVITA_API_KEY=SecretStr("demo"),  # type: ignore[call-arg]  # its name outside
        upstream_url=upstream,
        upstream_calls_per_minute=6000,
        data_dir=folder,
        sync_interval_seconds=0.3,
        rate_limit_per_minute=6000,
        webhook_secret=SecretStr(receiver.secret),
        webhook_allow_private=True,
    )
    app = await Application.open(settings, SystemClock(), Ids())
    listening = bind_near(HOST, PORT)
    ready, over = asyncio.Event(), asyncio.Event()
    try:
        key = await app.keys.ensure_first_key()
        await app.start(work=True)
        serving = asyncio.create_task(answer(app.api(), listening, over, ready=ready.set))
        try:
            await ready.wait()
            yield _DemoServer(
                url_of(HOST, listening),
                key.text if key else "",
                partial(dashboard_address, app, listening),
            )
        finally:
            over.set()
            await serving
    finally:
        listening.close()
        await app.stop()


def _explain(server: _DemoServer, instance_id: str, dashboard: str | None) -> None:
    """Print what the user can do next; each curl command is on one line, ready to paste."""
    look = ""
    if dashboard is not None:
        look = f"""
The dashboard, logged in (once, within 60 seconds; later: novitai dashboard):
{dashboard}
"""
    curl, url = f"curl -s -H 'Authorization: Bearer {server.key}'", f"{server.url}/api/instances"
    another = json.dumps({**REQUEST, "name": "another-instance"})
    say(f"""
URL: {server.url}
Key: {server.key}
{look}
List the instances:
{curl} {url}

Look at this one:
{curl} {url}/{instance_id}

Create another one:
{curl} -H 'Content-Type: application/json' -d '{another}' {url}

Delete this one:
{curl} -X DELETE {url}/{instance_id}

The same and more with fewer words, from another terminal:
export NOVITAI_URL={server.url} NOVITAI_API_KEY={server.key}
novitai ls

Ctrl-C ends it.""")


def _show_log(log: Path) -> None:
    """Print the last lines of the server's log, before its folder is deleted."""
    with log.open() as lines:
        for line in deque(lines, _LOG_LINES):
            note(line.rstrip())
