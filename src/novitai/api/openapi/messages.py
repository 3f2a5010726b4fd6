# SPDX-License-Identifier: Apache-2.0
"""The `webhooks` section of the OpenAPI document: the messages that the server sends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

from pydantic import Field
from typing_extensions import TypedDict

from novitai.api.openapi.events import EVENTS, EventInfo
from novitai.api.openapi.examples import message
from novitai.domain.actor import System
from novitai.domain.webhook import WEBHOOK_EVENTS

SNAPSHOT: Final = "InstanceSnapshot"
_TEST: Final = "webhook.test"
_REF: Final = "#/components/schemas/{model}"
_INSTANCE: Final = "InstanceDetails"
_UNSENT: Final = {"observedAt"}
"""Fields of an instance that no event has."""

_HEADERS: Final = {
    "webhook-id": (
        "The ID of the message, the same at each attempt: ignore a message that was processed",
        "msg_4x8v1k7q2m9c3f6t0z5b",
    ),
    "webhook-timestamp": (
        "When this attempt began, in Unix seconds: refuse a message that is older than 5 minutes",
        "1697797800",
    ),
    "webhook-signature": (
        (
            "The signature of Standard Webhooks 1.0: `v1,` and the base64 of the HMAC-SHA256 of "
            "`webhook-id`, `webhook-timestamp` and the body, joined by `.`. While a secret is "
            "rotated, a second signature follows after a space"
        ),
        "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
    ),
}


class MessageCreator(TypedDict):
    """The API key that created an instance; receivers do not get its name."""

    keyId: Annotated[str, Field(description="The ID of the API key")]


class MessageActor(TypedDict, total=False):
    """An API key, or a part of novitai; receivers do not get the name of the key."""

    keyId: Annotated[str, Field(description="The ID of the API key")]
    system: Annotated[System, Field(description="The part of novitai")]


class MessageCause(TypedDict, total=False):
    """The cause of an event."""

    actor: Annotated[MessageActor, Field(description="Who caused it; absent if that is not known")]


class TestedWebhook(TypedDict):
    """The data of a test message."""

    webhookId: Annotated[str, Field(description="The webhook's ID")]


def models() -> Iterator[type]:
    """Yield the models to which the webhooks refer."""
    yield from (MessageCreator, MessageActor, MessageCause, TestedWebhook)
    for event_type in WEBHOOK_EVENTS:
        info = EVENTS[event_type]
        yield from (one for one in (info.facts, info.data) if one is not None)


def snapshot(definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an instance in a message, made from that of an instance."""
    instance = definitions[_INSTANCE]
    fields = {name: one for name, one in instance["properties"].items() if name not in _UNSENT}
    creator = {**fields["createdBy"], "$ref": _REF.format(model=MessageCreator.__name__)}
    return {
        "type": "object",
        "title": SNAPSHOT,
        "description": "An instance as it was at an event.",
        "properties": {**fields, "createdBy": creator},
        "required": instance["required"],
    }


def webhooks() -> dict[str, Any]:
    """Return the section: each event type that webhooks receive, and the test message."""
    written = {one.value: _item(one.value, EVENTS[one]) for one in WEBHOOK_EVENTS}
    tested = EventInfo(
        "A test of a standing webhook was requested.",
        data=TestedWebhook,
        example={"webhookId": "whk_2w4e6r8t1y3u5i7o9p0a"},
    )
    return {**written, _TEST: _item(_TEST, tested)}


def signature_headers() -> dict[str, Any]:
    """Return the parameters to which the webhooks refer: the headers of every message."""
    return {
        name: {
            "name": name,
            "in": "header",
            "required": True,
            "description": about,
            "schema": {"type": "string"},
            "example": example,
        }
        for name, (about, example) in _HEADERS.items()
    }


def _item(name: str, info: EventInfo) -> dict[str, Any]:
    own = "" if info.data else "the instance's `webhookUrl` and to "
    words = name.replace("_", ".").split(".")
    return {
        "post": {
            "tags": ["Webhooks"],
            "summary": info.written.partition(". ")[0].rstrip("."),
            "description": f"{info.written} Sent to {own}standing webhooks that select this type.",
            "operationId": "on" + "".join(word.capitalize() for word in words),
            "parameters": [{"$ref": f"#/components/parameters/{header}"} for header in _HEADERS],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": _schema(name, info),
                        "example": message(name, info.example, about_instance=info.data is None),
                    }
                },
            },
            "responses": {
                "2XX": {"description": "The message was received"},
                "410": {"description": "No more messages are wanted: the webhook is switched off"},
                "default": {"description": "The message was not received; it is sent again"},
            },
            "security": [],
        }
    }


def _schema(name: str, info: EventInfo) -> dict[str, Any]:
    parts = [SNAPSHOT] if info.data is None else [info.data.__name__]
    if info.facts is not None:
        parts.append(info.facts.__name__)
    parts.append(MessageCause.__name__)
    about = "The event" if info.data else "The instance as it was then, and the facts of the event"
    return {
        "type": "object",
        "properties": {
            "type": {"type": "string", "const": name, "description": "The type of the message"},
            "timestamp": {
                "type": "string",
                "format": "date-time",
                "description": "When the event was written",
            },
            "data": {
                "description": about,
                "allOf": [{"$ref": _REF.format(model=part)} for part in parts],
            },
        },
        "required": ["type", "timestamp", "data"],
    }
