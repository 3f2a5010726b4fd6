# SPDX-License-Identifier: Apache-2.0
"""The standard's own verifier accepts the signatures, and refuses changed messages."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from novitai.egress.signing import NoSecret, headers, secret_of
from novitai.ids import Ids
from novitai.lifecycle.webhooks.installation_secret import fresh_secret

OLD, NEW = fresh_secret(Ids()), fresh_secret(Ids())


def now() -> int:
    """Return the time of day in Unix milliseconds."""
    return int(time.time() * 1000)


@settings(max_examples=40, deadline=None)
@given(text=st.text())
def test_every_text_is_accepted(text: str) -> None:
    """A body with any text can be verified."""
    body = text.encode("utf-8", "replace")
    Webhook(NEW).verify(body, headers("msg_1", body, now(), [NEW]), json_parse=False)


def test_either_secret_verifies_during_a_rotation() -> None:
    """Two secrets make two signatures, and either secret verifies the message."""
    signed = headers("msg_1", b"{}", now(), [NEW, OLD])
    for secret in (OLD, NEW):
        Webhook(secret).verify(b"{}", signed)


@pytest.mark.parametrize("part", ["body", "webhook-id", "webhook-timestamp", "webhook-signature"])
def test_whatever_is_changed_is_noticed(part: str) -> None:
    """A change of the body, ID, time or signature is detected."""
    body = b'{"a":1}'
    signed = headers("msg_1", body, now(), [NEW])
    if part == "body":
        body = b'{"a":2}'
    elif part == "webhook-timestamp":
        signed[part] = str(int(signed[part]) + 1)
    elif part == "webhook-id":
        signed[part] = "msg_2"
    else:
        kept = signed[part]
        signed[part] = kept[:5] + ("B" if kept[5] == "A" else "A") + kept[6:]
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(body, signed)


def test_an_old_message_and_another_secret_are_refused() -> None:
    """A message older than five minutes, or signed with another secret, is refused."""
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(NEW).verify(b"{}", headers("msg_1", b"{}", now() - 360_000, [NEW]))
    with pytest.raises(WebhookVerificationError, match="No matching"):
        Webhook(OLD).verify(b"{}", headers("msg_1", b"{}", now(), [NEW]))


def test_nothing_is_signed_with_nothing() -> None:
    """Without a secret, signing fails."""
    with pytest.raises(NoSecret):
        headers("msg_1", b"{}", now(), [])


def test_secrets() -> None:
    """A secret is `whsec_` and 44 characters of base64."""
    assert len(NEW) == len("whsec_") + 44
    with pytest.raises(ValueError, match="44"):
        secret_of("short")
