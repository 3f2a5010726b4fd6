# SPDX-License-Identifier: Apache-2.0
"""A whole control plane with the emulator, in one process and in virtual time."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import orjson
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette

from novitai.app import Application, Outside
from novitai.domain.addresses import Address
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import Attempt
from novitai.domain.requests import CreateRequest
from novitai.emulator.config import Delays
from novitai.ids import Ids
from novitai.jobs.embedded import EmbeddedEngine
from novitai.lifecycle.commands.create_instance import Created
from novitai.lifecycle.commands.idempotency import Command, Reply, Transaction
from novitai.settings import Settings
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreUnavailable
from novitai.store.queries import attempts, events
from novitai.testing import ManualClock, calm
from tests.domain.making import TESTER
from tests.services import STORES

T = TypeVar("T")

REQUEST = CreateRequest(
    name="my_instance",
    product_name="gpu-basic",
    template_id="tmpl-12345",
    gpu_num=2,
    rootfs_size=80,
    region="US-WEST-01",
)


async def at_home(_name: str, _port: int) -> Sequence[Address]:
    """Resolve every name to this machine."""
    return [ip_address("127.0.0.1")]


def answer(created: Created) -> Reply:
    """Render an acceptance."""
    body = orjson.dumps({"instanceId": created.instance_id, "ready": created.estimated_ready_at})
    return Reply(201, {}, body)


class Emulator:
    """The emulator's control API, for tests."""

    def __init__(self, app: Starlette) -> None:
        self.app = app
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app, raise_app_exceptions=False),
            base_url="http://emulator",
        )

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """Call the control API and return its JSON."""
        response = await self.client.request(method, f"/_emulator/{path}", **options)
        assert response.status_code < 400, response.text
        return response.json() if response.content else None

    async def creates(self) -> int:
        """Count the create calls that arrived."""
        counts: dict[str, int] = (await self.call("GET", "counts"))["counts"]
        return counts.get("POST /gpu/instance/create", 0)

    async def ever(self) -> list[dict[str, Any]]:
        """List every instance that was ever created."""
        found: list[dict[str, Any]] = (await self.call("GET", "instances"))["instances"]
        return found

    async def reconcile(self) -> None:
        """Open and close the emulator's TCP ports as due now."""
        await self.app.state.emulator.listeners.reconcile()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.client.aclose()


@dataclass
class AtWork:
    """Counts running transactions. Virtual time must not advance while there are any."""

    count: int = 0
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def watch(self, database: Database) -> None:
        """Count this database's transactions, and its closing, from now on."""
        self._crashed = [False]
        # Its threads end in real time, also those of a process that was killed.
        for name, crashed in (
            ("read", self._crashed),
            ("write", self._crashed),
            ("close", [False]),
        ):
            setattr(database, name, self._counted(getattr(database, name), crashed))

    def crash(self) -> None:
        """Make every later write fail, as if the process had been killed now."""
        self._crashed[0] = True

    async def rest(self) -> None:
        """Wait until the database threads and the event loop are idle."""
        await calm(1_000)
        while self.count:
            self._idle.clear()
            await self._idle.wait()
            await calm(1_000)

    def _counted(
        self, act: Callable[..., Awaitable[Any]], crashed: list[bool]
    ) -> Callable[..., Awaitable[Any]]:
        async def counted(*arguments: Any, **options: Any) -> Any:
            if crashed[0]:
                raise StoreUnavailable("killed")
            self.count += 1
            try:
                return await act(*arguments, **options)
            finally:
                self.count -= 1
                if not self.count:
                    self._idle.set()

        return counted


