# SPDX-License-Identifier: Apache-2.0
"""The services that the routes call. `novitai.app` builds them and passes them in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from novitai.api.http.application import Rules
from novitai.api.http.limits import Quota
from novitai.clock import Clock
from novitai.domain.actor import Actor
from novitai.domain.instance import BillingMode
from novitai.domain.product import Offer, Template
from novitai.domain.requests import CreateRequest
from novitai.ids import Ids
from novitai.jobs.metrics import JobStats
from novitai.lifecycle.api_keys import KeyRing
from novitai.lifecycle.catalogue.cache import Caches
from novitai.lifecycle.commands.budgets import Budgets
from novitai.lifecycle.commands.change_instance import InstanceChanges
from novitai.lifecycle.commands.create_instance import Created
from novitai.lifecycle.commands.idempotency import Command, Commands
from novitai.lifecycle.commands.instance_actions import InstanceActions
from novitai.lifecycle.commands.instance_limits import InstanceLimits
from novitai.lifecycle.commands.ownership import Ownership
from novitai.lifecycle.commands.quotes import Quotes
from novitai.lifecycle.maintenance.clock_watch import WentBack
from novitai.lifecycle.maintenance.fleet_count import FleetCount
from novitai.lifecycle.money.balance import Balance
from novitai.lifecycle.money.costs import Costs
from novitai.lifecycle.money.reconciliation import BillReconciler
from novitai.lifecycle.queries.event_streams import EventStreams
from novitai.lifecycle.queries.history import History
from novitai.lifecycle.queries.instances import InstanceQuery, Shown
from novitai.lifecycle.queries.ready_views import ReadyAnswer, ReadyPage
from novitai.lifecycle.queries.utilization import UtilizationReader
from novitai.lifecycle.sessions import Sessions
from novitai.lifecycle.webhooks.deliveries import Deliveries
from novitai.lifecycle.webhooks.endpoints import Webhooks
from novitai.lifecycle.webhooks.metrics import DeliveryMetrics
from novitai.store.engine.metrics import StoreMetrics
from novitai.telemetry.connections import ConnectionCount
from novitai.telemetry.process import ProcessMetrics
from novitai.telemetry.requests import RequestMetrics
from novitai.upstream.metrics import UpstreamNumbers
from novitai.web import BUILT

if TYPE_CHECKING:  # it imports the Redis client, which most installations do not need
    from novitai.api.http.shared_limits import SharedStore

FAILED_AUTHENTICATIONS: Final = Quota(capacity=20, per_minute=20)
SESSION_CALLS: Final = Quota(capacity=600, per_minute=600)
"""What all sessions of one key may call: a page asks for more at once than a program."""


class CreatePort(Protocol):
    """Accepts requests for instances, as `CreateCommand` does."""

    def create(self, request: CreateRequest, *, actor: Actor) -> Command[Created]:
        """Accept a request of an actor."""
        ...


class ReadPort(Protocol):
    """Reads instances, as `InstanceReader` does."""

    async def get(self, instance_id: str) -> Shown:
        """Show one instance."""
        ...

    async def details(self, instance_id: str) -> ReadyAnswer:
        """Show one instance as JSON."""
        ...

    async def page(self, query: InstanceQuery) -> ReadyPage:
        """List instances."""
        ...


class CataloguePort(Protocol):
    """Lists what Novita offers; the data may be as old as the caches allow.

    Each method raises `UpstreamError` if Novita does not answer and nothing is cached.
    """

    async def regions(self) -> Sequence[str]:
        """List the codes of the regions that a request may name."""
        ...

    async def offers(self, billing_mode: BillingMode, gpu_num: int) -> Sequence[Offer]:
        """List the offers of all clusters for `gpu_num` GPUs in a billing mode."""
        ...

    async def templates(self) -> Sequence[Template]:
        """List the templates."""
        ...


@dataclass(frozen=True, slots=True)
class HealthSources:
    """The sources of `/health`; none of them calls Novita.

    Attributes:
        upstream_down: Whether Novita's API counts as down, judged by recent calls.
        account_held: Whether write calls are held because the account differs from the records.
        queue_seen: When a worker was last seen, in Unix milliseconds; raises if the queue cannot
            be reached.
        cache_works: Whether the caches pass their self-test.
        ping: Returns if the database answers; raises otherwise.
        clock_went_back: When the system clock was set back; None if it was not.
    """

    upstream_down: Callable[[], bool]
    queue_seen: Callable[[], Awaitable[int]]
    cache_works: Callable[[], bool]
    ping: Callable[[], Awaitable[None]]
    account_held: Callable[[], Awaitable[bool]]
    clock_went_back: Callable[[], WentBack | None]


@dataclass(frozen=True, slots=True)
class JobSources:
    """The sources of the job metrics.

    Attributes:
        stats: Counts by job type, such as `create_instance`.
        queue_sizes: Number of queued jobs by job type.
        fenced_writes: Number of writes refused because another worker had claimed the work.
    """

    stats: Callable[[], Mapping[str, JobStats]]
    queue_sizes: Callable[[], Awaitable[Mapping[str, int]]]
    fenced_writes: Callable[[], int]


@dataclass(frozen=True, slots=True)
class WebhookSources:
    """Webhooks, deliveries and their metrics."""

    webhooks: Webhooks
    deliveries: Deliveries
    metrics: DeliveryMetrics


@dataclass(frozen=True, slots=True)
class CostSources:
    """The ledger, Novita's balance, and its bills."""

    costs: Costs
    balance: Balance
    reconciliation: BillReconciler


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything the routes need.

    Attributes:
        event_streams: The live streams of events of this process.
        installation_id: Tells this installation from others, such as in the names of cookies.
        dashboard: The folder of the built files of the dashboard.
        public_url: The URL under which clients reach the server, if it is configured.
        shared_buckets: Shares the rate limits between processes; None keeps them in this one.
    """

    clock: Clock
    ids: Ids
    keys: KeyRing
    sessions: Sessions
    create_instance: CreatePort
    instances: ReadPort
    health: HealthSources
    jobs: JobSources
    requests: RequestMetrics
    upstream: Callable[[], UpstreamNumbers]
    process: ProcessMetrics
    store: StoreMetrics
    connections: ConnectionCount
    fleet: FleetCount
    catalogue: CataloguePort
    operating: InstanceActions
    changes: InstanceChanges
    history: History
    event_streams: EventStreams
    ownership: Ownership
    quotes: Quotes
    utilization: UtilizationReader
    limits: InstanceLimits
    webhooks: WebhookSources
    costs: CostSources
    budgets: Budgets
    commands: Commands
    caches: Caches
    rules: Rules
    quota: Quota
    failures: Quota = FAILED_AUTHENTICATIONS
    session_quota: Quota = SESSION_CALLS
    shared_buckets: SharedStore | None
    allow_private_webhooks: bool
    installation_id: str
    dashboard: Path = BUILT
    public_url: str | None = None
