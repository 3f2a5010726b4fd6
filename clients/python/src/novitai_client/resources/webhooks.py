# SPDX-License-Identifier: Apache-2.0
"""Standing webhooks, and the deliveries of all webhooks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final, Unpack

from novitai_client.models.webhooks import (
    Delivery,
    Replay,
    RevealedWebhook,
    Webhook,
    WebhookTest,
)
from novitai_client.requests import Time, WebhookChangeFields, WebhookFields
from novitai_client.surface import IteratorMethod, Method, Mode, Resource
from novitai_client.wire import body, path, query
from novitai_client.words import DeliveryStatus

_PATH: Final = "/api/webhooks"


class Webhooks(Resource[Mode]):
    """Standing webhooks."""

    @Method
    async def create(
        self, *, idempotency_key: str | None = None, **fields: Unpack[WebhookFields]
    ) -> RevealedWebhook:
        """Create a standing webhook; `secret` verifies its messages.

        Example:
            made = client.webhooks.create(
                url="https://example.com/hook", event_types=["instance.failed"]
            )
            print(made.secret)
        """
        return await self._api.fetch(
            RevealedWebhook, "POST", _PATH, content=body(fields), key=idempotency_key
        )

    @IteratorMethod
    async def list(self, *, limit: int | None = None) -> AsyncGenerator[Webhook, None]:
        """Iterate over the standing webhooks.

        Example:
            for webhook in client.webhooks.list():
                print(webhook.url, webhook.enabled)
        """
        async for one in self._api.pages(Webhook, _PATH, "webhooks", query(limit=limit)):
            yield one

    @Method
    async def get(self, webhook_id: str) -> Webhook:
        """Read a standing webhook.

        Example:
            print(client.webhooks.get("wh_1").failing_since)
        """
        return await self._api.fetch(Webhook, "GET", path("api", "webhooks", webhook_id))

    @Method
    async def update(self, webhook_id: str, **changes: Unpack[WebhookChangeFields]) -> Webhook:
        """Change a standing webhook. None restores a default; others are kept.

        Example:
            client.webhooks.update("wh_1", enabled=True)
        """
        return await self._api.fetch(
            Webhook,
            "PATCH",
            path("api", "webhooks", webhook_id),
            content=body(changes, nulls=True),
            headers={"Content-Type": "application/merge-patch+json"},
        )

    @Method
    async def delete(self, webhook_id: str, *, idempotency_key: str | None = None) -> Webhook:
        """Delete a standing webhook.

        Example:
            client.webhooks.delete("wh_1")
        """
        place = path("api", "webhooks", webhook_id)
        return await self._api.fetch(Webhook, "DELETE", place, key=idempotency_key)

    @Method
    async def rotate(
        self, webhook_id: str, *, idempotency_key: str | None = None
    ) -> RevealedWebhook:
        """Replace the secret. The previous one stays valid until `previous_secret_valid_until`.

        Example:
            print(client.webhooks.rotate("wh_1").secret)
        """
        place = path("api", "webhooks", webhook_id, "rotate")
        return await self._api.fetch(RevealedWebhook, "POST", place, key=idempotency_key)

    @Method
    async def test(self, webhook_id: str, *, idempotency_key: str | None = None) -> WebhookTest:
        """Send a test message now.

        Example:
            print(client.webhooks.test("wh_1").delivered)
        """
        place = path("api", "webhooks", webhook_id, "test")
        return await self._api.fetch(WebhookTest, "POST", place, key=idempotency_key)

    @Method
    async def replay(
        self, webhook_id: str, since: Time, *, idempotency_key: str | None = None
    ) -> Replay:
        """Send all events since a time again.

        Example:
            from datetime import UTC, datetime, timedelta

            client.webhooks.replay("wh_1", datetime.now(UTC) - timedelta(hours=1))
        """
        return await self._api.fetch(
            Replay,
            "POST",
            path("api", "webhooks", webhook_id, "replay"),
            content=body({"since": since}),
            key=idempotency_key,
        )

    @IteratorMethod
    async def deliveries(
        self, webhook_id: str, *, status: DeliveryStatus | None = None, limit: int | None = None
    ) -> AsyncGenerator[Delivery, None]:
        """Iterate over the messages to a standing webhook.

        Example:
            for delivery in client.webhooks.deliveries("wh_1", status="dead"):
                client.deliveries.redeliver(delivery.id)
        """
        place = path("api", "webhooks", webhook_id, "deliveries")
        wanted = query(limit=limit, status=status)
        async for one in self._api.pages(Delivery, place, "deliveries", wanted):
            yield one


class Deliveries(Resource[Mode]):
    """Deliveries of all webhooks."""

    @IteratorMethod
    async def list(
        self, *, status: DeliveryStatus | None = None, limit: int | None = None
    ) -> AsyncGenerator[Delivery, None]:
        """Iterate over the deliveries of all webhooks.

        Example:
            for delivery in client.deliveries.list(status="dead"):
                print(delivery.url, delivery.attempts[-1].error)
        """
        wanted = query(limit=limit, status=status)
        async for one in self._api.pages(Delivery, "/api/deliveries", "deliveries", wanted):
            yield one

    @Method
    async def redeliver(self, delivery_id: str, *, idempotency_key: str | None = None) -> Delivery:
        """Send a message again.

        Example:
            client.deliveries.redeliver("dlv_1")
        """
        place = path("api", "deliveries", delivery_id, "redeliver")
        return await self._api.fetch(Delivery, "POST", place, key=idempotency_key)
