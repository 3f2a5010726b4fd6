# SPDX-License-Identifier: Apache-2.0
"""The client of Novita's API: every call passes the rate limiter and the breaker of its class.

Reads are tried up to three times. Writes are tried once; the caller decides whether to retry. A
create is never retried, at any layer; its result says whether the instance may have been created.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from ssl import SSLContext
from typing import Final, TypeVar

import httpx2
import orjson

from novitai.clock import Clock
from novitai.ids import Ids
from novitai.upstream import paging, payloads, reading
from novitai.upstream.breaker import Breaker, BreakerState
from novitai.upstream.errors import (
    Ambiguous,
    ConnectionFailed,
    InvalidResponse,
    NotSent,
    Refused,
    ServerError,
    Timeout,
    UpstreamError,
)
from novitai.upstream.gateway import CallObserver, Permit, UpstreamGateway
from novitai.upstream.health import UpstreamHealth
from novitai.upstream.limiter import UpstreamLimiter
from novitai.upstream.models import (
    CreateInstance,
    Listing,
    ProductOffer,
    UpstreamBills,
    UpstreamCluster,
    UpstreamInstance,
    UpstreamTemplate,
    UpstreamUtilization,
)
from novitai.upstream.operations import Endpoint, EndpointClass
from novitai.upstream.transport import Transport, UpstreamCall
from novitai.upstream.window import SendWindow
from novitai.upstream.wire import Object
from novitai.upstream.writing import create_body

Row = TypeVar("Row", bound=payloads.Identified)

_CHANNELS: Final = "official,private"


class NovitaClient:
    """Novita's GPU-instance API, v1 (upstream.md)."""

    def __init__(self, gateway: UpstreamGateway, clock: Clock, *, key_digest: str = "") -> None:
        """Make a client on a gateway; `key_digest` identifies the API key without revealing it."""
        self.key_digest = key_digest
        self._gateway = gateway
        self._clock = clock
        self._read_instance = partial(reading.instance, secrets=gateway.secrets)
        self._listed: Mapping[bytes, UpstreamInstance] = {}
        self._first_page: dict[Endpoint, int] = {}
        self._page_size: dict[Endpoint, int] = {}

    @classmethod
    def build(
        cls,
        *,
        base_url: str,
        api_key: str,
        calls_per_minute: int,
        timeout: float,
        clock: Clock,
        ids: Ids | None = None,
        observer: CallObserver,
        transport: httpx2.AsyncBaseTransport | None = None,
        tls: SSLContext | None = None,
        proxy: str | None = None,
    ) -> NovitaClient:
        """Make a client with its own limiter and breakers; a process needs only one.

        Args:
            base_url: Such as `https://api.novita.ai`.
            api_key: The API key; if empty, none is sent and upstream refuses every call.
            calls_per_minute: The rate of the limiter.
            timeout: Seconds for one exchange.
            clock: Time and sleeping.
            ids: The source of jitter; by default, the system's entropy.
            observer: Called after every exchange.
            transport: A transport to use instead of the network, for tests.
            tls: The TLS context; by default, one with the certificates that this machine trusts.
            proxy: The URL of a proxy to connect through.

        Raises:
            ValueError: the key has characters that are not allowed in a header.
        """
        source = ids or Ids()
        gateway = UpstreamGateway(
            Transport(
                base_url, api_key, timeout=timeout, transport=transport, tls=tls, proxy=proxy
            ),
            clock=clock,
            ids=source,
            limiter=UpstreamLimiter(calls_per_minute, clock=clock, ids=source),
            breakers={
                name: Breaker(name, clock=clock) for name in EndpointClass if name.has_breaker
            },
            observer=observer,
            secrets=(api_key,),
        )
        return cls(gateway, clock, key_digest=_digest_of(api_key))

    async def aclose(self) -> None:
        """Close every connection. Running calls fail."""
        await self._gateway.aclose()

    def health(self) -> UpstreamHealth:
        """Return upstream's health as seen in earlier calls; makes no call."""
        return self._gateway.health()

    @property
    def clock_offset(self) -> int | None:
        """Milliseconds that upstream's clock is ahead, by its last response; None if unknown.

        The `Date` header has whole seconds, so the value may be wrong by up to 500 ms.
        """
        return self._gateway.clock_offset

    @property
    def permits_waiting(self) -> int:
        """The number of calls that wait for the rate limiter."""
        return self._gateway.permits_waiting

    def breaker_states(self) -> dict[str, BreakerState]:
        """Return the state of each circuit breaker, by its class of operations."""
        return self._gateway.breaker_states()

    async def clusters(self) -> list[UpstreamCluster]:
        """List the clusters (upstream.md §2).

        Raises:
            UpstreamError: all three attempts failed. All reads below raise it too.
        """
        return await self._gateway.read(
            Endpoint.CLUSTERS, "/clusters", {}, payloads.rows("data", reading.cluster)
        )

    async def products(
        self,
        cluster_id: str | None = None,
        product_name: str | None = None,
        *,
        billing_method: str,
        gpu_num: int | None = None,
    ) -> list[ProductOffer]:
        """List the GPU products that match (upstream.md §3.1).

        Args:
            cluster_id: Only products of this cluster; by default, of all clusters.
            product_name: Only products that match this name; upstream decides what matches.
            billing_method: `onDemand` or `spot`.
            gpu_num: Only products that are deployable with this number of GPUs.
        """
        wanted = {
            "clusterId": cluster_id or "",
            "productName": product_name or "",
            "billingMethod": billing_method,
            "gpuNum": "" if gpu_num is None else str(gpu_num),
        }
        query = {name: value for name, value in wanted.items() if value}
        return await self._gateway.read(
            Endpoint.PRODUCTS, "/products", query, payloads.rows("data", reading.product)
        )

    async def template(self, template_id: str) -> UpstreamTemplate:
        """Get one template (upstream.md §10).

        Raises:
            Gone: no template has this ID.
        """
        return await self._gateway.read(
            Endpoint.TEMPLATE,
            "/template",
            {"templateId": template_id},
            payloads.template(template_id),
        )

    async def templates(self) -> list[UpstreamTemplate]:
        """List the official templates and those of the account (upstream.md §10)."""
        found = await self._list(
            Endpoint.TEMPLATES, "/templates", {"channel": _CHANNELS}, "template", reading.template
        )
        return list(found.rows.values())

    async def instance(self, instance_id: str) -> UpstreamInstance:
        """Get one instance (upstream.md §5.1).

        Raises:
            Gone: no instance has this ID.
        """
        return await self._gateway.read(
            Endpoint.INSTANCE,
            "/gpu/instance",
            {"instanceId": instance_id},
            payloads.instance(instance_id, self._read_instance),
        )

    async def list_instances(self) -> Listing:
        """List all instances of the account (upstream.md §5.2)."""
        listed: dict[bytes, UpstreamInstance] = {}
        found = await self._list(
            Endpoint.LIST_INSTANCES,
            "/gpu/instances",
            {},
            "instances",
            partial(self._read_listed, listed),
        )
        self._listed = listed
        return Listing(
            began_at=found.began_at,
            instances=tuple(found.rows.values()),
            complete=found.complete,
            whole=found.whole,
            total=found.total,
            clock_offset=self._gateway.clock_offset,
            key_digest=self.key_digest,
            read_at=self._clock.now(),
        )

    def _read_listed(
        self, listed: dict[bytes, UpstreamInstance], row: Object
    ) -> UpstreamInstance | None:
        """Read a row of a listing; one that is as in the listing before is not read again.

        A large account is listed each minute, and most of its rows never change.
        """
        try:
            content = hashlib.blake2b(orjson.dumps(row), digest_size=16).digest()
        except TypeError:  # a number or a text that only the lenient decoder takes
            return self._read_instance(row)
        found = self._listed.get(content) or self._read_instance(row)
        if found is not None:
            listed[content] = found
        return found

    async def find_instances(self, name: str) -> tuple[UpstreamInstance, ...]:
        """List the instances whose name contains `name`, by upstream's filter (§5.2).

        The filter may not work in every deployment, so an empty result alone proves nothing.
        """
        found = await self._list(
            Endpoint.LIST_INSTANCES,
            "/gpu/instances",
            {"name": name},
            "instances",
            self._read_instance,
        )
        return tuple(found.rows.values())

    async def utilization(
        self, instance_id: str, *, begin: int, end: int, interval: int
    ) -> UpstreamUtilization:
        """Read how busy an instance was (upstream.md §14). Tried once.

        A failure concerns this figure alone: it counts for neither the breaker nor health.

        Args:
            instance_id: The upstream ID.
            begin: The first moment, in Unix milliseconds of our clock, as all times here.
            end: The last moment. The newest values are about a minute old.
            interval: Seconds between the values, at least 15.
        """
        ahead = self.clock_offset or 0
        query = {
            "instanceId": instance_id,
            "startTime": str((begin + ahead) // 1000),
            "endTime": str((end + ahead) // 1000),
            "interval": str(interval),
        }
        return await self._gateway.figure(
            Endpoint.UTILIZATION, "/metrics/gpu/instance", query, payloads.utilization(ahead)
        )

    async def balance(self) -> int:
        """Return what is left to spend, in 1/10000 USD (upstream.md §14). Tried once.

        A failure concerns this figure alone: it counts for neither the breaker nor health.
        """
        return await self._gateway.figure(
            Endpoint.BALANCE, "/billing/balance/detail", {}, payloads.balance
        )

    async def bills(self, category: str, *, begin: int, end: int) -> UpstreamBills:
        """List the bills of the hours that begin in `[begin, end)` (upstream.md §14). Tried once.

        A failure concerns this figure alone: it counts for neither the breaker nor health.

        Args:
            category: `gpu` or `cloud_storage`.
            begin: A full hour in Unix milliseconds by upstream's clock, as all times here.
            end: A full hour, at most 31 days later.

        Raises:
            RateLimited: lists are asked for too fast.
        """
        query = {
            "cycleType": "Hour",
            "productCategory": category,
            "startTime": str(begin // 1000),
            "endTime": str(end // 1000),
        }
        return await self._gateway.figure(
            Endpoint.BILLS, "/billing/bill/list", query, payloads.bills(category, begin, end)
        )

    async def start(self, instance_id: str, *, window: SendWindow) -> None:
        """Start a stopped instance (upstream.md §6). Tried once, as all calls below.

        Args:
            instance_id: The upstream ID.
            window: The time in which the call may begin; checked just before the first byte.

        Raises:
            NotSent: the window was over.
            Gone: no instance has this ID.
            InsufficientResource: the instance's node has no free GPU.
            InvalidStateChange: the instance is in the wrong state, or an earlier call took effect.
            UpstreamError: any other failure.
        """
        await self._act(Endpoint.START, instance_id, window)

    async def stop(self, instance_id: str, *, window: SendWindow) -> None:
        """Stop a running instance; raises as `start` does."""
        await self._act(Endpoint.STOP, instance_id, window)

    async def restart(self, instance_id: str, *, window: SendWindow) -> None:
        """Restart a running instance; raises as `start` does."""
        await self._act(Endpoint.RESTART, instance_id, window)

    async def delete(self, instance_id: str, *, window: SendWindow) -> None:
        """Delete an instance; raises as `start` does."""
        await self._act(Endpoint.DELETE, instance_id, window)

    async def permit_create(self) -> Permit:
        """Wait for a permit to send one create; call this before the attempt is recorded.

        Return an unused permit with `release`.

        Raises:
            BreakerOpen: creates keep failing; retry later.
        """
        return await self._gateway.permit(Endpoint.CREATE)

    async def create(self, request: CreateInstance, *, permit: Permit, window: SendWindow) -> str:
        """Send one create, once, and return the upstream ID of the new instance.

        Args:
            request: The instance to create.
            permit: From `permit_create`; this call always spends it.
            window: The time in which the call may begin, no later than the attempt's `send_by`;
                checked just before the first byte, after connecting.

        Raises:
            NotSent: nothing was created: no connection, too late, or the permit was already used.
            Refused: nothing was created: upstream refused (InsufficientResource: no stock).
            RateLimited: nothing was created: too many calls.
            KeyRefused: nothing was created: upstream does not accept the API key.
            Ambiguous: the instance may have been created; settle this by listing.
        """
        call = UpstreamCall(
            "POST",
            "/gpu/instance/create",
            body=create_body(request),
            may_begin=lambda: window.begin(self._clock),
        )
        try:
            return await self._gateway.once(
                Endpoint.CREATE, call, permit, payloads.created_id, secrets=request.secrets()
            )
        except (Timeout, ConnectionFailed) as error:
            if error.sent:
                raise _ambiguous(error) from error
            raise NotSent(error.message, reason="NO_CONNECTION") from error
        except (ServerError, InvalidResponse) as error:
            raise _ambiguous(error) from error

    async def _act(self, endpoint: Endpoint, instance_id: str, window: SendWindow) -> None:
        body: Object = {"instanceId": instance_id}
        path = f"/gpu/instance/{endpoint.label}"
        await self._gateway.act(endpoint, path, body, window)

    async def _list(
        self,
        endpoint: Endpoint,
        path: str,
        query: Mapping[str, str],
        key: str,
        read_row: payloads.RowReader[Row],
    ) -> paging.Collected[Row]:
        sizes = iter(paging.PAGE_SIZES[self._page_size.get(endpoint, 0) :])
        size = next(sizes)

        async def fetch(number: int) -> paging.Page[Row]:
            wanted = {**query, "pageSize": str(size), "pageNum": str(number)}
            return await self._gateway.read(endpoint, path, wanted, payloads.page(key, read_row))

        while True:
            try:
                found = await paging.collect(fetch, first_page=self._first_page.get(endpoint, 1))
            except Refused as error:
                # The page may be too large for upstream. If that is not the reason, upstream
                # refuses the smallest page too, and the error is raised.
                smaller = next(sizes, None)
                if smaller is None or error.http_status != HTTPStatus.BAD_REQUEST:
                    raise
                size = smaller
            else:
                self._first_page[endpoint] = found.first_page
                self._page_size[endpoint] = paging.PAGE_SIZES.index(size)
                return found


def _digest_of(api_key: str) -> str:
    # A key is long and random, so its digest reveals nothing.
    return hashlib.blake2b(api_key.encode(), digest_size=16, person=b"upstream-key").hexdigest()


def _ambiguous(error: UpstreamError) -> Ambiguous:
    return Ambiguous(error.message, reason=error.reason, http_status=error.http_status)
