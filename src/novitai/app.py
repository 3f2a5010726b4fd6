# SPDX-License-Identifier: Apache-2.0
"""The one place where the rooms are built and wired together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import httpx2

from novitai.clock import Clock
from novitai.errors import SettingsError
from novitai.ids import Ids
from novitai.jobs.embedded import EmbeddedEngine
from novitai.jobs.postgresql import PostgresqlEngine
from novitai.jobs.upkeep import Presence
from novitai.lifecycle.applying import Applier
from novitai.lifecycle.caching import Cache, Caches
from novitai.lifecycle.catalogue import Catalogue
from novitai.lifecycle.create import CreateVerb, Policy
from novitai.lifecycle.housekeeping import Housekeeping
from novitai.lifecycle.idempotency import Idempotency
from novitai.lifecycle.instances import Instances
from novitai.lifecycle.keys import KeyRing
from novitai.lifecycle.readiness import Prober
from novitai.lifecycle.reap import ReapVerb
from novitai.lifecycle.recording import Recorder
from novitai.lifecycle.steps import Runner
from novitai.lifecycle.sync import JOB as SYNC_JOB
from novitai.lifecycle.sync import Sync
from novitai.settings import Settings
from novitai.store import coordination, operations
from novitai.store.database import Database
from novitai.store.opening import open_database
from novitai.store.vault import Vault, load_or_make_secret
from novitai.upstream.client import NovitaClient
from novitai.upstream.gateway import CallObserver, ignore

CREATE_CONCURRENCY: Final = 64
REAP_CONCURRENCY: Final = 16
STOP_GRACE: Final = 6.0
"""Seconds that steps in hand get to finish when the process ends."""

JobEngines = EmbeddedEngine | PostgresqlEngine
MakeEngine = Callable[[Settings, Database, Clock, Ids], JobEngines]


@dataclass(frozen=True, slots=True)
class Outside:
    """Ways to reach what is outside of the process; tests put their own in."""

    upstream: httpx2.AsyncBaseTransport | None = None
    probes: httpx2.AsyncBaseTransport | None = None


class Application:
    """Everything one process holds. `open` builds it, `start` sets it going, `stop` ends it."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        ids: Ids,
        database: Database,
        vault: Vault,
        installation_id: str,
        *,
        outside: Outside,
        observer: CallObserver,
        engine: MakeEngine,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.ids = ids
        self.database = database
        key = settings.novita_api_key
        self.client = NovitaClient.build(
            base_url=settings.upstream_url,
            api_key=key.get_secret_value() if key else "",
            calls_per_minute=settings.upstream_calls_per_minute,
            timeout=settings.upstream_timeout_seconds,
            clock=clock,
            ids=ids,
            observer=observer,
            transport=outside.upstream,
        )
        self.jobs = engine(settings, database, clock, ids)
        admin_key = settings.admin_api_key
        self.keys = KeyRing(
            database=database,
            vault=vault,
            clock=clock,
            ids=ids,
            admin_api_key=admin_key.get_secret_value() if admin_key else None,
        )
        self.catalogue = Catalogue(self.client, clock)
        recorder = Recorder(clock, ids)
        self.instances = Instances(
            database,
            self.catalogue,
            vault,
            clock,
            ids,
            self.jobs,
            recorder,
            Idempotency(database, clock),
            placement_deadline=settings.placement_deadline_seconds,
        )
        self.prober = Prober(outside.probes)
        self.runner = Runner(database, clock, ids, self.jobs, recorder)
        policy = Policy(installation_id, settings.failed_instance_policy)
        self.runner.register(
            CreateVerb(
                database,
                self.client,
                self.catalogue,
                self.prober,
                vault,
                clock,
                ids,
                policy,
            ),
            concurrency=CREATE_CONCURRENCY,
        )
        self.runner.register(ReapVerb(self.client, clock), concurrency=REAP_CONCURRENCY)
        self.jobs.metrics.register(SYNC_JOB)
        self.sync = Sync(
            database,
            self.client,
            Applier(database, clock, self.jobs, recorder, vault),
            clock,
            holder=ids.prefixed("proc"),
            installation_id=installation_id,
            interval=settings.sync_interval_seconds,
            absent_after=settings.absent_after_seconds,
            call_timeout=settings.upstream_timeout_seconds,
            measured=self._measure_sync,
        )
        self.housekeeping = Housekeeping(database, clock)
        self._works = False

    @classmethod
    async def open(
        cls,
        settings: Settings,
        clock: Clock,
        ids: Ids,
        *,
        outside: Outside | None = None,
        observer: CallObserver = ignore,
        engine: MakeEngine | None = None,
    ) -> Application:
        """Open the store and build everything on it; nothing runs before `start`.

        Raises:
            SettingsError: a setting that the store needs is missing or wrong.
            StartupError: the store cannot be used.
        """
        vault = Vault(_secret_key(settings))
        database = await open_database(settings.database, clock)
        try:
            installation_id = await database.write(
                partial(coordination.installation_id, fresh=ids.installation())
            )
            return cls(
                settings,
                clock,
                ids,
                database,
                vault,
                installation_id,
                outside=outside or Outside(),
                observer=observer,
                engine=engine or make_engine,
            )
        except BaseException:
            await database.close()
            raise

    async def start(self, *, work: bool) -> None:
        """Begin: with `work`, take steps and list the account; without, only accept and read."""
        self._works = work
        if isinstance(self.jobs, PostgresqlEngine):
            await self.jobs.start(consume=work)
        else:
            # The only process on this store: whatever lease stands is of one that has ended.
            await self.database.write(operations.release_all)
            await self.database.write(coordination.release_all_leases)
            await self.jobs.start()
        if work:
            self.sync.start()
            self.housekeeping.start()

    async def stop(self) -> None:
        """End: finish or release the steps in hand, then let go of everything."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.database.close)
            stack.push_async_callback(self.client.aclose)
            stack.push_async_callback(self.prober.aclose)
            stack.push_async_callback(self.keys.settle)
            stack.push_async_callback(self.jobs.stop, STOP_GRACE)
            if self._works:
                stack.push_async_callback(self.housekeeping.stop)
                stack.push_async_callback(self.sync.stop)

    def caches(self) -> Caches:
        """Return the caches there are."""
        catalogue = self.catalogue
        known: list[Cache[object]] = [
            catalogue.products_cache,  # type: ignore[list-item]  # a cache is used for its counters
            catalogue.templates_cache,  # type: ignore[list-item]
            catalogue.clusters_cache,  # type: ignore[list-item]
        ]
        return Caches(*known)

    def _measure_sync(self, seconds: float, succeeded: bool) -> None:
        report: Callable[[str, float], None] = self.jobs.metrics.processed
        if not succeeded:
            report = self.jobs.metrics.failed
        report(SYNC_JOB, seconds)


def make_engine(settings: Settings, database: Database, clock: Clock, ids: Ids) -> JobEngines:
    """Make the engine that suits the store: embedded, or shared by processes on PostgreSQL."""
    if settings.embedded:
        return EmbeddedEngine(database, clock, ids)
    presence = Presence(coordination.note_worker, coordination.worker_seen_at)
    return PostgresqlEngine(database, settings.database, clock, ids, presence=presence)


def _secret_key(settings: Settings) -> bytes:
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value().encode()
    if settings.embedded:
        return load_or_make_secret(settings.data_dir.expanduser())
    raise SettingsError(
        "NOVITAI_SECRET_KEY: required with PostgreSQL, the same in every process; "
        "make one with: openssl rand -hex 32"
    )
