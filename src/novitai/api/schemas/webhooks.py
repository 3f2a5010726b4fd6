# SPDX-License-Identifier: Apache-2.0
"""Webhooks and deliveries."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, Strict, ValidationInfo

from novitai.api.schemas.wire import (
    LINES,
    FieldInvalid,
    ListPage,
    RequestModel,
    ResponseModel,
    SentTime,
    Time,
    WebhookUrl,
    Wording,
    absent,
    known,
)
from novitai.domain.event import EventType
from novitai.domain.requests import MAX_DESCRIPTION, WebhookChange, WebhookRequest
from novitai.domain.webhook import WEBHOOK_EVENTS, DeliveryStatus, OffReason

ToldType = StrEnum(  # type: ignore[misc]  # mypy wants the members written out
    "ToldType", {one.name: one.value for one in WEBHOOK_EVENTS}
)
ToldType.__doc__ = "What webhooks are told."

_NAMES: Final = ", ".join(f"'{known.value}'" for known in WEBHOOK_EVENTS)


def _listed(value: object) -> object:
    if not isinstance(value, list):
        raise FieldInvalid(
            f"Event types must be a list of some of {_NAMES}; an empty one means all"
        )
    return value


def _past(at: int, info: ValidationInfo) -> int:
    if at > known(info, "now"):
        raise FieldInvalid("Since must be in the past")
    return at


def told(wanted: list[ToldType]) -> tuple[EventType, ...]:
    """Put event types into the order in which they are declared, each once."""
    return tuple(known for known in WEBHOOK_EVENTS if known.value in wanted)


# A URL may hold a password or a token: the refusal does not repeat it.
_Url = Annotated[
    WebhookUrl,
    Wording("Webhook URL", missing="URL is required", code="INVALID_WEBHOOK_URL", secret=True),
]
_EventTypes = Annotated[
    list[Annotated[ToldType, Strict(False)]],
    BeforeValidator(_listed),
    Field(description="Which events it is told; an empty list means all of them"),
    Wording("Event types", wrong=f"Event types must be among {_NAMES}"),
]
_Enabled = Annotated[bool, Wording("Enabled")]
_Description = Annotated[
    str, Field(max_length=MAX_DESCRIPTION, pattern=LINES), Wording("Description")
]


class CreateWebhookRequest(RequestModel):
    """A standing webhook that is wanted: told of the events of every instance."""

    url: Annotated[_Url, Field(description="HTTP or HTTPS, and public")]
    event_types: _EventTypes = Field(default_factory=list)
    enabled: _Enabled = True
    description: _Description = absent()

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "url": "https://webhook.example.com/notify",
                "eventTypes": ["instance.running", "instance.failed"],
            }
        }
    )

    def wanted(self) -> WebhookRequest:
        """Return it as a request of the domain."""
        types = told(self.event_types)
        return WebhookRequest(self.url, types, self.enabled, self.description)


class ChangeWebhookRequest(RequestModel):
    """What is to change; what is left out stays as it is."""

    url: _Url = absent()
    event_types: _EventTypes = absent()
    enabled: _Enabled = absent()
    description: _Description = absent()

    def wanted(self) -> WebhookChange:
        """Return it as a change of the domain."""
        types = told(self.event_types) if "event_types" in self.model_fields_set else None
        return WebhookChange(self.url, types, self.enabled, self.description)


class ReplayRequest(RequestModel):
    """Since when everything is to be told again."""

    since: Annotated[
        SentTime,
        AfterValidator(_past),
        Field(description="ISO-8601 with an offset, in the past"),
        Wording("Since"),
    ]


class WebhookView(ResponseModel):
    """A standing webhook. User name and password of its URL are not shown."""

    id: str
    url: str
    event_types: list[ToldType]
    enabled: bool
    description: str | None = absent()
    created_at: Time
    updated_at: Time
    failing_since: Annotated[
        Time | None, Field(description="When it first failed after its last success")
    ] = absent()
    disabled_at: Time | None = absent()
    disabled_reason: OffReason | None = absent()
    previous_secret_valid_until: Time | None = absent()


class RevealedWebhook(WebhookView):
    """A webhook and its secret. This is the only time that `secret` is shown."""

    secret: Annotated[str, Field(pattern="^whsec_")]


class ListWebhooksResponse(ListPage):
    """Standing webhooks, newest first."""

    webhooks: list[WebhookView]


class AttemptView(ResponseModel):
    """One try: `error` says why it is no success, `response` is how the answer begins (2 KiB)."""

    at: Time
    status_code: int | None = absent()
    error: str | None = absent()
    duration_ms: int
    response: str | None = absent()


class DeliveryView(ResponseModel):
    """A message to one receiver; `id` is what comes as `webhook-id`, the same with every try."""

    id: str
    event_id: str
    type: EventType
    instance_id: str | None = absent()
    webhook_id: (
        Annotated[str, Field(description="Absent where the URL came with the instance")] | None
    ) = absent()
    url: str
    status: DeliveryStatus
    created_at: Time
    next_attempt_at: Annotated[
        Time | None,
        Field(description="While it is pending; later if it waits for the message before it"),
    ] = absent()
    ended_at: Time | None = absent()
    attempts: list[AttemptView]


class ListDeliveriesResponse(ListPage):
    """Messages and what became of them."""

    deliveries: list[DeliveryView]


class WebhookTestResponse(ResponseModel):
    """What came of a test message, which is sent once."""

    message_id: str
    delivered: bool
    attempt: AttemptView


class ReplayResponse(ResponseModel):
    """How many messages are sent again."""

    webhook_id: str
    messages: int
