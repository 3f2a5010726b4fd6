# SPDX-License-Identifier: Apache-2.0
"""The HTTP application: the routes, error handlers, OpenAPI document and middleware."""

from __future__ import annotations

from functools import partial

from starlette.applications import Starlette

from novitai.api.http import errors
from novitai.api.http.auth import KeyGuard
from novitai.api.http.limits import LocalLimiter, Quota, RateLimiter
from novitai.api.http.middleware import RequestMiddleware
from novitai.api.openapi import page
from novitai.api.openapi.document import document
from novitai.api.routes.account import AccountRoutes
from novitai.api.routes.caches import CacheRoutes
from novitai.api.routes.catalogue import CatalogueRoutes
from novitai.api.routes.deliveries import DeliveryRoutes
from novitai.api.routes.health import HealthRoutes
from novitai.api.routes.history import HistoryRoutes
from novitai.api.routes.instance_actions import InstanceActionRoutes
from novitai.api.routes.instances import InstanceRoutes
from novitai.api.routes.keys import KeyRoutes
from novitai.api.routes.metrics import MetricsRoutes
from novitai.api.routes.webhooks import WebhookRoutes
from novitai.api.routing.router import Route, Router
from novitai.api.services import Services


def create_api(services: Services, *, extra: tuple[Route, ...] = ()) -> RequestMiddleware:
    """Build the ASGI application.

    Serve it with `proxy_headers=False`: the application decides which `X-Forwarded-*` to trust.

    Args:
        services: The services that the routes call.
        extra: More routes; tests add routes that fail on purpose.
    """
    app = create_app(services, extra=extra)
    return RequestMiddleware(
        app,
        clock=services.clock,
        ids=services.ids,
        metrics=services.requests,
        rules=services.rules,
    )


def create_app(services: Services, *, extra: tuple[Route, ...] = ()) -> Starlette:
    """Build the application without the middleware: the routes and their OpenAPI document."""
    app = Starlette()
    app.router.redirect_slashes = False
    errors.install(app, services.clock)
    guard = KeyGuard(
        services.keys,
        calls=_limiter(services, "calls", services.quota),
        failures=_limiter(services, "failures", services.failures),
    )
    router = Router(
        app,
        guard,
        services.clock,
        services.commands,
        allow_private=services.allow_private_webhooks,
    )
    # The most frequent routes come first, because Starlette tries routes in order.
    for resource in (
        InstanceRoutes(services),
        KeyRoutes(services),
        CacheRoutes(services),
        MetricsRoutes(services),
        HealthRoutes(services),
    ):
        router.add(*resource.routes())
    if services.catalogue is not None:
        router.add(*CatalogueRoutes(services.catalogue).routes())
    if services.operating is not None and services.history is not None:
        router.add(*InstanceActionRoutes(services.operating, services.instances).routes())
        router.add(*HistoryRoutes(services.history, services.operating).routes())
    if services.ownership is not None:
        router.add(*AccountRoutes(services.ownership).routes())
    if services.webhooks is not None:
        router.add(*WebhookRoutes(services.webhooks.webhooks).routes())
        router.add(*DeliveryRoutes(services.webhooks.deliveries).routes())
    router.add(*extra)
    page.install(app, partial(document, router.routes))
    return app


def _limiter(services: Services, name: str, quota: Quota) -> RateLimiter:
    if services.shared_buckets is None:
        return LocalLimiter(quota, services.clock)
    return services.shared_buckets.limiter(name, quota)
