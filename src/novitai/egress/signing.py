# SPDX-License-Identifier: Apache-2.0
"""Signatures of Standard Webhooks 1.0, made by the standard's own library."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from standardwebhooks import Webhook

from novitai.errors import NovitaiError

PREFIX: Final = "whsec_"
_CHARACTERS: Final = 44
"""Characters of base64 for 33 bytes, without padding."""


class NoSecret(NovitaiError):
    """No secret is set, and a message is never sent unsigned: receivers could not verify it."""


def secret_of(characters: str) -> str:
    """Make a secret from 44 random letters and digits, which are valid base64 of 33 bytes.

    Raises:
        ValueError: there are not exactly 44 characters.
    """
    if len(characters) != _CHARACTERS:
        raise ValueError(f"a secret must be made from {_CHARACTERS} characters")
    return PREFIX + characters


def headers(message_id: str, body: bytes, at: int, secrets: Sequence[str]) -> dict[str, str]:
    """Return the three signature headers of a message.

    Args:
        message_id: The same in every attempt of one message.
        body: The exact bytes that will be sent; UTF-8.
        at: Time of this attempt in Unix milliseconds; receivers refuse old messages.
        secrets: The valid secrets, newest first; each adds a signature.

    Raises:
        NoSecret: `secrets` is empty.
    """
    if not secrets:
        raise NoSecret("no secret to sign the message with")
    seconds = at // 1000
    moment = datetime.fromtimestamp(seconds, UTC)
    text = body.decode()
    signatures = [Webhook(secret).sign(message_id, moment, text) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(signatures),
    }