@dataclass
class World:
    """A control plane, its emulator, and their virtual time."""

    settings: Settings
    clock: ManualClock
    emulator: Emulator
    app: Application = field(init=False)
    seed: int = 7
    sweep_interval: float = 1.0
    at_work: AtWork = field(default_factory=AtWork)

    def __post_init__(self) -> None:
        self.clock.rest = self.at_work.rest

    async def reopen(self, **changes: Any) -> None:
        """End the process and start another on the same store, with other settings."""
        await self.end()
        self.settings = self.settings.model_copy(update=changes)
        await self.open()

    async def end(self) -> None:
        """End the process; running steps may wait for time to pass."""
        ending = asyncio.create_task(self.app.stop())
        while not ending.done():
            await self.pass_time(1)
        await ending

    async def open(self, *, work: bool = True) -> None:
        """Start a process."""
        transport = httpx2.ASGITransport(app=self.emulator.app, raise_app_exceptions=False)
        self.app = await Application.open(
            self.settings,
            self.clock,
            Ids(random.Random(self.seed)),
            outside=Outside(
                upstream=transport, probes=transport, resolve=at_home, tls=NO_CERTIFICATES
            ),
            # The shared engine's queue uses real time; it has tests of its own.
            engine=lambda _settings, database, clock, ids: EmbeddedEngine(
                database, clock, ids, sweep_interval=self.sweep_interval
            ),
        )
        self.seed += 1
        self.at_work.watch(self.app.database)
        await self.app.start(work=work)

    async def create(self, request: CreateRequest = REQUEST) -> str:
        """Create an instance; return its ID."""
        created = await self.do(self.app.create_instance.create(request, actor=TESTER))
        return created.instance_id

    async def do(self, command: Transaction[T] | Command[T], *, deadline: int | None = None) -> T:
        """Carry a command out; return its result."""
        return await self.app.commands.apply(command, deadline=deadline)

    async def view(self, instance_id: str) -> Mapping[str, Any]:
        """Return the view of an instance."""
        return (await self.app.instances.get(instance_id)).view

    async def status(self, instance_id: str) -> str:
        """Return an instance's status."""
        return str((await self.view(instance_id))["status"])

    async def attempts(self, instance_id: str) -> list[Attempt]:
        """List the attempts of an instance."""
        return await self.app.database.read(lambda c: attempts.of_instance(c, instance_id))

    async def events(self, instance_id: str) -> list[str]:
        """List the types of an instance's events, in order."""
        log = await self.app.database.read(lambda c: events.of_instance(c, instance_id))
        return [event.type.value for event in log]

    async def until(
        self, condition: Callable[[], Awaitable[bool]], *, within: float, step: float = 1.0
    ) -> None:
        """Advance virtual time until a condition holds; fail if it does not in time.

        It is looked at each `step` seconds, and less often the longer it takes: a thousand looks
        take seconds of real time.
        """
        began = self.clock.monotonic()
        while not await condition():
            waited = self.clock.monotonic() - began
            assert waited < within, f"not within {within} virtual seconds"
            pause = max(step, min(waited / 20, 5.0))
            await self.pass_time(pause, step=pause)

    async def until_creates(self, count: int = 1) -> None:
        """Advance virtual time until a number of create calls has arrived upstream."""

        async def arrived() -> bool:
            return await self.emulator.creates() >= count

        await self.until(arrived, within=60)

    async def until_status(self, instance_id: str, status: InstanceStatus, within: float) -> None:
        """Advance virtual time until an instance has a status."""

        async def reached() -> bool:
            return await self.status(instance_id) == status.value

        await self.until(reached, within=within)

    async def pass_time(self, seconds: float, step: float | None = None) -> None:
        """Advance virtual time in steps, a second or a twelfth of it, and run what is due."""
        end = self.clock.monotonic() + seconds
        step = step or max(1.0, min(seconds / 12, 5.0))
        while self.clock.monotonic() < end:
            await self.clock.advance(min(step, end - self.clock.monotonic()))
            await self.emulator.reconcile()
            await self.quiet()

    async def pass_listing(self) -> None:
        """Advance virtual time until the account was surely listed, also on a slow machine."""
        # A listing is due 49 s after the last, and the sync looks at least once in each step.
        await self.pass_time(60, step=10)

    async def pass_alone(self, seconds: float) -> None:
        """Advance virtual time while no process runs."""
        await self.clock.advance(seconds)
        await self.emulator.reconcile()

    async def quiet(self) -> None:
        """Wait until the database threads and the event loop are idle."""
        await self.at_work.rest()


def settings_for(database_url: str, folder: Path, **more: Any) -> Settings:
    """Make settings without reading the environment."""
    return Settings.model_construct(
        **{
            **{
                name: info.get_default(call_default_factory=True)
                for name, info in Settings.model_fields.items()
            },
            "novita_api_key": SecretStr("sk-of-the-tests"),
            "upstream_url": "http://emulator",
            "database_url": SecretStr(database_url),
            "data_dir": folder,
            "secret_key": SecretStr("a secret of at least thirty-two bytes"),
            **more,
        }
    )


NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For processes that open no TLS connection; those of the machine take 0.2 s to read."""

# A virtual second in which instances change takes ten milliseconds of real time.
SHORT_DELAYS = Delays(creating=(5, 15), pulling=(10, 30), starting=(8, 24))

on_both_stores = pytest.mark.parametrize("store", STORES, indirect=True)
"""For tests whose result may depend on the store: locks, fencing, idempotency, whole lives."""
