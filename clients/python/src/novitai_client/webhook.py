# SPDX-License-Identifier: Apache-2.0
"""Verify webhooks: Standard Webhooks 1.0."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from novitai_client.errors import WebhookRefused
from novitai_client.models.instances import Instance
from novitai_client.wire import Model, Open
from novitai_client.words import WebhookEventType

TOLERANCE_SECONDS: Final = 300.0


class WebhookMessage(Model):
    """An authentic message.

    Attributes:
        id: The same in every delivery of one message, so that a repeated one can be ignored.
        type: The type of the event.
        timestamp: When the event happened.
        data: The view of the instance and `previousStatus`; of an account event, its own object.
    """

    id: str
    type: Open[WebhookEventType]
    timestamp: datetime
    data: dict[str, Any]

    @property
    def instance(self) -> Instance | None:
        """The instance; None for an event about the account."""
        return Instance.model_validate(self.data) if self.type.startswith("instance.") else None


def verify_webhook(
    headers: Mapping[str, str],
    body: bytes | str,
    secret: str | Sequence[str],
    *,
    tolerance: float = TOLERANCE_SECONDS,
    now: float | None = None,
) -> WebhookMessage:
    """Check that a webhook is from this novitai and recent, and read it.

    Args:
        headers: The headers of the request; their case does not matter.
        body: The body exactly as it was received, before it is decoded as JSON.
        secret: The secret (`whsec_...`), or several while it is rotated.
        tolerance: The greatest difference of the clocks, in seconds.
        now: The time in Unix seconds; by default the machine's.

    Raises:
        WebhookRefused: the webhook must not be believed.
        ValueError: a secret is not valid.

    Example:
        message = verify_webhook(request.headers, request.body, "whsec_...")
        if message.type == "instance.failed":
            print(message.data["id"], message.data["error"]["message"])
    """
    given = {name.lower(): value for name, value in headers.items()}
    content = body.encode() if isinstance(body, str) else bytes(body)
    try:
        message_id, timestamp = given["webhook-id"], given["webhook-timestamp"]
        signatures = given["webhook-signature"].split(" ")
    except KeyError as error:
        raise WebhookRefused(f"the header {error} is missing") from None
    _check_time(timestamp, time.time() if now is None else now, tolerance)
    signed = f"{message_id}.{timestamp}.".encode() + content
    secrets = [secret] if isinstance(secret, str) else secret
    valid = [
        base64.b64encode(hmac.digest(_key(one), signed, hashlib.sha256)).decode() for one in secrets
    ]
    if not any(_matches(signature, valid) for signature in signatures):
        raise WebhookRefused("no signature matches the secret")
    try:
        return WebhookMessage.model_validate({**json.loads(content), "id": message_id})
    except (ValueError, TypeError, ValidationError):
        raise WebhookRefused("the body is not a message of novitai") from None


def _check_time(timestamp: str, now: float, tolerance: float) -> None:
    if not (timestamp.isascii() and timestamp.isdigit()):
        raise WebhookRefused("the timestamp is not a number")
    if abs(now - int(timestamp)) > tolerance:
        raise WebhookRefused(f"the timestamp differs by more than {tolerance:.0f} s from the clock")


def _matches(signature: str, valid: Sequence[str]) -> bool:
    version, _, value = signature.partition(",")
    if version != "v1":
        return False
    return any(hmac.compare_digest(value.encode(), one.encode()) for one in valid)


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ValueError("a webhook secret is whsec_ and base64") from None
