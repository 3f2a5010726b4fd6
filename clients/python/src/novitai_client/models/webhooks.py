# SPDX-License-Identifier: Apache-2.0
"""Webhooks and their deliveries."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from novitai_client.wire import Model, Open
from novitai_client.words import DeliveryStatus, EventType, OffReason, WebhookEventType


class Webhook(Model):
    """A standing webhook. The user name and password in its URL are not shown.

    Attributes:
        failing_since: Time of the first failure since the last success.
    """

    id: str
    url: str
    event_types: list[Open[WebhookEventType]]
    enabled: bool
    description: str | None = None
    created_at: datetime
    updated_at: datetime
    failing_since: datetime | None = None
    disabled_at: datetime | None = None
    disabled_reason: Open[OffReason] | None = None
    previous_secret_valid_until: datetime | None = None


class RevealedWebhook(Webhook):
    """A webhook and its secret. `secret` is shown only in this response."""

    secret: str = Field(repr=False)


class DeliveryAttempt(Model):
    """A delivery attempt: `error` says why it failed; `response` is cut to 2 KiB."""

    at: datetime
    status_code: int | None = None
    error: str | None = None
    duration_ms: int
    response: str | None = None


class WebhookTest(Model):
    """The result of a test message, which is sent once."""

    message_id: str
    delivered: bool
    attempt: DeliveryAttempt


class Replay(Model):
    """The number of messages that will be sent again."""

    webhook_id: str
    messages: int


class Delivery(Model):
    """A message to one receiver; `id` is sent as `webhook-id`, the same at each attempt.

    Attributes:
        webhook_id: Absent for the instance's own `webhook_url`.
        next_attempt_at: While pending: the earliest time of the next attempt.
    """

    id: str
    event_id: str
    type: Open[EventType]
    instance_id: str | None = None
    webhook_id: str | None = None
    url: str
    status: Open[DeliveryStatus]
    created_at: datetime
    next_attempt_at: datetime | None = None
    ended_at: datetime | None = None
    attempts: list[DeliveryAttempt]
