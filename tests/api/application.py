# SPDX-License-Identifier: Apache-2.0
"""The HTTP application with a real key ring and in-memory services."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import httpx2
import orjson

from novitai.api.app import create_api
from novitai.api.http.middleware import RequestMiddleware, Rules
from novitai.api.routing.router import Route
from novitai.api.services import CataloguePort, HealthSources, JobSources, Services
from novitai.domain.api_key import KeyRequest, Scope
from novitai.domain.requests import CreateRequest
from novitai.domain.view import View
from novitai.errors import ApiError, NotFound
from novitai.ids import Ids
from novitai.jobs.embedded import EmbeddedEngine
from novitai.jobs.metrics import JobMetrics
from novitai.lifecycle.api_keys import KeyRing
from novitai.lifecycle.catalogue.cache import Cache, Caches
from novitai.lifecycle.commands.create_instance import Created
from novitai.lifecycle.commands.idempotency import (
    Command,
    Commands,
    Completed,
    IdempotencyKey,
    Reply,
    Transaction,
)
from novitai.lifecycle.commands.instance_actions import InstanceActions
from novitai.lifecycle.core import Core
from novitai.lifecycle.events.outbox import Outbox
from novitai.lifecycle.events.recorder import Recorder
from novitai.lifecycle.operations.follow_ups import FollowUps
from novitai.lifecycle.queries.details_cache import Rendered
from novitai.lifecycle.queries.history import History
from novitai.lifecycle.queries.instances import InstancePage, InstanceQuery, Shown
from novitai.settings import FailedInstancePolicy
from novitai.store.engine.database import Database
from novitai.store.vault import Vault
from novitai.telemetry.process import ProcessMetrics
from novitai.telemetry.requests import RequestMetrics
from novitai.testing import ManualClock
from novitai.upstream.metrics import UpstreamNumbers

T = TypeVar("T")

CREATE: Mapping[str, object] = {
    "name": "my-instance",
    "productName": "gpu-basic",
    "templateId": "tmpl-12345",
}


@dataclass
class FakeInstances:
    """Instances in memory that record how they were called."""

    views: dict[str, View] = field(default_factory=dict)
    observed_at: int | None = None
    error: ApiError | Exception | None = None
    next_cursor: str | None = None
    requests: list[CreateRequest] = field(default_factory=list)
    deadlines: list[int | None] = field(default_factory=list)
    queries: list[InstanceQuery] = field(default_factory=list)

    def create(self, request: CreateRequest) -> Command[Created]:
        async def prepare(deadline: int | None) -> Completed[Created]:
            if self.error is not None:
                raise self.error
            self.requests.append(request)
            self.deadlines.append(deadline)
            return Completed(Created("inst_1697843200_abc123", 1_697_797_800_000))

        return Command(prepare)

    async def get(self, instance_id: str) -> Shown:
        if self.error is not None:
            raise self.error
        if instance_id not in self.views:
            raise NotFound(f"Instance '{instance_id}' not found", code="INSTANCE_NOT_FOUND")
        return Shown(self.views[instance_id], self.observed_at)

    async def details(self, instance_id: str) -> Rendered:
        shown = await self.get(instance_id)
        plain = orjson.dumps(shown.view)
        return Rendered(plain, str(hash(plain)), shown.observed_at)

    async def page(self, query: InstanceQuery) -> InstancePage:
        if self.error is not None:
            raise self.error
        self.queries.append(query)
        views: Sequence[View] = list(self.views.values())
        return InstancePage(views[: query.limit], len(views), self.next_cursor)


class NotingCommands(Commands):
    """Runs commands, and records the idempotency keys that came with them."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        super().__init__(database, clock)
        self.keys: list[IdempotencyKey | None] = []

    async def run(
        self,
        command: Transaction[T] | Command[T],
        render: Callable[[T], Reply],
        *,
        key: IdempotencyKey | None = None,
        deadline: int | None = None,
    ) -> Reply:
        self.keys.append(key)
        return await super().run(command, render, key=key, deadline=deadline)


@dataclass
class Dependencies:
    """The state that `/health` reads; tests set it."""

    upstream_down: bool = False
    queue_seen: int | Exception = 0
    cache_works: bool = True
    database: Exception | None = None
    queue_sizes: Mapping[str, int] | None = field(default_factory=lambda: {"create_instance": 3})

    def sources(self) -> HealthSources:
        """Return it as the sources for the routes."""
        return HealthSources(
            upstream_down=lambda: self.upstream_down,
            queue_seen=self._queue_seen,
            cache_works=lambda: self.cache_works,
            ping=self._ping,
        )

    async def _queue_seen(self) -> int:
        if isinstance(self.queue_seen, Exception):
            raise self.queue_seen
        return self.queue_seen

    async def _ping(self) -> None:
        if self.database is not None:
            raise self.database


