# SPDX-License-Identifier: Apache-2.0
"""Schemas of webhooks and deliveries."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    Strict,
    ValidationInfo,
    WrapValidator,
)

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
    null_removes,
    removable,
)
from novitai.domain.event import EventType
from novitai.domain.requests import MAX_DESCRIPTION, WebhookChange, WebhookRequest
from novitai.domain.webhook import WEBHOOK_EVENTS, DeliveryStatus, OffReason

WebhookEventType = StrEnum(  # type: ignore[misc]  # mypy wants the members written out
    "WebhookEventType", {one.name: one.value for one in WEBHOOK_EVENTS}
)
WebhookEventType.__doc__ = "The event types that webhooks can receive."

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


def event_types(wanted: list[WebhookEventType]) -> tuple[EventType, ...]:
    """Return event types without duplicates, in the order of their declaration."""
    return tuple(known for known in WEBHOOK_EVENTS if known.value in wanted)


# A URL may contain a password or a token, so error messages do not quote it.
_Url = Annotated[
    WebhookUrl,
    Field(description="Where messages are sent: HTTP or HTTPS, a public address"),
    Wording("Webhook URL", missing="URL is required", code="INVALID_WEBHOOK_URL", secret=True),
]
_EventTypes = Annotated[
    list[Annotated[WebhookEventType, Strict(False)]],
    BeforeValidator(_listed),
    Field(description="The event types to deliver; an empty list means all"),
    Wording("Event types", wrong=f"Event types must be among {_NAMES}"),
]
_Enabled = Annotated[bool, Field(description="Whether messages are sent to it"), Wording("Enabled")]
_Description = Annotated[
    str,
    Field(max_length=MAX_DESCRIPTION, pattern=LINES, description="A text for people"),
    Wording("Description"),
]


class CreateWebhookRequest(RequestModel):
    """The standing webhook to create; it gets the events of every instance."""

    url: _Url
    event_types: _EventTypes = Field(default_factory=list)
    enabled: _Enabled = True
    description: _Description = absent()

    def wanted(self) -> WebhookRequest:
        """Return it as a request of the domain."""
        types = event_types(self.event_types)
        return WebhookRequest(self.url, types, self.enabled, self.description)


class ChangeWebhookRequest(RequestModel):
    """A merge patch (RFC 7396): absent fields keep their values, and `null` restores the default.

    Without a description the webhook has none; by default it is enabled and gets all event types.
    """

    url: _Url = absent()
    event_types: Annotated[_EventTypes, WrapValidator(null_removes)] = removable()
    enabled: Annotated[_Enabled, WrapValidator(null_removes)] = removable()
    description: Annotated[_Description, WrapValidator(null_removes)] = removable()

    def wanted(self) -> WebhookChange:
        """Return it as a change of the domain."""
        given = self.model_fields_set
        types: tuple[EventType, ...] | None = None
        if "event_types" in given:
            types = event_types(self.event_types or [])
        return WebhookChange(
            self.url,
            types,
            self.enabled is not False if "enabled" in given else None,
            self.description,
            remove_description="description" in given and self.description is None,
        )


class ReplayRequest(RequestModel):
    """The time from which events are sent again."""

    since: Annotated[
        SentTime,
        AfterValidator(_past),
        Field(description="ISO-8601 with an offset, in the past"),
        Wording("Since"),
    ]


class WebhookView(ResponseModel):
    """A standing webhook. The user name and password in its URL are not shown."""

    id: str = Field(description="The webhook's ID")
    url: str = Field(description="Where its messages are sent, without user name and password")
    event_types: list[WebhookEventType] = Field(
        description="The event types that it receives; an empty list means all"
    )
    enabled: bool = Field(description="Whether messages are sent to it")
    description: str | None = absent("A text for people")
    created_at: Time = Field(description="When it was created")
    updated_at: Time = Field(description="When it was last changed")
    failing_since: Annotated[
        Time | None, Field(description="Time of the first failure since the last success")
    ] = absent()
    disabled_at: Time | None = absent("When it was switched off; absent while it is enabled")
    disabled_reason: OffReason | None = absent(
        "Why it was switched off; absent while it is enabled"
    )
    previous_secret_valid_until: Time | None = absent(
        "Until when the secret before the last rotation signs too"
    )


class RevealedWebhook(WebhookView):
    """A webhook and its secret."""

    secret: str = Field(
        pattern="^whsec_",
        description="The secret that signs its messages; only the responses to a create and to a "
        "rotation show it",
    )


class ListWebhooksResponse(ListPage):
    """Standing webhooks, newest first."""

    webhooks: list[WebhookView] = Field(description="The webhooks of this page")


class AttemptView(ResponseModel):
    """An attempt to deliver a message."""

    at: Time = Field(description="When it began")
    status_code: int | None = absent("The HTTP status of the response; absent if none arrived")
    error: str | None = absent("Why it failed; absent if it succeeded")
    duration_ms: int = Field(description="Its duration in milliseconds")
    response: str | None = absent("The first 2 KiB of the response")


class DeliveryView(ResponseModel):
    """A message to one receiver."""

    id: str = Field(description="The message's ID, sent as `webhook-id` at each attempt")
    event_id: str = Field(description="The event that it tells")
    type: EventType = Field(description="The type of that event")
    instance_id: str | None = absent(
        "The instance of that event; absent for an event about the account"
    )
    webhook_id: (
        Annotated[
            str,
            Field(description="The standing webhook; absent for the instance's own `webhookUrl`"),
        ]
        | None
    ) = absent()
    url: str = Field(description="Where it is sent, without user name and password")
    status: DeliveryStatus = Field(description="Whether it waits, was delivered, or was given up")
    created_at: Time = Field(description="When the event was written")
    next_attempt_at: Annotated[
        Time | None,
        Field(description="While pending: the earliest time of the next attempt"),
    ] = absent()
    ended_at: Time | None = absent("When it was delivered or given up")
    attempts: list[AttemptView] = Field(description="The attempts to deliver it, oldest first")


class ListDeliveriesResponse(ListPage):
    """A page of deliveries."""

    deliveries: list[DeliveryView] = Field(description="The deliveries of this page")


class WebhookTestResponse(ResponseModel):
    """The result of a test message, which is sent once."""

    message_id: str = Field(description="The ID of the test message")
    delivered: bool = Field(description="Whether the receiver accepted it")
    attempt: AttemptView = Field(description="The only attempt to deliver it")


class ReplayResponse(ResponseModel):
    """The number of messages that will be sent again."""

    webhook_id: str = Field(description="The webhook's ID")
    messages: int = Field(description="The number of messages that will be sent again")
