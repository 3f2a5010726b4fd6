# SPDX-License-Identifier: Apache-2.0
"""The catalogue: regions, products and templates from Novita, cached."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import replace
from typing import Final, Protocol, TypeVar

from novitai.clock import Clock
from novitai.domain.instance import BillingMode, LaunchSpec, Port, PortType, Tool
from novitai.domain.placement import Placement, Wish, place
from novitai.domain.product import (
    REFERENCE_REGIONS,
    Cluster,
    Offer,
    Template,
    is_any_region,
)
from novitai.errors import FieldError, ValidationFailed
from novitai.lifecycle.catalogue.cache import Cache
from novitai.upstream import errors as upstream
from novitai.upstream import models

PRODUCTS_TTL: Final = 30.0
TEMPLATES_TTL: Final = 60.0
CLUSTERS_TTL: Final = 300.0
STALE_FOR: Final = 24 * 3600.0
_SUGGESTION_SECONDS: Final = 3.0
"""Seconds to wait for names to suggest in an error; after that the error has no suggestion."""
_ALL: Final = "all"
_EVERY_TEMPLATE: Final = ""
"""The cache key of the list of templates; no template has an empty ID."""

T = TypeVar("T")


class Source(Protocol):
    """The part of Novita's client that the catalogue reads."""

    async def clusters(self) -> list[models.UpstreamCluster]:
        """List the clusters."""
        ...

    async def products(
        self,
        cluster_id: str | None = None,
        product_name: str | None = None,
        *,
        billing_method: str,
        gpu_num: int | None = None,
    ) -> list[models.ProductOffer]:
        """List the products of a cluster."""
        ...

    async def template(self, template_id: str) -> models.UpstreamTemplate:
        """Read a template."""
        ...

    async def templates(self) -> list[models.UpstreamTemplate]:
        """List the templates."""
        ...


class Catalogue:
    """Regions, products and templates. If Novita fails, copies up to a day old are used."""

    def __init__(self, source: Source, clock: Clock) -> None:
        self._source = source
        away = (
            upstream.Timeout,
            upstream.ConnectionFailed,
            upstream.ServerError,
            upstream.InvalidResponse,
            upstream.NotSent,
            upstream.RateLimited,
            upstream.KeyRefused,
        )
        self.clusters_cache: Cache[tuple[Cluster, ...]] = Cache(
            "clusters", clock, ttl=CLUSTERS_TTL, max_size=4, stale_for=STALE_FOR, tolerates=away
        )
        self.products_cache: Cache[tuple[Offer, ...]] = Cache(
            "products", clock, ttl=PRODUCTS_TTL, max_size=500, stale_for=STALE_FOR, tolerates=away
        )
        self.templates_cache: Cache[tuple[Template, ...]] = Cache(
            "templates", clock, ttl=TEMPLATES_TTL, max_size=500, stale_for=STALE_FOR, tolerates=away
        )

    async def clusters(self) -> tuple[Cluster, ...]:
        """List the clusters.

        Raises:
            UpstreamError: the call failed, and there is no copy of the last day.
        """
        return await self.clusters_cache.get(_ALL, self._load_clusters)

    async def regions(self) -> tuple[str, ...]:
        """List the valid region codes: those of the API reference, then Novita's."""
        return _distinct([*REFERENCE_REGIONS, *(c.region for c in await self.clusters())])

    async def allowed_regions(self, region: str, *, fallback: bool) -> tuple[str, ...]:
        """List the regions a placement may use, the preferred one first.

        Args:
            region: The preferred region or `any`; case is ignored.
            fallback: Whether the other regions are allowed after it.

        Raises:
            ValidationFailed: the region does not exist; the error names the nearest ones.
        """
        known = await self.regions()
        if is_any_region(region):
            return known
        exact = next((code for code in known if code.casefold() == region.casefold()), None)
        if exact is None:
            nearest = nearest_names(region, known)
            raise ValidationFailed(
                "Validation failed",
                details=[
                    FieldError(
                        "region",
                        f"Region is not known; the nearest are {', '.join(nearest)}",
                        region,
                    )
                ],
            )
        return _distinct([exact, *known]) if fallback else (exact,)

    async def placement(self, wish: Wish, *, max_age: float | None = None) -> Placement:
        """Find the offers that fit a wish.

        The products of the clusters in allowed regions are read first. If the product is not among
        them, the other clusters are read, to distinguish a wrong name from a wrong region. If it is
        not there either, the products for one GPU on demand are read, to distinguish a wrong name
        from a billing mode or a GPU number that is not offered.

        Args:
            wish: The conditions.
            max_age: How old, in seconds, the offers may be; the cache's own limit by default.

        Raises:
            UpstreamError: the call failed, and there is no copy of the last day.
        """
        allowed = {code.casefold() for code in wish.regions}
        clusters = await self.clusters()
        inside = [cluster for cluster in clusters if cluster.region.casefold() in allowed]
        found = place(
            await self._offers(inside, wish.billing_mode, wish.gpu_num, max_age=max_age), wish
        )
        if found.product_exists:
            return found
        outside = [cluster for cluster in clusters if cluster.region.casefold() not in allowed]
        found = place(await self._offers(outside, wish.billing_mode, wish.gpu_num), wish)
        if found.product_exists:
            return found
        listed = await self.offers(BillingMode.ON_DEMAND, 1)
        return place([replace(offer, available=False) for offer in listed], wish)

    async def reread(self, cluster: Cluster, billing_mode: BillingMode, gpu_num: int) -> None:
        """Reload the offers of a cluster for the next placement.

        Raises:
            UpstreamError: the call failed.
        """
        await self._offers_of(cluster, billing_mode, gpu_num, 0.0)

    async def offers(self, billing_mode: BillingMode, gpu_num: int) -> list[Offer]:
        """List the offers of every cluster for a number of GPUs in a billing mode.

        Raises:
            UpstreamError: the call failed, and there is no copy of the last day.
        """
        return await self._offers(await self.clusters(), billing_mode, gpu_num)

    async def product_names(self) -> tuple[str, ...]:
        """List the names of all products, for suggestions; empty if they cannot be read."""
        offers = await _for_suggestion(self.offers(BillingMode.ON_DEMAND, 1))
        return _distinct(offer.product_name for offer in offers or ())

    async def templates(self) -> tuple[Template, ...]:
        """List the templates: Novita's own and those of the account.

        Raises:
            UpstreamError: the call failed, and there is no copy of the last day.
        """
        return await self.templates_cache.get(_EVERY_TEMPLATE, self._load_templates)

    async def template(self, template_id: str) -> Template:
        """Read a template.

        Raises:
            ValidationFailed: `INVALID_TEMPLATE_ID`: the template does not exist.
            UpstreamError: the call failed, and there is no copy of the last day.
        """
        try:
            found = await self.templates_cache.get(
                template_id, lambda: self._load_template(template_id)
            )
        except (upstream.Gone, upstream.Refused):
            nearest = await self._nearest_templates(template_id)
            hint = f"; the nearest are {', '.join(nearest)}" if nearest else ""
            raise ValidationFailed(
                f"Template '{template_id}' does not exist{hint}",
                code="INVALID_TEMPLATE_ID",
                details=[FieldError("templateId", f"Template does not exist{hint}", template_id)],
            ) from None
        return found[0]

    async def _nearest_templates(self, wanted: str) -> list[str]:
        """Return the templates whose ID or name is most similar to an ID, as `id (name)`."""
        labels: dict[str, str] = {}
        for one in await _for_suggestion(self.templates()) or ():
            label = f"{one.id} ({one.name})" if one.name else one.id
            labels.setdefault(one.name, label)
            labels[one.id] = label
        return list(dict.fromkeys(labels[name] for name in nearest_names(wanted, labels)))

    async def _offers(
        self,
        clusters: Sequence[Cluster],
        billing_mode: BillingMode,
        gpu_num: int,
        *,
        max_age: float | None = None,
    ) -> list[Offer]:
        answers = await asyncio.gather(
            *(self._offers_of(cluster, billing_mode, gpu_num, max_age) for cluster in clusters),
            return_exceptions=True,
        )
        lists = [answer for answer in answers if not isinstance(answer, BaseException)]
        for answer in answers:
            if not isinstance(answer, BaseException):
                continue
            # Novita refuses a cluster that was closed in the meantime; use the others' offers.
            if not (lists and isinstance(answer, upstream.Refused | upstream.Gone)):
                raise answer
        return [offer for offers in lists for offer in offers]

    async def _offers_of(
        self, cluster: Cluster, billing_mode: BillingMode, gpu_num: int, max_age: float | None
    ) -> tuple[Offer, ...]:
        async def load() -> tuple[Offer, ...]:
            found = await self._source.products(
                cluster.id, billing_method=billing_mode.value, gpu_num=gpu_num
            )
            return tuple(_offer(product, cluster) for product in found)

        key = f"{cluster.id}/{billing_mode.value}/{gpu_num}"
        return await self.products_cache.get(key, load, max_age=max_age)

    async def _load_clusters(self) -> tuple[Cluster, ...]:
        return tuple(Cluster(found.id, found.name) for found in await self._source.clusters())

    async def _load_template(self, template_id: str) -> tuple[Template, ...]:
        return (_template(await self._source.template(template_id)),)

    async def _load_templates(self) -> tuple[Template, ...]:
        return tuple(_template(found) for found in await self._source.templates())


