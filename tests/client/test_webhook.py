# SPDX-License-Identifier: Apache-2.0
"""A webhook is believed only if the server signed it, recently."""

from __future__ import annotations

import json

import pytest

from novitai.egress.signing import headers, secret_of
from novitai_client import WebhookRefused, verify_webhook
from tests.client.scripted import AT, instance

SECRET, OTHER = secret_of("a" * 44), secret_of("b" * 44)
NOW = 1_760_000_000
BODY = json.dumps(
    {
        "type": "instance.failed",
        "timestamp": AT,
        "data": {**instance("failed"), "previousStatus": "starting"},
    }
).encode()


def signed(*secrets: str, body: bytes = BODY) -> dict[str, str]:
    """Sign a message as the server does; proxies may change the case of headers."""
    return {
        name.title(): value for name, value in headers("msg_1", body, NOW * 1000, secrets).items()
    }


def test_a_message_of_the_server_is_read() -> None:
    """A message that the server signed is verified, and has the instance."""
    message = verify_webhook(signed(SECRET), BODY, SECRET, now=NOW)
    assert (message.id, message.type) == ("msg_1", "instance.failed")
    assert message.instance is not None
    assert message.instance.status == "failed"
    assert message.data["previousStatus"] == "starting"


def test_a_rotated_secret_is_taken() -> None:
    """The server signs with both secrets for a day, and a receiver may know both."""
    assert verify_webhook(signed(OTHER, SECRET), BODY, SECRET, now=NOW).id == "msg_1"
    assert verify_webhook(signed(SECRET), BODY.decode(), [OTHER, SECRET], now=NOW).id == "msg_1"


def test_a_message_about_the_account_has_no_instance() -> None:
    """It has its own object."""
    body = json.dumps({"type": "budget.alert", "timestamp": AT, "data": {"id": "bud_1"}}).encode()
    assert verify_webhook(signed(SECRET, body=body), body, SECRET, now=NOW).instance is None


@pytest.mark.parametrize(
    ("changed", "body", "now"),
    [
        ({}, BODY + b" ", NOW),
        ({"Webhook-Id": "msg_2"}, BODY, NOW),
        ({"Webhook-Timestamp": str(NOW + 1)}, BODY, NOW),
        ({"Webhook-Timestamp": "soon"}, BODY, NOW),
        ({"Webhook-Signature": "v2,AAAA"}, BODY, NOW),
        ({"Webhook-Signature": "v1,é"}, BODY, NOW),
        ({}, BODY, NOW + 301),
        ({}, BODY, NOW - 301),
    ],
)
def test_a_message_that_was_changed_or_is_old_is_refused(
    changed: dict[str, str], body: bytes, now: float
) -> None:
    """Body, ID and time are covered by the signature, and the time must be near."""
    with pytest.raises(WebhookRefused):
        verify_webhook({**signed(SECRET), **changed}, body, SECRET, now=now)


def test_another_secret_and_a_missing_header_are_refused() -> None:
    """Neither proves the sender."""
    with pytest.raises(WebhookRefused):
        verify_webhook(signed(OTHER), BODY, SECRET, now=NOW)
    with pytest.raises(WebhookRefused, match="webhook-id"):
        verify_webhook({}, BODY, SECRET, now=NOW)
    with pytest.raises(WebhookRefused, match="message"):
        verify_webhook(signed(SECRET, body=b"[]"), b"[]", SECRET, now=NOW)
    with pytest.raises(ValueError, match="whsec_"):
        verify_webhook(signed(SECRET), BODY, "whsec_not base64", now=NOW)
