# SPDX-License-Identifier: Apache-2.0
"""The composition root: builds all packages' objects and wires them together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ssl import SSLContext
from typing import TYPE_CHECKING, Final

import httpx2

from novitai.clock import Clock
from novitai.crash_points import CrashAt, arm
from novitai.egress.guard import AddressGuard, EndpointGuard, UpstreamReach
from novitai.egress.resolving import Resolver, system_resolver
from novitai.egress.sending import Sender
from novitai.egress.wire import Wire
from novitai.ids import Ids
from novitai.jobs.supervision import Supervisor
from novitai.lifecycle.account import Account
from novitai.lifecycle.catalogue.cache import Cache, Caches
from novitai.lifecycle.catalogue.catalogue import Catalogue
from novitai.lifecycle.commands.budgets import Budgets
from novitai.lifecycle.commands.change_instance import InstanceChanges
from novitai.lifecycle.commands.create_instance import CreateCommand
from novitai.lifecycle.commands.idempotency import Commands
from novitai.lifecycle.commands.instance_actions import InstanceActions
from novitai.lifecycle.commands.instance_limits import InstanceLimits
from novitai.lifecycle.commands.ownership import Ownership
from novitai.lifecycle.commands.placing import RequestPlacer
from novitai.lifecycle.commands.quotes import Quotes
from novitai.lifecycle.core import Core
from novitai.lifecycle.events.outbox import Outbox
from novitai.lifecycle.events.recorder import Recorder
from novitai.lifecycle.limits.autostop import IdleSampler
from novitai.lifecycle.limits.reviews import LimitReviews
from novitai.lifecycle.limits.sweep import LimitSweep
from novitai.lifecycle.maintenance.clock_watch import ClockWatch
from novitai.lifecycle.maintenance.fleet_count import FleetCount
from novitai.lifecycle.maintenance.housekeeping import Housekeeping
from novitai.lifecycle.maintenance.retention import Retention
from novitai.lifecycle.maintenance.rotation import SecretRotation
from novitai.lifecycle.money.balance import Balance
from novitai.lifecycle.money.costs import Costs
from novitai.lifecycle.money.reconciliation import BillReconciler
from novitai.lifecycle.operations.build import build_runner
from novitai.lifecycle.operations.follow_ups import FollowUps
from novitai.lifecycle.operations.late_calls import LateCalls
from novitai.lifecycle.operations.probes import Prober
from novitai.lifecycle.queries.event_streams import EventStreams
from novitai.lifecycle.queries.history import History
from novitai.lifecycle.queries.instances import InstanceReader
from novitai.lifecycle.queries.ready_views import ReadyViews
from novitai.lifecycle.queries.utilization import UtilizationReader, UtilizationSource
from novitai.lifecycle.reconcile.apply import Applier
from novitai.lifecycle.reconcile.loop import JOB as SYNC_JOB
from novitai.lifecycle.reconcile.loop import Sync
from novitai.lifecycle.reconcile.on_demand import SyncRequests
from novitai.lifecycle.sessions import Sessions
from novitai.lifecycle.webhooks.deliveries import Deliveries
from novitai.lifecycle.webhooks.delivery_worker import Deliverer
from novitai.lifecycle.webhooks.endpoints import Webhooks
from novitai.lifecycle.webhooks.installation_secret import signing_secrets
from novitai.opening import MakeEngine, Store, make_engine, make_key_ring, open_unguarded
from novitai.settings import Environment, Settings
from novitai.store.engine.database import Database
from novitai.store.queries import coordination, leases, operations, webhook_lines
from novitai.store.vault import Vault
from novitai.telemetry.connections import ConnectionCount
from novitai.telemetry.process import ProcessMetrics
from novitai.telemetry.requests import RequestMetrics
from novitai.upstream.client import NovitaClient
from novitai.upstream.metrics import CallMetrics, UpstreamNumbers

if TYPE_CHECKING:
    from novitai.api.http.application import HttpApplication
    from novitai.api.http.shared_limits import SharedStore
    from novitai.api.services import Services

STOP_GRACE: Final = 5.0
"""Seconds for running steps to finish when the process shuts down."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Transports and name resolution to the outside; tests replace them."""

    upstream: httpx2.AsyncBaseTransport | None = None
    probes: httpx2.AsyncBaseTransport | None = None
    webhooks: httpx2.AsyncBaseTransport | None = None
    resolve: Resolver | None = None
    """Resolves the names of upstream and of probed endpoints."""
    tls: SSLContext | None = None
    """By default one with the certificates of the machine."""


