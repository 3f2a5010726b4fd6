# SPDX-License-Identifier: Apache-2.0
"""Builds the HTTP application: the routes and their OpenAPI document."""

from __future__ import annotations

from functools import partial
from typing import Any

from novitai.api.http import dashboard
from novitai.api.http.application import HttpApplication
from novitai.api.http.auth import KeyGuard
from novitai.api.http.browsers import Browsers
from novitai.api.http.endpoints import Endpoints
from novitai.api.http.limits import LocalLimiter, Quota, RateLimiter
from novitai.api.openapi import page
from novitai.api.routes.account import AccountRoutes
from novitai.api.routes.budgets import BudgetRoutes
from novitai.api.routes.caches import CacheRoutes
from novitai.api.routes.catalogue import CatalogueRoutes
from novitai.api.routes.costs import CostRoutes
from novitai.api.routes.deliveries import DeliveryRoutes
from novitai.api.routes.event_stream import EventStreamRoutes
from novitai.api.routes.health import HealthRoutes
from novitai.api.routes.history import HistoryRoutes
from novitai.api.routes.instance_actions import InstanceActionRoutes
from novitai.api.routes.instance_changes import InstanceChangeRoutes
from novitai.api.routes.instance_limits import InstanceLimitRoutes
from novitai.api.routes.instances import InstanceRoutes
from novitai.api.routes.keys import KeyRoutes
from novitai.api.routes.metrics import MetricsRoutes
from novitai.api.routes.quotes import QuoteRoutes
from novitai.api.routes.sessions import SessionRoutes
from novitai.api.routes.utilization import UtilizationRoutes
from novitai.api.routes.webhooks import WebhookRoutes
from novitai.api.routing.router import Route, Router
from novitai.api.services import Services


def create_api(services: Services, *, extra: tuple[Route, ...] = ()) -> HttpApplication:
    """Build the ASGI application.

    Serve it with `proxy_headers=False`: the application decides which `X-Forwarded-*` to trust.

    Args:
        services: The services that the routes call.
        extra: More routes; tests add routes that fail on purpose.
    """
    endpoints = Endpoints()
    browsers = Browsers(services.installation_id, services.public_url)
    guard = _guard(services, browsers)
    router = _router(services, endpoints, guard)
    # The most frequent routes come first, because paths are tried in order.
    for resource in (
        InstanceRoutes(services),
        KeyRoutes(services),
        CacheRoutes(services),
        MetricsRoutes(services),
        HealthRoutes(services),
        CatalogueRoutes(services.catalogue),
        QuoteRoutes(services.quotes),
        UtilizationRoutes(services.utilization),
        InstanceActionRoutes(services.operating, services.instances),
        HistoryRoutes(services.history, services.operating),
        EventStreamRoutes(services.event_streams),
        InstanceLimitRoutes(services.limits),
        InstanceChangeRoutes(services.changes),
        AccountRoutes(services.ownership),
        WebhookRoutes(services.webhooks.webhooks),
        DeliveryRoutes(services.webhooks.deliveries),
        CostRoutes(services.costs, services.clock),
        BudgetRoutes(services.budgets),
        SessionRoutes(services.keys, services.sessions, guard, browsers),
    ):
        router.add(*resource.routes())
    router.add(*extra)
    document = partial(_document, router.routes, services.public_url)
    page.install(endpoints, document, services.dashboard)
    dashboard.install(endpoints, browsers, services.dashboard)
    return _application(services, endpoints)


def create_monitoring_api(services: Services) -> HttpApplication:
    """Build the ASGI application of a worker: its metrics and its health, and nothing else."""
    endpoints = Endpoints()
    browsers = Browsers(services.installation_id, services.public_url)
    router = _router(services, endpoints, _guard(services, browsers))
    router.add(*MetricsRoutes(services).routes(), *HealthRoutes(services).routes())
    return _application(services, endpoints)


def _application(services: Services, endpoints: Endpoints) -> HttpApplication:
    return HttpApplication(
        endpoints,
        clock=services.clock,
        ids=services.ids,
        metrics=services.requests,
        rules=services.rules,
    )


def _guard(services: Services, browsers: Browsers) -> KeyGuard:
    return KeyGuard(
        services.keys,
        services.sessions,
        browsers,
        calls=_limiter(services, "calls", services.quota),
        session_calls=_limiter(services, "session-calls", services.session_quota),
        failures=_limiter(services, "failures", services.failures),
    )


def _router(services: Services, endpoints: Endpoints, guard: KeyGuard) -> Router:
    return Router(
        endpoints,
        guard,
        services.clock,
        services.commands,
        allow_private=services.allow_private_webhooks,
    )


def _document(routes: list[Route], public_url: str | None) -> dict[str, Any]:
    """Write the OpenAPI document; most servers are never asked for it, so it is imported late."""
    from novitai.api.openapi.document import document

    return document(routes, public_url=public_url)


def _limiter(services: Services, name: str, quota: Quota) -> RateLimiter:
    if services.shared_buckets is None:
        return LocalLimiter(quota, services.clock)
    return services.shared_buckets.limiter(name, quota)
