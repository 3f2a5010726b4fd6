# SPDX-License-Identifier: Apache-2.0
"""The wire of webhooks and deliveries, for the OpenAPI document and for tests."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from novitai.api.openapi.schemas import Wire, absent
from novitai.domain.event import EventType
from novitai.domain.validation import MAX_URL
from novitai.domain.webhook import TOLD, DeliveryStatus, OffReason
from novitai.domain.webhook_requests import MAX_DESCRIPTION

ToldType = StrEnum(  # type: ignore[misc]  # mypy wants the members written out
    "ToldType", {one.name: one.value for one in TOLD}
)
ToldType.__doc__ = "What webhooks are told."

_ALL: Final = "Which events it is told; an empty list means all of them"


class CreateWebhookRequest(Wire):
    """A standing webhook that is wanted: told of the events of every instance."""

    url: Annotated[str, Field(max_length=MAX_URL, description="HTTP or HTTPS, and public")]
    event_types: Annotated[list[ToldType], Field(description=_ALL)] = Field(default_factory=list)
    enabled: bool = True
    description: Annotated[str, Field(max_length=MAX_DESCRIPTION)] = absent()

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "url": "https://webhook.example.com/notify",
                "eventTypes": ["instance.running", "instance.failed"],
            }
        }
    )


class ChangeWebhookRequest(Wire):
    """What is to change; what is left out stays as it is."""

    url: Annotated[str, Field(max_length=MAX_URL)] = absent()
    event_types: Annotated[list[ToldType], Field(description=_ALL)] = absent()
    enabled: bool = absent()
    description: Annotated[str, Field(max_length=MAX_DESCRIPTION)] = absent()


class ReplayRequest(Wire):
    """Since when everything is to be told again."""

    since: Annotated[datetime, Field(description="ISO-8601 with an offset, in the past")]


class WebhookView(Wire):
    """A standing webhook. User name and password of its URL are not shown."""

    id: str
    url: str
    event_types: list[ToldType]
    enabled: bool
    description: str = absent()
    created_at: datetime
    updated_at: datetime
    failing_since: Annotated[
        datetime, Field(description="When it first failed after its last success")
    ] = absent()
    disabled_at: datetime = absent()
    disabled_reason: OffReason = absent()
    previous_secret_valid_until: datetime = absent()


class RevealedWebhook(WebhookView):
    """A webhook and its secret. This is the only time that `secret` is shown."""

    secret: Annotated[str, Field(pattern="^whsec_")]


class ListWebhooksResponse(Wire):
    """Standing webhooks, newest first."""

    webhooks: list[WebhookView]
    next_cursor: str = absent()


class AttemptView(Wire):
    """One try: `error` says why it is no success, `response` is how the answer begins (2 KiB)."""

    at: datetime
    status_code: int = absent()
    error: str = absent()
    duration_ms: int
    response: str = absent()


class DeliveryView(Wire):
    """A message to one receiver; `id` is what comes as `webhook-id`, the same with every try."""

    id: str
    event_id: str
    type: EventType
    instance_id: str
    webhook_id: Annotated[str, Field(description="Absent where the URL came with the instance")] = (
        absent()
    )
    url: str
    status: DeliveryStatus
    created_at: datetime
    next_attempt_at: Annotated[
        datetime,
        Field(description="While it is pending; later if it waits for the message before it"),
    ] = absent()
    ended_at: datetime = absent()
    attempts: list[AttemptView]


class ListDeliveriesResponse(Wire):
    """Messages and what became of them."""

    deliveries: list[DeliveryView]
    next_cursor: str = absent()


class WebhookTestResponse(Wire):
    """What came of a test message, which is sent once."""

    message_id: str
    delivered: bool
    attempt: AttemptView


class ReplayResponse(Wire):
    """How many messages are sent again."""

    webhook_id: str
    messages: int


REFERRED: Final[tuple[type[BaseModel], ...]] = (
    CreateWebhookRequest,
    ChangeWebhookRequest,
    ReplayRequest,
)
"""What the document refers to besides the answers of routes."""
