# SPDX-License-Identifier: Apache-2.0
"""The services that the routes call. `novitai.app` builds them and passes them in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from novitai.api.http.limits import Quota
from novitai.api.http.middleware import Rules
from novitai.clock import Clock
from novitai.domain.instance import BillingMode
from novitai.domain.product import Offer, Template
from novitai.domain.requests import CreateRequest
from novitai.ids import Ids
from novitai.jobs.metrics import JobStats
from novitai.lifecycle.api_keys import KeyRing
from novitai.lifecycle.catalogue.cache import Caches
from novitai.lifecycle.commands.create_instance import Created
from novitai.lifecycle.commands.idempotency import Command, Commands
from novitai.lifecycle.commands.instance_actions import InstanceActions
from novitai.lifecycle.commands.ownership import Ownership
from novitai.lifecycle.maintenance.clock_watch import WentBack
from novitai.lifecycle.queries.details_cache import Rendered
from novitai.lifecycle.queries.history import History
from novitai.lifecycle.queries.instances import InstancePage, InstanceQuery, Shown
from novitai.lifecycle.webhooks.deliveries import Deliveries
from novitai.lifecycle.webhooks.endpoints import Webhooks
from novitai.lifecycle.webhooks.metrics import DeliveryMetrics
from novitai.telemetry.process import ProcessMetrics
from novitai.telemetry.requests import RequestMetrics
from novitai.upstream.metrics import UpstreamNumbers

if TYPE_CHECKING:  # it imports the Redis client, which most installations do not need
    from novitai.api.http.shared_limits import SharedStore

DEFAULT_QUOTA: Final = Quota(capacity=120, per_minute=100)
FAILED_AUTHENTICATIONS: Final = Quota(capacity=20, per_minute=20)


class CreatePort(Protocol):
    """Accepts requests for instances, as `CreateCommand` does."""

    def create(self, request: CreateRequest) -> Command[Created]:
        """Accept a request."""
        ...


class ReadPort(Protocol):
    """Reads instances, as `InstanceReader` does."""

    async def get(self, instance_id: str) -> Shown:
        """Show one instance."""
        ...

    async def details(self, instance_id: str) -> Rendered:
        """Show one instance, rendered."""
        ...

    async def page(self, query: InstanceQuery) -> InstancePage:
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


async def _never_held() -> bool:
    return False


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
    account_held: Callable[[], Awaitable[bool]] = _never_held
    clock_went_back: Callable[[], WentBack | None] = lambda: None


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
    fenced_writes: Callable[[], int] = lambda: 0


@dataclass(frozen=True, slots=True)
class WebhookSources:
    """Webhooks, deliveries and their metrics."""

    webhooks: Webhooks
    deliveries: Deliveries
    metrics: DeliveryMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything the routes need. A service that is None gets no routes."""

    clock: Clock
    ids: Ids
    keys: KeyRing
    create_instance: CreatePort
    instances: ReadPort
    health: HealthSources
    jobs: JobSources
    requests: RequestMetrics
    upstream: Callable[[], UpstreamNumbers]
    process: ProcessMetrics
    catalogue: CataloguePort | None = None
    operating: InstanceActions | None = None
    history: History | None = None
    ownership: Ownership | None = None
    webhooks: WebhookSources | None = None
    commands: Commands
    caches: Caches = field(default_factory=Caches)
    rules: Rules = field(default_factory=Rules)
    quota: Quota = DEFAULT_QUOTA
    failures: Quota = FAILED_AUTHENTICATIONS
    shared_buckets: SharedStore | None = None
    allow_private_webhooks: bool = False