async def _for_suggestion(names: Awaitable[T]) -> T | None:
    """Read names for a suggestion; return None if the call fails or takes too long."""
    try:
        async with asyncio.timeout(_SUGGESTION_SECONDS):
            return await names
    except (upstream.UpstreamError, TimeoutError):
        return None


def nearest_names(wanted: str, names: Iterable[str], limit: int = 3) -> list[str]:
    """Return the names most similar to the wanted one, best first."""
    by_folded = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(wanted.casefold(), by_folded, n=limit, cutoff=0.3)
    return [by_folded[name] for name in close] or sorted(by_folded.values())[:limit]


def _distinct(codes: Iterable[str]) -> tuple[str, ...]:
    by_folded: dict[str, str] = {}
    for code in codes:
        by_folded.setdefault(code.casefold(), code)
    return tuple(by_folded.values())


def _offer(product: models.ProductOffer, cluster: Cluster) -> Offer:
    return Offer(
        product_id=product.id,
        product_name=product.name,
        cluster=cluster,
        available=product.available,
        on_demand_price=product.price,
        spot_price=product.spot_price,
        cpu_per_gpu=product.cpu_per_gpu or 0,
        memory_per_gpu=product.memory_per_gpu or 0,
        min_rootfs_size=product.min_rootfs,
        max_rootfs_size=product.max_rootfs,
    )


def _template(found: models.UpstreamTemplate) -> Template:
    return Template(
        id=found.id,
        name=found.name,
        image=found.image,
        rootfs_size=found.rootfs_size,
        channel=found.channel,
        launch=LaunchSpec(
            image=found.image,
            image_auth_id=found.image_auth or None,
            command=found.start_command or None,
            entrypoint=found.entrypoint or None,
            ports=tuple(Port(port.port, PortType(port.type)) for port in found.ports),
            tools=tuple(Tool(tool.name, tool.port, PortType(tool.type)) for tool in found.tools),
            envs=dict(found.envs),
            min_cuda_version=found.min_cuda_version or None,
        ),
    )
