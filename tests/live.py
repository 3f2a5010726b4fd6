# SPDX-License-Identifier: Apache-2.0
"""A live server in this process: real sockets, real time, and the emulator instead of Novita.

It runs on its own event loop in a thread, so that tests can use blocking clients. Webhooks and
readiness probes are answered by a mock transport, so nothing leaves the machine.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2
from pydantic import SecretStr

from novitai.api.app import create_api
from novitai.api.http.limits import Quota
from novitai.api.routing.router import Route
from novitai.app import Application, Outside
from novitai.cli.listening import answer, bind, url_of
from novitai.clock import SystemClock
from novitai.emulator import EmulatorConfig, create_app
from novitai.ids import Ids
from novitai.settings import Settings
from novitai.web import BUILT
from tests.lifecycle.world import Emulator, at_home, settings_for

T = TypeVar("T")

ADMIN_KEY: Final = "canary-admin-key-5f3a9c"


class LiveServer:
    """A server at `url`, and a client with an admin key."""

    def __init__(
        self, settings: Settings, *, speed: float, extra: tuple[Route, ...], dashboard: Path
    ) -> None:
        self._settings = settings
        self._speed = speed
        self._extra = extra
        self._dashboard = dashboard
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._end = asyncio.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.app: Application
        self.emulator: Emulator
        self.url = ""
        self.http: httpx2.Client

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def fault(self, **fault: object) -> None:
        """Set a fault in the emulator."""
        self.run(self.emulator.call("POST", "faults", json=fault))

    def key(self, *scopes: str) -> dict[str, str]:
        """Make a key and return the header with it."""
        made = self.http.post("/api/keys", json={"name": "a test's", "scopes": list(scopes)})
        assert made.status_code == 201, made.text
        return {"Authorization": f"Bearer {made.json()['key']}"}

    def open(self) -> None:
        """Start the server, and wait until it answers."""
        self._thread.start()
        assert self._ready.wait(60), "the server does not start"
        if self._error is not None:
            raise self._error
        self.http = httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {ADMIN_KEY}"},
            trust_env=False,
            timeout=240,
        )

    def close(self) -> None:
        """Stop the server in an orderly way."""
        self.http.close()
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # `open` or `close` raises it in the test's thread
            self._error = error
        finally:
            self._loop.close()
            self._ready.set()

    async def _serve(self) -> None:
        upstream = create_app(
            EmulatorConfig(speed=self._speed, seed=1, public_url="http://emulator")
        )
        transport = httpx2.ASGITransport(app=upstream, raise_app_exceptions=False)
        nowhere = httpx2.MockTransport(lambda _request: httpx2.Response(200))
        async with upstream.router.lifespan_context(upstream):
            self.emulator = Emulator(upstream)
            self.app = await Application.open(
                self._settings,
                SystemClock(),
                Ids(),
                outside=Outside(
                    upstream=transport, probes=nowhere, webhooks=nowhere, resolve=at_home
                ),
            )
            try:
                await self.app.start(work=True)
                listening = bind("127.0.0.1", 0)
                self.url = url_of("127.0.0.1", listening)
                # Tests fail to authenticate far more often than 20 times a minute.
                services = replace(
                    self.app.services(),
                    failures=Quota(1_000_000, 1_000_000),
                    dashboard=self._dashboard,
                )
                api = create_api(services, extra=self._extra)
                await answer(
                    api,
                    listening,
                    self._end,
                    ready=self._ready.set,
                    count=self.app.connections,
                )
            finally:
                await self.app.stop()
                await self.emulator.aclose()


@contextmanager
def live(
    database_url: str,
    folder: Path,
    *,
    speed: float = 60,
    extra: tuple[Route, ...] = (),
    settings: Mapping[str, object] | None = None,
    dashboard: Path = BUILT,
) -> Iterator[LiveServer]:
    """Run a server with the emulator's `speed` and with changed `settings`.

    `dashboard` is the folder of the built files of the dashboard.
    """
    changed = {
        "admin_api_key": SecretStr(ADMIN_KEY),
        "sync_interval_seconds": 0.2,
        "absent_after_seconds": 2.0,
        "rate_limit_per_minute": 1_000_000,
        "upstream_calls_per_minute": 60_000,
        "upstream_timeout_seconds": 2.0,
        **(settings or {}),
    }
    server = LiveServer(
        settings_for(database_url, folder, **changed), speed=speed, extra=extra, dashboard=dashboard
    )
    server.open()
    try:
        yield server
    finally:
        server.close()
