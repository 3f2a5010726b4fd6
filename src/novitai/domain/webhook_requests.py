# SPDX-License-Identifier: Apache-2.0
"""Validation of the request bodies for webhooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from novitai.clock import parse_iso
from novitai.domain.event import EventType
from novitai.domain.fields import FieldInvalid, Fields, flag, text
from novitai.domain.validation import webhook_url
from novitai.domain.webhook import TOLD

MAX_DESCRIPTION: Final = 500

_CODES: Final = {"url": "INVALID_WEBHOOK_URL"}
# A URL may contain a password or a token, so the error does not repeat it.
_SECRET: Final = frozenset({"url"})


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A valid request for a standing webhook; no event types means all of them."""

    url: str
    event_types: tuple[EventType, ...] = ()
    enabled: bool = True
    description: str | None = None


@dataclass(frozen=True, slots=True)
class WebhookChange:
    """A valid change of a standing webhook; None leaves a field unchanged."""

    url: str | None = None
    event_types: tuple[EventType, ...] | None = None
    enabled: bool | None = None
    description: str | None = None


def parse_webhook(body: Mapping[str, object], *, allow_private: bool) -> WebhookRequest:
    """Check a request for a standing webhook.

    Raises:
        ValidationFailed: with every invalid field.
    """
    fields = Fields(body, codes=_CODES, secret=_SECRET)
    url = partial(webhook_url, allow_private=allow_private)
    request = WebhookRequest(
        url=fields.require("url", "URL", url, ""),
        event_types=fields.read("eventTypes", _event_types, ()),
        enabled=fields.read("enabled", flag("Enabled"), True),
        description=fields.read("description", _description, None),
    )
    fields.finish()
    return request


def parse_webhook_change(body: Mapping[str, object], *, allow_private: bool) -> WebhookChange:
    """Check a change of a standing webhook; an absent field stays unchanged.

    Raises:
        ValidationFailed: with every invalid field.
    """
    fields = Fields(body, codes=_CODES, secret=_SECRET)
    url = partial(webhook_url, allow_private=allow_private)
    change = WebhookChange(
        url=fields.read("url", url, None),
        event_types=fields.read("eventTypes", _event_types, None),
        enabled=fields.read("enabled", flag("Enabled"), None),
        description=fields.read("description", _description, None),
    )
    fields.finish()
    return change


def parse_replay(body: Mapping[str, object], *, now: int) -> int:
    """Check a request to replay messages; return its start, in Unix milliseconds.

    Raises:
        ValidationFailed: `since` is missing, not a time, or not in the past.
    """
    fields = Fields(body)
    since = fields.require("since", "Since", _past(now), 0)
    fields.finish()
    return since


def _past(now: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if not isinstance(value, str):
            raise FieldInvalid("Since must be an ISO-8601 time")
        try:
            at = parse_iso(value)
        except (ValueError, OverflowError):
            raise FieldInvalid("Since must be an ISO-8601 time with an offset, such as Z") from None
        if at > now:
            raise FieldInvalid("Since must be in the past")
        return at

    return check


def _event_types(value: object) -> tuple[EventType, ...]:
    names = ", ".join(f"'{known.value}'" for known in TOLD)
    if not isinstance(value, list):
        raise FieldInvalid(f"Event types must be a list of some of {names}; an empty one means all")
    told = {known.value: known for known in TOLD}
    wanted = [told.get(word) if isinstance(word, str) else None for word in value]
    if None in wanted:
        raise FieldInvalid(f"Event types must be among {names}")
    return tuple(known for known in TOLD if known in wanted)


def _description(value: object) -> str:
    return text("Description", longest=MAX_DESCRIPTION, shortest=0, lines=True)(value)