class Application:
    """The objects of one process: `open` builds them, `start` starts them, `stop` ends them."""

    def __init__(  # noqa: PLR0915 - one statement for each part that it builds
        self,
        settings: Settings,
        clock: Clock,
        ids: Ids,
        database: Database,
        vault: Vault,
        installation_ids: tuple[str, ...],
        signing_secrets: Sequence[str],
        *,
        outside: Outside,
        engine: MakeEngine,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.ids = ids
        self.database = database
        self.installation_id = installation_id = installation_ids[0]
        self.signing_secrets = tuple(signing_secrets)
        # Created once for all clients, because this reads the certificates of the machine.
        tls = outside.tls or httpx2.create_ssl_context(trust_env=False)
        self.calls = CallMetrics()
        self.client = _client(settings, clock, ids, self.calls, outside, tls)
        self.jobs = engine(settings, database, clock, ids)
        self.keys = make_key_ring(settings, Store(database, vault), clock, ids)
        self.sessions = Sessions(
            database=database, vault=vault, clock=clock, ids=ids, keys=self.keys
        )
        self.catalogue = Catalogue(self.client, clock)
        outbox = Outbox(clock, ids, self.jobs)
        self.recorder = recorder = Recorder(clock, ids, outbox)
        core = Core(database, vault, clock, ids, self.jobs, recorder)
        follow_ups = FollowUps(core, settings.failed_instance_policy)
        self.limits = LimitReviews(core, follow_ups)
        self.limits.register()
        utilization = UtilizationSource(self.client, clock)
        IdleSampler(core, utilization, self.limits).register()
        self.budgets = Budgets(core, self.limits)
        self.limit_sweep = LimitSweep((self.limits.sweep, self.budgets.sweep), clock)
        self.instance_limits = InstanceLimits(core, self.limits)
        self.commands = Commands(database, clock)
        self.ready = ReadyViews(database, clock)
        self.instances = InstanceReader(database, self.ready)
        placer = RequestPlacer(self.catalogue, database, clock)
        self.quotes = Quotes(core, placer)
        self.create_instance = CreateCommand(
            core,
            placer,
            self.quotes,
            self.limits,
            placement_deadline=settings.placement_deadline_seconds,
        )
        self.operating = InstanceActions(core, follow_ups, self.limits)
        self.changes = InstanceChanges(core, self.limits)
        sender = Sender(
            AddressGuard(allow_private=settings.webhook_allow_private),
            clock,
            transport=outside.webhooks,
            tls=tls,
        )
        self.deliverer = Deliverer(
            database, clock, ids, self.jobs, recorder, vault, sender, secrets=signing_secrets
        )
        self.deliverer.register()
        self.webhooks = Webhooks(database, clock, ids, vault, outbox, self.deliverer, sender)
        self.deliveries = Deliveries(database, clock, self.jobs)
        self.utilization = UtilizationReader(database, utilization, clock)
        self.history = History(database, clock, self.instances)
        self.event_streams = EventStreams(database, clock, self.sessions.usable)
        self.costs = Costs(database, clock)
        self.balance = Balance(self.client.balance, clock)
        self.fleet_count = FleetCount(
            database,
            clock,
            self.balance.read,
            holder=ids.prefixed("proc"),
            listing_interval=settings.sync_interval_seconds,
        )
        self.reconciliation = BillReconciler(core, self.client, holder=ids.prefixed("proc"))
        resolve = outside.resolve or system_resolver
        reach = UpstreamReach(settings.upstream_url, clock, resolve)
        self.prober = Prober(EndpointGuard(reach, resolve), Wire(tls, outside.probes))
        late_calls = LateCalls(core)
        self.account = Account(core, settings.orphans)
        self.ownership = Ownership(core, follow_ups, self.account, installation_ids)
        self.runner = build_runner(
            core,
            settings,
            self.client,
            self.catalogue,
            self.prober,
            follow_ups,
            late_calls,
            installation_id=installation_id,
        )
        self.clock_watch = ClockWatch(
            database,
            clock,
            placement_deadline=settings.placement_deadline_seconds,
            jumped=self.runner.look_again,
        )
        self.jobs.metrics.register(SYNC_JOB)
        call_timeout = settings.upstream_timeout_seconds
        self.sync = Sync(
            core,
            self.client,
            Applier(core, follow_ups, late_calls, self.limits, call_timeout=call_timeout),
            self.account,
            holder=ids.prefixed("proc"),
            installation_ids=installation_ids,
            interval=settings.sync_interval_seconds,
            absent_after=settings.absent_after_seconds,
            call_timeout=call_timeout,
            steady=self.clock_watch.look,
            held=self.runner.hold_back,
            measured=self._measure_sync,
        )
        SyncRequests(database, self.sync, clock).register(self.jobs)
        retention = Retention(
            database, clock, days=settings.retention_days, holder=ids.prefixed("proc")
        )
        rotation = SecretRotation(database, vault)
        self.housekeeping = Housekeeping(database, clock, rotation.once, retention.once)
        self.requests = RequestMetrics(clock)
        self.process = ProcessMetrics(clock)
        self.connections = ConnectionCount()
        self._self_check: Cache[int] = Cache("self-check", clock, ttl=60, max_size=1)
        self._shared: SharedStore | None = None
        self._works = False
        self._winding_down: asyncio.Task[None] | None = None
        self.loops = Supervisor()

    @classmethod
    async def open(
        cls,
        settings: Settings,
        clock: Clock,
        ids: Ids,
        *,
        outside: Outside | None = None,
        engine: MakeEngine | None = None,
    ) -> Application:
        """Open the store and build all objects on it; no task runs before `start`.

        Raises:
            SettingsError: a setting that the store needs is missing or wrong.
            StartupError: the store cannot be used.
        """
        if settings.test_crash_at is not None:
            arm(CrashAt.parse(settings.test_crash_at))
        store = await open_unguarded(settings, clock)
        try:
            installation_id = await store.database.write(
                partial(
                    coordination.kept_value,
                    name=coordination.INSTALLATION_ID,
                    fresh=ids.installation(),
                )
            )
            installation_ids = await store.database.read(coordination.installation_ids)
            secret = settings.webhook_secret
            secrets = await signing_secrets(
                secret.get_secret_value() if secret else None, store.database, store.vault, ids
            )
            return cls(
                settings,
                clock,
                ids,
                store.database,
                store.vault,
                (installation_id, *installation_ids[1:]),
                secrets,
                outside=outside or Outside(),
                engine=engine or make_engine,
            )
        except BaseException:  # close the database and re-raise
            await store.database.close()
            raise

    async def start(self, *, work: bool) -> None:
        """Start the tasks. Without `work`, no steps are taken and the account is not listed."""
        self._works = work
        await self.clock_watch.begin()
        if self.jobs.is_only:
            # This is the only process on the store, so all leases belong to processes that ended.
            await self.database.write(operations.release_all)
            await self.database.write(webhook_lines.release_all)
            await self.database.write(leases.release_all)
        self.loops.watch(*await self.jobs.start(consume=work))
        if work:
            await self.database.write(self.account.tell_restored)
            self.runner.look_again()
            self.loops.watch(self.sync.start(), self.housekeeping.start(), self.limit_sweep.start())
            self.loops.watch(self.reconciliation.start(), self.fleet_count.start())
        self.loops.watch(self.clock_watch.start())

    async def wind_down(self) -> None:
        """Take no new steps, and finish or release running ones; requests are still answered.

        Takes up to `STOP_GRACE` seconds, and the time that the database needs. May be called twice.
        """
        self.loops.close()
        if self._winding_down is None:
            self._winding_down = asyncio.create_task(self._wind_down(), name="wind-down")
        await asyncio.shield(self._winding_down)

    async def stop(self) -> None:
        """Shut down: finish or release running steps, then close all connections and the store."""
        self.loops.close()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.database.close)
            stack.push_async_callback(self.client.aclose)
            stack.push_async_callback(self.prober.aclose)
            if self._shared is not None:
                stack.push_async_callback(self._shared.aclose)
            stack.push_async_callback(self.keys.flush)
            stack.push_async_callback(self.sessions.flush)
            stack.push_async_callback(self.wind_down)

    async def _wind_down(self) -> None:
        # Concurrently, so that one that hangs does not use up the time of the others.
        ending = [self.clock_watch.stop(), self.jobs.stop(STOP_GRACE), self.event_streams.stop()]
        if self._works:
            ending += [self.sync.stop(), self.housekeeping.stop(), self.limit_sweep.stop()]
            ending += [self.reconciliation.stop(), self.fleet_count.stop()]
        for ended in await asyncio.gather(*ending, return_exceptions=True):
            if ended is not None:
                raise ended

    def caches(self) -> Caches:
        """Return all caches."""
        catalogue = self.catalogue
        return Caches(
            self.ready.details,
            catalogue.products_cache,
            catalogue.templates_cache,
            catalogue.clusters_cache,
        )

    def services(self) -> Services:
        """Return the objects that the API's routes need."""
        from novitai.api.http.application import Rules
        from novitai.api.http.limits import Quota
        from novitai.api.services import (
            CostSources,
            HealthSources,
            JobSources,
            Services,
            WebhookSources,
        )

        settings = self.settings
        per_minute = settings.rate_limit_per_minute
        return Services(
            clock=self.clock,
            ids=self.ids,
            keys=self.keys,
            sessions=self.sessions,
            create_instance=self.create_instance,
            instances=self.instances,
            health=HealthSources(
                upstream_down=lambda: self.client.health().down,
                queue_seen=self.jobs.last_seen,
                cache_works=self._cache_works,
                ping=self.database.ping,
                account_held=self.ownership.blocked,
                clock_went_back=lambda: self.clock_watch.went_back,
            ),
            jobs=JobSources(self.jobs.metrics.snapshot, self.jobs.queue_sizes, self._fenced_writes),
            requests=self.requests,
            upstream=self._upstream_numbers,
            process=self.process,
            store=self.database.metrics,
            connections=self.connections,
            fleet=self.fleet_count,
            caches=self.caches(),
            commands=self.commands,
            catalogue=self.catalogue,
            quotes=self.quotes,
            utilization=self.utilization,
            operating=self.operating,
            changes=self.changes,
            history=self.history,
            event_streams=self.event_streams,
            ownership=self.ownership,
            limits=self.instance_limits,
            webhooks=WebhookSources(self.webhooks, self.deliveries, self.deliverer.metrics),
            costs=CostSources(self.costs, self.balance, self.reconciliation),
            budgets=self.budgets,
            rules=Rules(
                insist_on_https=settings.environment is Environment.PRODUCTION,
                trusted_proxies=settings.trusted_proxies,
            ),
            quota=Quota(per_minute + settings.rate_limit_burst, per_minute),
            shared_buckets=self._shared_buckets(),
            allow_private_webhooks=settings.webhook_allow_private,
            installation_id=self.installation_id,
            public_url=settings.public_url,
        )

    def api(self) -> HttpApplication:
        """Build the HTTP application; a process without HTTP does not import it."""
        from novitai.api.app import create_api

        return create_api(self.services())

    def monitoring_api(self) -> HttpApplication:
        """Build the HTTP application of a worker, with its metrics and health alone."""
        from novitai.api.app import create_monitoring_api

        return create_monitoring_api(self.services())

    def _shared_buckets(self) -> SharedStore | None:
        """Return the store that shares the rate limit between processes; created once."""
        url = self.settings.redis_url
        if self._shared is None and url is not None:
            from novitai.api.http.shared_limits import SharedStore

            self._shared = SharedStore(
                url.get_secret_value(), f"novitai:{self.installation_id}", self.clock
            )
        return self._shared

    def _upstream_numbers(self) -> UpstreamNumbers:
        client = self.client
        return UpstreamNumbers(
            self.calls.endpoints, client.permits_waiting, client.breaker_states()
        )

    def _fenced_writes(self) -> int:
        """Count the fenced writes of steps and of deliveries."""
        return self.runner.fenced_writes + self.deliverer.metrics.fenced

    def _cache_works(self) -> bool:
        """Check that a cache returns a value that was put into it."""
        now = self.clock.now()
        self._self_check.put("now", now)
        return self._self_check.peek("now") == now

    def _measure_sync(self, seconds: float, succeeded: bool) -> None:
        report: Callable[[str, float], None] = self.jobs.metrics.processed
        if not succeeded:
            report = self.jobs.metrics.failed
        report(SYNC_JOB, seconds)


def _client(
    settings: Settings,
    clock: Clock,
    ids: Ids,
    calls: CallMetrics,
    outside: Outside,
    tls: SSLContext,
) -> NovitaClient:
    key, proxy = settings.novita_api_key, settings.upstream_proxy
    return NovitaClient.build(
        base_url=settings.upstream_url,
        api_key=key.get_secret_value() if key else "",
        calls_per_minute=settings.upstream_calls_per_minute,
        timeout=settings.upstream_timeout_seconds,
        clock=clock,
        ids=ids,
        observer=calls,
        transport=outside.upstream,
        tls=tls,
        proxy=proxy.get_secret_value() if proxy else None,
    )
