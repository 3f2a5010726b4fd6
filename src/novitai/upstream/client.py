# SPDX-License-Identifier: Apache-2.0
"""The client of Novita's API: every call goes through one limiter and its class's breaker.

Reads are tried up to three times. Writes are tried once: whoever asked decides on the next try.
A create is sent once and never again, at no layer; its ending says whether it may have been made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from ssl import SSLContext
from typing import Final, TypeVar

import httpx2

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
    UpstreamCluster,
    UpstreamInstance,
    UpstreamTemplate,
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
        """Make a client on a gateway; `key_digest` tells its key from others without showing it."""
        self.key_digest = key_digest
        self._gateway = gateway
        self._clock = clock
        self._read_instance = partial(reading.instance, secrets=gateway.secrets)
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
        """Make a client with its own limiter and breakers: one for the whole process.

        Args:
            base_url: Such as `https://api.novita.ai`.
            api_key: The key; empty sends none, and upstream will say so.
            calls_per_minute: The limiter's rate.
            timeout: Seconds for one exchange.
            clock: Time and waiting.
            ids: The source of jitter; the system's entropy by default.
            observer: Told of every exchange.
            transport: Another way to send, for tests.
            tls: Whom to trust; by default, whom this machine does.
            proxy: The URL of a proxy to connect through.

        Raises:
            ValueError: the key cannot travel in a header.
        """
        source = ids or Ids()
        gateway = UpstreamGateway(
            Transport(
                base_url, api_key, timeout=timeout, transport=transport, tls=tls, proxy=proxy
            ),
            clock=clock,
            ids=source,
            limiter=UpstreamLimiter(calls_per_minute, clock=clock, ids=source),
            breakers={name: Breaker(name, clock=clock) for name in EndpointClass},
            observer=observer,
            secrets=(api_key,),
        )
        return cls(gateway, clock, key_digest=_digest_of(api_key))

    async def aclose(self) -> None:
        """Close every connection. Calls still under way fail."""
        await self._gateway.aclose()

    def health(self) -> UpstreamHealth:
        """Say what the calls so far tell of upstream; calls nothing."""
        return self._gateway.health()

    @property
    def clock_offset(self) -> int | None:
        """Milliseconds that upstream's clock is ahead of ours, by its last reply; None if unknown.

        The `Date` header counts whole seconds, so it is off by up to half a second either way.
        """
        return self._gateway.clock_offset

    @property
    def permits_waiting(self) -> int:
        """How many calls wait for the rate limiter."""
        return self._gateway.permits_waiting

    def breaker_states(self) -> dict[str, BreakerState]:
        """Return the state of each circuit breaker, by the class of operations it guards."""
        return self._gateway.breaker_states()

    async def clusters(self) -> list[UpstreamCluster]:
        """List the clusters (upstream.md §2).

        Raises:
            UpstreamError: it could not be read, after three tries; so for every read below.
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
            cluster_id: Only those of this cluster; everywhere if absent.
            product_name: Matches loosely, as upstream sees fit.
            billing_method: `onDemand` or `spot`.
            gpu_num: Only those deployable with so many GPUs.
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
            Gone: there is none with this id.
        """
        return await self._gateway.read(
            Endpoint.TEMPLATE,
            "/template",
            {"templateId": template_id},
            payloads.template(template_id),
        )

    async def templates(self) -> list[UpstreamTemplate]:
        """List the official templates and our own (upstream.md §10)."""
        found = await self._list(
            Endpoint.TEMPLATES, "/templates", {"channel": _CHANNELS}, "template", reading.template
        )
        return list(found.rows.values())

    async def instance(self, instance_id: str) -> UpstreamInstance:
        """Get one instance (upstream.md §5.1).

        Raises:
            Gone: there is none with this id.
        """
        return await self._gateway.read(
            Endpoint.INSTANCE,
            "/gpu/instance",
            {"instanceId": instance_id},
            payloads.instance(instance_id, self._read_instance),
        )

    async def list_instances(self) -> Listing:
        """List the whole account (upstream.md §5.2)."""
        found = await self._list(
            Endpoint.LIST_INSTANCES, "/gpu/instances", {}, "instances", self._read_instance
        )
        return Listing(
            began_at=found.began_at,
            instances=tuple(found.rows.values()),
            complete=found.complete,
            whole=found.whole,
            total=found.total,
            clock_offset=self._gateway.clock_offset,
            key_digest=self.key_digest,
        )

    async def find_instances(self, name: str) -> tuple[UpstreamInstance, ...]:
        """List the instances whose name holds `name`, as upstream filters (upstream.md §5.2).

        Whether the filter works is not known of every deployment: an empty answer alone proves
        nothing.
        """
        found = await self._list(
            Endpoint.LIST_INSTANCES,
            "/gpu/instances",
            {"name": name},
            "instances",
            self._read_instance,
        )
        return tuple(found.rows.values())

    async def start(self, instance_id: str, *, window: SendWindow) -> None:
        """Start a stopped instance (upstream.md §6). Tried once, as all below.

        Args:
            instance_id: Upstream's id.
            window: Until when the call may begin; judged last before its first byte.

        Raises:
            NotSent: the window was over, or no connection could be made.
            Gone: there is no such instance.
            InsufficientResource: its node has no GPU free.
            InvalidStateChange: it is in the wrong state, or the call took effect before.
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
        """Delete an instance for good; raises as `start` does."""
        await self._act(Endpoint.DELETE, instance_id, window)

    async def permit_create(self) -> Permit:
        """Wait for the right to send one create; to be taken before the attempt is recorded.

        A permit that will not be used should be given back with `release`.

        Raises:
            BreakerOpen: creates keep failing; try again later.
        """
        return await self._gateway.permit(Endpoint.CREATE)

    async def create(self, request: CreateInstance, *, permit: Permit, window: SendWindow) -> str:
        """Send one create, once, and return the new instance's id.

        Args:
            request: What to make.
            permit: From `permit_create`; spent by this call however it ends.
            window: Until when the request may begin: no later than the attempt's `send_by`.
                Judged as the last act before its first byte leaves, after any connecting.

        Raises:
            NotSent: certainly nothing was made: no connection, too late, or a permit used before.
            Refused: nothing was made: upstream declined (InsufficientResource: no stock).
            RateLimited: nothing was made: too many calls.
            KeyRefused: nothing was made: our key is not accepted.
            Ambiguous: it may have been made; settle it by listing.
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
                # Perhaps the page is too large for upstream; if not, the smallest is refused too.
                smaller = next(sizes, None)
                if smaller is None or error.http_status != HTTPStatus.BAD_REQUEST:
                    raise
                size = smaller
            else:
                self._first_page[endpoint] = found.first_page
                self._page_size[endpoint] = paging.PAGE_SIZES.index(size)
                return found


def _digest_of(api_key: str) -> str:
    # A key is long and random, so its digest gives nothing away.
    return hashlib.blake2b(api_key.encode(), digest_size=16, person=b"upstream-key").hexdigest()


def _ambiguous(error: UpstreamError) -> Ambiguous:
    return Ambiguous(error.message, reason=error.reason, http_status=error.http_status)
