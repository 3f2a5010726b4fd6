# SPDX-License-Identifier: Apache-2.0
"""One call of each method of the client, with every argument that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from novitai_client import Novitai
from novitai_client.requests import (
    AutoStopFields,
    BudgetFields,
    ChangeFields,
    CreateFields,
    KeyFields,
    QuoteFields,
    WebhookFields,
)

AT: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
AUTO_STOP: Final[AutoStopFields] = {
    "idle_minutes": 30,
    "signals": ["gpu"],
    "gpu_below_percent": 5.0,
    "action": "stop",
    "warn_minutes": 5,
}
CHANGES: Final[ChangeFields] = {
    "auto_stop": AUTO_STOP,
    "limits": {
        "max_spend": 5.0,
        "max_run_minutes": 60,
        "stop_at": AT,
        "on_limit": "delete",
        "delete_after_stopped_minutes": 60,
    },
    "protected": {"reason": "it trains"},
    "tags": {"team": "vision"},
    "webhook_url": "https://example.com/hook",
}
QUOTE: Final[QuoteFields] = {
    "name": "ci",
    "product_name": "gpu-basic",
    "template_id": "tmpl-12345",
    "gpu_num": 1,
    "rootfs_size": 60,
    "region": "any",
    "webhook_url": "https://example.com/hook",
    "billing_mode": "spot",
    "max_hourly_price": 2.0,
    "region_fallback": True,
    "envs": {"MY_TOKEN": "x"},
    "limits": CHANGES["limits"],
    "protected": CHANGES["protected"],
    "auto_stop": AUTO_STOP,
    "tags": {"team": "vision"},
}
CREATE: Final[CreateFields] = {**QUOTE, "quote_id": "quote_1"}
BUDGET: Final[BudgetFields] = {
    "name": "ci",
    "amount": 5.0,
    "period": "day",
    "tz": "UTC",
    "scope": {"key_id": "key_1", "tag": {"name": "team", "value": "vision"}},
    "alert_at": [50],
    "on_limit": "refuse",
}
WEBHOOK: Final[WebhookFields] = {
    "url": "https://example.com/hook",
    "event_types": ["instance.failed"],
    "enabled": True,
    "description": "for the tests",
}
KEY: Final[KeyFields] = {
    "name": "ci",
    "scopes": ["read"],
    "expires_at": AT,
    "limits": {
        "max_instances": 3,
        "max_hourly_price": 2.0,
        "max_run_minutes": 60,
        "budget": {"amount": 5.0, "period": "day"},
    },
}

Call = Callable[[Novitai], object]
CALLS: Final[Mapping[tuple[str, str], Call]] = {
    ("GET", "/api/operations"): lambda c: list(
        c.operations.list(instance_id="i", done=True, limit=5)
    ),
    ("GET", "/api/deliveries"): lambda c: list(c.deliveries.list(status="dead", limit=5)),
    ("POST", "/api/instances"): lambda c: c.instances.create(**CREATE),
    ("GET", "/api/instances"): lambda c: list(
        c.instances.list(
            status="running",
            region="any",
            name="ci",
            tags={"team": "vision"},
            include_terminated=True,
            limit=5,
        )
    ),
    ("GET", "/api/instances/{instanceId}"): lambda c: c.instances.get("i"),
    ("DELETE", "/api/instances/{instanceId}"): lambda c: c.instances.delete("i", confirm=True),
    ("PATCH", "/api/instances/{instanceId}"): lambda c: c.instances.update(
        "i", if_match='W/"1"', **CHANGES
    ),
    ("POST", "/api/keys"): lambda c: c.keys.create(**KEY),
    ("GET", "/api/keys"): lambda c: list(c.keys.list(limit=5)),
    ("GET", "/api/key"): lambda c: c.keys.current(),
    ("DELETE", "/api/keys/{keyId}"): lambda c: c.keys.revoke("k"),
    ("POST", "/api/session"): lambda c: c.sessions.create(key="k", code="c"),
    ("GET", "/api/session"): lambda c: c.sessions.current(),
    ("DELETE", "/api/session"): lambda c: c.sessions.delete(),
    ("POST", "/api/session/codes"): lambda c: c.sessions.create_code(),
    ("GET", "/api/cache/stats"): lambda c: c.caches.stats(),
    ("GET", "/api/cache/{cacheName}/stats"): lambda c: c.caches.get("products"),
    ("POST", "/api/cache/clear"): lambda c: c.caches.clear("products"),
    ("POST", "/api/cache/cleanup"): lambda c: c.caches.cleanup(),
    ("DELETE", "/api/cache/{cacheName}/{key}"): lambda c: c.caches.delete("products", "a/b"),
    ("GET", "/metrics"): lambda c: c.server.metrics(),
    ("GET", "/health"): lambda c: c.server.health(),
    ("GET", "/health/live"): lambda c: c.server.live(),
    ("GET", "/health/ready"): lambda c: c.server.ready(),
    ("GET", "/api/products"): lambda c: list(
        c.products.list(region="any", billing_mode="spot", gpu_num=2, limit=5)
    ),
    ("GET", "/api/templates"): lambda c: list(c.templates.list(limit=5)),
    ("GET", "/api/regions"): lambda c: list(c.regions.list(limit=5)),
    ("POST", "/api/quotes"): lambda c: c.quotes.create(**QUOTE),
    ("GET", "/api/instances/{instanceId}/utilization"): lambda c: c.instances.utilization(
        "i", from_=AT, to=AT, interval=15
    ),
    ("POST", "/api/instances/{instanceId}/start"): lambda c: c.instances.start("i"),
    ("POST", "/api/instances/start"): lambda c: c.instances.start(name="ci"),
    ("POST", "/api/instances/{instanceId}/stop"): lambda c: c.instances.stop("i"),
    ("POST", "/api/instances/stop"): lambda c: c.instances.stop(name="ci"),
    ("POST", "/api/instances/{instanceId}/restart"): lambda c: c.instances.restart("i"),
    ("POST", "/api/instances/restart"): lambda c: c.instances.restart(name="ci"),
    ("POST", "/api/instances/delete"): lambda c: c.instances.delete(name="ci"),
    ("POST", "/api/instances/stop-all"): lambda c: c.instances.stop_all(),
    ("POST", "/api/instances/sync"): lambda c: c.instances.sync(),
    ("PUT", "/api/instances/{instanceId}/last-used"): lambda c: c.instances.set_last_used("i", AT),
    ("GET", "/api/instances/{instanceId}/credentials"): lambda c: c.instances.credentials("i"),
    ("GET", "/api/instances/{instanceId}/wait"): lambda c: c.instances.wait("i", "stopped"),
    ("GET", "/api/instances/{instanceId}/events"): lambda c: list(c.instances.events("i", limit=5)),
    ("GET", "/api/events"): lambda c: list(c.events.list(since="1.a", order="desc", limit=5)),
    ("GET", "/api/operations/{operationId}"): lambda c: c.operations.get("op"),
    ("POST", "/api/operations/{operationId}/cancel"): lambda c: c.operations.cancel("op"),
    ("POST", "/api/instances/{instanceId}/keep"): lambda c: c.instances.keep("i", 60),
    ("GET", "/api/account"): lambda c: c.account.get(),
    ("POST", "/api/account/confirm"): lambda c: c.account.confirm("digest"),
    ("GET", "/api/instances/unmanaged"): lambda c: list(c.instances.unmanaged(limit=5)),
    ("POST", "/api/instances/unmanaged/{upstreamId}/dismiss"): lambda c: c.instances.dismiss("u"),
    ("POST", "/api/instances/adopt"): lambda c: c.instances.adopt(
        "u", name="ci", instance_id="i", tags={"team": "vision"}
    ),
    ("POST", "/api/instances/{instanceId}/release"): lambda c: c.instances.release("i"),
    ("POST", "/api/webhooks"): lambda c: c.webhooks.create(**WEBHOOK),
    ("GET", "/api/webhooks"): lambda c: list(c.webhooks.list(limit=5)),
    ("GET", "/api/webhooks/{webhookId}"): lambda c: c.webhooks.get("w"),
    ("PATCH", "/api/webhooks/{webhookId}"): lambda c: c.webhooks.update("w", **WEBHOOK),
    ("DELETE", "/api/webhooks/{webhookId}"): lambda c: c.webhooks.delete("w"),
    ("POST", "/api/webhooks/{webhookId}/rotate"): lambda c: c.webhooks.rotate("w"),
    ("POST", "/api/webhooks/{webhookId}/test"): lambda c: c.webhooks.test("w"),
    ("POST", "/api/webhooks/{webhookId}/replay"): lambda c: c.webhooks.replay("w", AT),
    ("GET", "/api/instances/{instanceId}/deliveries"): lambda c: list(
        c.instances.deliveries("i", limit=5)
    ),
    ("GET", "/api/webhooks/{webhookId}/deliveries"): lambda c: list(
        c.webhooks.deliveries("w", status="dead", limit=5)
    ),
    ("POST", "/api/deliveries/{deliveryId}/redeliver"): lambda c: c.deliveries.redeliver("d"),
    ("GET", "/api/instances/{instanceId}/cost"): lambda c: c.instances.cost("i"),
    ("GET", "/api/costs"): lambda c: c.costs.get(
        from_=AT, to=AT, group_by="key", bucket="day", tz="UTC"
    ),
    ("GET", "/api/costs/summary"): lambda c: c.costs.summary(tz="UTC"),
    ("GET", "/api/costs/reconciliation"): lambda c: c.costs.reconciliation(from_=AT, to=AT),
    ("POST", "/api/budgets"): lambda c: c.budgets.create(**BUDGET),
    ("GET", "/api/budgets"): lambda c: list(c.budgets.list(limit=5)),
    ("GET", "/api/budgets/{budgetId}"): lambda c: c.budgets.get("b"),
    ("PATCH", "/api/budgets/{budgetId}"): lambda c: c.budgets.update("b", **BUDGET),
    ("DELETE", "/api/budgets/{budgetId}"): lambda c: c.budgets.delete("b"),
}
