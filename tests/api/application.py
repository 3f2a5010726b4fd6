# SPDX-License-Identifier: Apache-2.0
"""The HTTP application with a real key ring and in-memory services."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import orjson

from novitai.api.app import create_api
from novitai.api.http.application import Rules
from novitai.api.routes.instances import whole_view
from novitai.api.routing.router import Route
from novitai.api.services import CataloguePort, HealthSources, JobSources, Services
from novitai.app import Application
from novitai.domain.actor import Actor
from novitai.domain.api_key import Scope
from novitai.domain.requests import CreateRequest
from novitai.errors import ApiError, NotFound
from novitai.ids import Ids
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
from novitai.lifecycle.queries.history import History
from novitai.lifecycle.queries.instances import InstanceQuery, Shown
from novitai.lifecycle.queries.ready_views import ReadyAnswer, ReadyPage
from novitai.lifecycle.sessions import Sessions
from novitai.store.engine.database import Database
from novitai.store.vault import Vault
from novitai.telemetry.requests import RequestMetrics
from novitai.testing import ManualClock
from novitai.web import BUILT
from tests.api.client import Http

T = TypeVar("T")

CREATE: Mapping[str, object] = {
    "name": "my-instance",
    "productName": "gpu-basic",
    "templateId": "tmpl-12345",
}


@dataclass
class FakeInstances:
    """Instances in memory that record how they were called."""

    views: dict[str, Any] = field(default_factory=dict)
    observed_at: int | None = None
    error: ApiError | Exception | None = None
    next_cursor: str | None = None
    requests: list[CreateRequest] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    deadlines: list[int | None] = field(default_factory=list)
    queries: list[InstanceQuery] = field(default_factory=list)

    def create(self, request: CreateRequest, *, actor: Actor) -> Command[Created]:
        async def prepare(deadline: int | None) -> Completed[Created]:
            if self.error is not None:
                raise self.error
            self.requests.append(request)
            self.actors.append(actor)
            self.deadlines.append(deadline)
            return Completed(Created("inst_1697843200_abc123", 1_697_797_800_000))

        return Command(prepare)

    async def get(self, instance_id: str) -> Shown:
        if self.error is not None:
            raise self.error
        if instance_id not in self.views:
            raise NotFound(f"Instance '{instance_id}' not found", code="INSTANCE_NOT_FOUND")
        return Shown(self.views[instance_id], self.observed_at)

    async def details(self, instance_id: str) -> ReadyAnswer:
        shown = await self.get(instance_id)
        tag = f'W/"{hash(orjson.dumps(shown.view))}"'
        return ReadyAnswer(orjson.dumps(whole_view(shown)), tag)

    async def page(self, query: InstanceQuery) -> ReadyPage:
        if self.error is not None:
            raise self.error
        self.queries.append(query)
        views: Sequence[object] = list(self.views.values())
        body = {"instances": views[: query.limit], "total": len(views)}
        more = {} if self.next_cursor is None else {"nextCursor": self.next_cursor}
        return ReadyPage(
            orjson.dumps({**body, **more}), self.next_cursor, len(views), (), 0, "cur_0"
        )


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
            account_held=self._never_held,
            clock_went_back=lambda: None,
        )

    async def _queue_seen(self) -> int:
        if isinstance(self.queue_seen, Exception):
            raise self.queue_seen
        return self.queue_seen

    async def _never_held(self) -> bool:
        return False

    async def _ping(self) -> None:
        if self.database is not None:
            raise self.database


@dataclass
class Api(Http):
    """The application under test, with its services that tests steer."""

    services: Services
    instances: FakeInstances
    commands: NotingCommands
    dependencies: Dependencies
    jobs: JobMetrics
    clock: ManualClock

    def bearer(self, scope: Scope = Scope.WRITE) -> dict[str, str]:
        """Return the header with a key of a scope."""
        return {"Authorization": f"Bearer {self.keys[scope]}"}


class ApiFactory:
    """Builds HTTP applications over one control plane, some of whose services tests steer."""

    def __init__(self, app: Application, clock: ManualClock) -> None:
        self._app = app
        self._clock = clock
        self._open: list[Api] = []

    async def make(
        self,
        *,
        extra: tuple[Route, ...] = (),
        rules: Rules | None = None,
        client: tuple[str, int] = ("127.0.0.1", 50000),
        allow_private_webhooks: bool = False,
        public_url: str | None = None,
        dashboard: Path = BUILT,
        admin_api_key: str | None = None,
        catalogue: CataloguePort | None = None,
    ) -> Api:
        """Build an application."""
        app, clock = self._app, self._clock
        vault = Vault(b"0123456789abcdef0123456789abcdef")
        app.keys = KeyRing(
            database=app.database,
            vault=vault,
            clock=clock,
            ids=Ids(),
            admin_api_key=admin_api_key,
        )
        app.sessions = Sessions(
            database=app.database, vault=vault, clock=clock, ids=Ids(), keys=app.keys
        )
        jobs = JobMetrics(clock)
        dependencies = Dependencies(queue_seen=clock.now())
        instances = FakeInstances()
        commands = NotingCommands(app.database, clock)

        async def queue_sizes() -> Mapping[str, int]:
            if dependencies.queue_sizes is None:
                raise ConnectionError("gone")
            return dependencies.queue_sizes

        services = replace(
            app.services(),
            create_instance=instances,
            instances=instances,
            health=dependencies.sources(),
            jobs=JobSources(jobs.snapshot, queue_sizes, lambda: 0),
            requests=RequestMetrics(clock),
            catalogue=catalogue or app.catalogue,
            commands=commands,
            history=History(app.database, clock, instances),
            caches=Caches(
                Cache("templates", clock, ttl=60, max_size=2),
                Cache("products", clock, ttl=30, max_size=2),
            ),
            rules=rules or Rules(),
            allow_private_webhooks=allow_private_webhooks,
            public_url=public_url,
            dashboard=dashboard,
        )
        http = await Http.open(app, create_api(services, extra=extra), client)
        api = Api(
            app,
            http.client,
            http.keys,
            http.gateway,
            services,
            instances,
            commands,
            dependencies,
            jobs,
            clock,
        )
        self._open.append(api)
        return api

    async def close(self) -> None:
        """Close all clients and flush the key rings."""
        for api in self._open:
            await api.client.aclose()
            await api.services.keys.flush()
            await api.services.sessions.flush()
