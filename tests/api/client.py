# SPDX-License-Identifier: Apache-2.0
"""The whole application over HTTP, with rows that a test inserts and no worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx2
import orjson
from sqlalchemy import Connection

from novitai.api.http.application import HttpApplication
from novitai.app import Application
from novitai.domain.api_key import KeyRequest, Scope
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import Operation, OperationKind
from novitai.store.queries import instances, operations
from novitai.testing import ManualClock, an_instance
from tests.api.contract import violations
from tests.lifecycle.world import AtWork

T = TypeVar("T")

UPSTREAM_WORDS: Mapping[InstanceStatus, str] = {
    InstanceStatus.STARTING: "starting",
    InstanceStatus.RUNNING: "running",
    InstanceStatus.STOPPING: "stopping",
    InstanceStatus.STOPPED: "exited",
    InstanceStatus.MIGRATING: "migrating",
    InstanceStatus.FAILED: "exited",
    InstanceStatus.TERMINATING: "removing",
    InstanceStatus.TERMINATED: "removed",
    InstanceStatus.RELEASED: "running",
}


@dataclass
class Http:
    """A client of an application, with an API key of each scope."""

    app: Application
    client: httpx2.AsyncClient
    keys: Mapping[Scope, str]
    gateway: HttpApplication

    @classmethod
    async def open(
        cls,
        app: Application,
        gateway: HttpApplication | None = None,
        address: tuple[str, int] = ("127.0.0.1", 50000),
    ) -> Http:
        """Create the keys and the client."""
        keys = {}
        for scope in Scope:
            made = await app.keys.create(KeyRequest(f"the {scope} key", frozenset({scope})))
            keys[scope] = made.text
        gateway = gateway or app.api()
        transport = httpx2.ASGITransport(app=gateway, client=address)
        client = httpx2.AsyncClient(transport=transport, base_url="http://novitai")
        return cls(app, client, keys, gateway)

    async def call(
        self,
        method: str,
        path: str,
        *,
        scope: Scope | None = Scope.WRITE,
        body: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        documented: bool = True,
    ) -> httpx2.Response:
        """Send one request, with a key unless `scope` is None.

        The response must be as the OpenAPI document says, unless `documented` is false.
        """
        sent = dict(headers or {})
        if scope is not None:
            sent["Authorization"] = f"Bearer {self.keys[scope]}"
        if body is not None:
            content = orjson.dumps(body)
            sent["Content-Type"] = "application/json"
        response = await self.client.request(method, path, content=content, headers=sent)
        if documented:
            undocumented = await violations(self.gateway, method, path, response)
            assert not undocumented, undocumented
        return response

    async def aclose(self) -> None:
        """Close the client."""
        await self.client.aclose()
        await self.app.keys.flush()


@dataclass
class ApiProcess(Http):
    """An api process: it accepts and reads requests, and no worker executes them."""

    clock: ManualClock
    count: int = 0
    at_work: AtWork = field(default_factory=AtWork)

    @classmethod
    async def over(cls, app: Application, clock: ManualClock) -> ApiProcess:
        """Create the keys and the client."""
        http = await Http.open(app)
        api_process = cls(http.app, http.client, http.keys, http.gateway, clock)
        api_process.at_work.watch(app.database)
        return api_process

    async def have(
        self, status: InstanceStatus = InstanceStatus.RUNNING, *, bought: bool = True, **more: Any
    ) -> str:
        """Insert an instance with a status and return its ID; `more` holds further columns."""
        self.count += 1
        now = self.clock.now()
        made = an_instance(
            InstanceStatus.CREATING,
            id=f"inst_1_{self.count:010}",
            name=more.pop("name", "my-instance"),
            created_at=now,
            updated_at=now,
            upstream_id=None,
        )
        columns: dict[str, object] = {"status": status.value, **more}
        if bought and status is not InstanceStatus.CREATING:
            columns |= {
                "upstream_id": f"up-{self.count}",
                "obs_status": UPSTREAM_WORDS[status],
                "obs_at": now,
                "failed": status is InstanceStatus.FAILED,
                "ready_at": now if status is InstanceStatus.RUNNING else None,
                "terminated_at": now if status is InstanceStatus.TERMINATED else None,
                "released_at": now if status is InstanceStatus.RELEASED else None,
                "confirmed_at": now,
            }

        def write(connection: Connection) -> None:
            instances.insert(connection, made, b"sealed")
            instances.update_columns(connection, made.id, columns)

        await self.app.database.write(write)
        if status is InstanceStatus.CREATING:
            await self.begin(OperationKind.CREATE, made.id, "place")
        return made.id

    async def turn(self, instance_id: str, status: InstanceStatus) -> None:
        """Set the status of an instance."""
        await self.app.database.write(
            lambda connection: instances.update_columns(
                connection, instance_id, {"status": status.value}
            )
        )

    async def begin(self, kind: OperationKind, instance_id: str, phase: str) -> str:
        """Insert a running operation and return its ID."""
        now = self.clock.now()
        made = Operation(self.app.ids.prefixed("op"), kind, instance_id, phase, now, now)
        await self.app.database.write(lambda connection: operations.insert(connection, made))
        return made.id

    async def through(self, work: Awaitable[T], *, within: float) -> T:
        """Advance virtual time until `work` is done; fail after `within` seconds."""
        task = asyncio.ensure_future(work)
        end = self.clock.monotonic() + within
        while not task.done():
            assert self.clock.monotonic() < end, f"not within {within} virtual seconds"
            await self.clock.advance(0.05)
            await self.at_work.rest()  # database threads run in real time
        return await task