@dataclass
class Api:
    """The application under test, with API keys for it."""

    gateway: RequestMiddleware
    services: Services
    client: httpx2.AsyncClient
    instances: FakeInstances
    commands: NotingCommands
    dependencies: Dependencies
    jobs: JobMetrics
    clock: ManualClock
    keys: dict[Scope, str]

    def bearer(self, scope: Scope = Scope.WRITE) -> dict[str, str]:
        """Return the header with a key of a scope."""
        return {"Authorization": f"Bearer {self.keys[scope]}"}

    async def call(
        self,
        method: str,
        path: str,
        *,
        scope: Scope | None = Scope.WRITE,
        body: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send one request, with a key unless `scope` is None."""
        sent = dict(self.bearer(scope) if scope else {})
        if body is not None:
            content = orjson.dumps(body)
            sent["Content-Type"] = "application/json"
        return await self.client.request(
            method, path, content=content, headers={**sent, **(headers or {})}
        )


class ApiFactory:
    """Builds applications that share one database."""

    def __init__(self, database: Database, clock: ManualClock) -> None:
        self._database = database
        self._clock = clock
        self._open: list[Api] = []

    async def make(
        self,
        *,
        extra: tuple[Route, ...] = (),
        rules: Rules | None = None,
        client: tuple[str, int] = ("127.0.0.1", 50000),
        allow_private_webhooks: bool = False,
        admin_api_key: str | None = None,
        catalogue: CataloguePort | None = None,
    ) -> Api:
        """Build an application."""
        clock = self._clock
        vault = Vault(b"0123456789abcdef0123456789abcdef")
        keys = KeyRing(
            database=self._database,
            vault=vault,
            clock=clock,
            ids=Ids(),
            admin_api_key=admin_api_key,
        )
        texts = {}
        for scope in Scope:
            made = await keys.create(KeyRequest(f"the {scope} key", frozenset({scope})))
            texts[scope] = made.text
        jobs = JobMetrics(clock)
        dependencies = Dependencies(queue_seen=clock.now())
        instances = FakeInstances()
        commands = NotingCommands(self._database, clock)

        async def queue_sizes() -> Mapping[str, int]:
            if dependencies.queue_sizes is None:
                raise ConnectionError("gone")
            return dependencies.queue_sizes

        operating = self._operating(vault)
        services = Services(
            clock=clock,
            ids=Ids(),
            keys=keys,
            create_instance=instances,
            instances=instances,
            health=dependencies.sources(),
            jobs=JobSources(jobs.snapshot, queue_sizes),
            requests=RequestMetrics(clock),
            process=ProcessMetrics(clock),
            upstream=lambda: UpstreamNumbers({}, 0, {}),
            catalogue=catalogue,
            commands=commands,
            operating=operating,
            history=History(self._database, clock, instances),
            caches=Caches(
                Cache("templates", clock, ttl=60, max_size=2),
                Cache("products", clock, ttl=30, max_size=2),
            ),
            rules=rules or Rules(),
            allow_private_webhooks=allow_private_webhooks,
        )
        gateway = create_api(services, extra=extra)
        transport = httpx2.ASGITransport(app=gateway, client=client)
        http = httpx2.AsyncClient(transport=transport, base_url="http://novitai")
        api = Api(gateway, services, http, instances, commands, dependencies, jobs, clock, texts)
        self._open.append(api)
        return api

    def _operating(self, vault: Vault) -> InstanceActions:
        """Build the service that accepts verbs; no worker executes them."""
        database, clock, ids = self._database, self._clock, Ids()
        jobs = EmbeddedEngine(database, clock, ids)
        recorder = Recorder(clock, ids, Outbox(clock, ids, jobs))
        core = Core(database, vault, clock, ids, jobs, recorder)
        follow_ups = FollowUps(core, FailedInstancePolicy.STOP)
        return InstanceActions(core, follow_ups)

    async def close(self) -> None:
        """Close all clients and flush the key rings."""
        for api in self._open:
            await api.client.aclose()
            await api.services.keys.flush()
