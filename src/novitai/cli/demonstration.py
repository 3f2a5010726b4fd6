# SPDX-License-Identifier: Apache-2.0
"""The demonstration: the emulator, the real server, and one instance, over HTTP on the loopback.

Everything is in one process and in a folder that goes with it. The reader's own settings are not
looked at, so that nothing real can be bought.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2
from pydantic import SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from novitai.app import Application
from novitai.cli.ending import Ending
from novitai.cli.listening import answer, bind_near, url_of
from novitai.cli.output import note, say
from novitai.cli.watching import Screen, open_screen
from novitai.clock import SystemClock
from novitai.emulator import EmulatorConfig
from novitai.emulator import serve as serve_emulator
from novitai.errors import StartupError
from novitai.ids import Ids
from novitai.settings import Settings
from novitai.telemetry import logs

HOST: Final = "127.0.0.1"
PORT: Final = 8080
EMULATOR_PORT: Final = 9090
SPEED: Final = 25.0
"""Four minutes, the longest that the emulator takes to run an instance, in ten seconds."""
WITHIN: Final = 90.0
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


class DemoSettings(Settings):
    """Settings that come from the code alone: neither from the environment nor from `.env`."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is given and nothing else."""
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class _DemoServer:
    url: str
    key: str


async def demonstrate(ending: Ending, *, once: bool) -> None:
    """Show it; then stay up until asked to end, unless `once`.

    Raises:
        StartupError: the instance did not come up; the message says why.
    """
    with tempfile.TemporaryDirectory(prefix="novitai-demo-") as name:
        folder = Path(name)
        log = folder / "server.log"
        with log.open("w") as stream:
            logs.set_up(production=False, stream=stream)
            async with _emulator() as upstream, _server(folder, upstream) as server:
                say(f"A stand-in for Novita answers at {upstream}; time passes {SPEED:g}x in it.")
                say(f"novitai answers at {server.url}.")
                try:
                    instance_id = await _until_asked(ending, _show(server))
                except StartupError:
                    stream.flush()
                    _show_log(log)
                    raise
                if instance_id is None:
                    raise StartupError("stopped before the instance was running", exit_code=130)
                _explain(server, instance_id, stays=not once)
                if not once:
                    await ending.asked.wait()


async def _show(server: _DemoServer) -> str:
    """Ask for an instance and watch it until it runs; return its id."""
    headers = {"Authorization": f"Bearer {server.key}"}
    async with httpx2.AsyncClient(
        base_url=server.url, headers=headers, trust_env=False, timeout=10
    ) as client:
        response = await client.post("/api/instances", json=REQUEST)
        if response.status_code != 201:
            raise StartupError(f"the request was answered {response.status_code}: {response.text}")
        instance_id: str = response.json()["instanceId"]
        say(f"POST /api/instances answers 201: {instance_id}")
        with open_screen() as screen:
            await _watch(client, instance_id, screen)
        return instance_id


async def _watch(client: httpx2.AsyncClient, instance_id: str, screen: Screen) -> None:
    """Show each state of the instance until it runs."""
    began = time.monotonic()
    while True:
        view = (await client.get(f"/api/instances/{instance_id}")).json()
        elapsed = time.monotonic() - began
        status = str(view["status"])
        screen.show(status, str(view.get("upstreamStatus", "")), elapsed)
        if status == "running":
            return
        if status in {"failed", "terminated"}:
            why = view.get("error", {}).get("message", "no reason is recorded")
            raise StartupError(f"the instance is {status}: {why}")
        if elapsed > WITHIN:
            raise StartupError(f"the instance is still {status} after {WITHIN:g} s")
        await asyncio.sleep(_LOOK_EVERY)


async def _until_asked(ending: Ending, showing: Coroutine[None, None, str]) -> str | None:
    """Wait for an answer; None if the reader has had enough before there is one."""
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
    """Run the emulator on its usual port or, where that is taken, on a free one."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            config = EmulatorConfig(host=HOST, port=EMULATOR_PORT, speed=SPEED)
            url = await stack.enter_async_context(serve_emulator(config))
        except OSError:
            config = EmulatorConfig(host=HOST, port=0, speed=SPEED)
            url = await stack.enter_async_context(serve_emulator(config))
        yield url


@contextlib.asynccontextmanager
async def _server(folder: Path, upstream: str) -> AsyncIterator[_DemoServer]:
    """Run the very server that `novitai serve` runs."""
    settings = DemoSettings(
        NOVITA_API_KEY=SecretStr("demo"),  # type: ignore[call-arg]  # its name outside
        upstream_url=upstream,
        upstream_calls_per_minute=6000,
        data_dir=folder,
        sync_interval_seconds=0.3,
        rate_limit_per_minute=6000,
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
            yield _DemoServer(url_of(HOST, listening), key.text if key else "")
        finally:
            over.set()
            await serving
    finally:
        listening.close()
        await app.stop()


def _explain(server: _DemoServer, instance_id: str, *, stays: bool) -> None:
    """Print what the reader can do next; the lines work when pasted."""
    curl, url = f"curl -s -H 'Authorization: Bearer {server.key}'", f"{server.url}/api/instances"
    another = json.dumps({**REQUEST, "name": "another-instance"})
    say(f"""
URL: {server.url}
Key: {server.key}

List:    {curl} {url}
Look:    {curl} {url}/{instance_id}
Create:  {curl} -H 'Content-Type: application/json' -d '{another}' {url}

{"Ctrl-C ends it." if stays else "Without --once it stays up."}""")


def _show_log(log: Path) -> None:
    """Show the end of the server's log, which is about to be deleted."""
    with log.open() as lines:
        for line in deque(lines, _LOG_LINES):
            note(line.rstrip())
