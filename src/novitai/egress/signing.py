# SPDX-License-Identifier: Apache-2.0
"""Signatures as Standard Webhooks 1.0 has them, made by the standard's own library."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from standardwebhooks import Webhook

from novitai.errors import NovitaiError

PREFIX: Final = "whsec_"
_CHARACTERS: Final = 44
"""Of base64 without padding: 33 bytes, of which letters and digits fill 32."""


class NoSecret(NovitaiError):
    """A message must not go out unsigned: nobody could tell that it is from us."""


def secret_of(characters: str) -> str:
    """Make a secret of 44 random letters and digits, which are base64 of 33 bytes as they stand.

    Raises:
        ValueError: there are more or fewer of them.
    """
    if len(characters) != _CHARACTERS:
        raise ValueError(f"a secret is made of {_CHARACTERS} characters")
    return PREFIX + characters


def headers(message_id: str, body: bytes, at: int, secrets: Sequence[str]) -> dict[str, str]:
    """Make the three headers of a message.

    Args:
        message_id: The same for every try of one message.
        body: The very bytes that will be sent; UTF-8.
        at: When this try is made, in Unix milliseconds: receivers refuse what is old.
        secrets: The valid secrets, newest first; each signs.

    Raises:
        NoSecret: there are none.
    """
    if not secrets:
        raise NoSecret("there is no secret to sign it with")
    seconds = at // 1000
    moment = datetime.fromtimestamp(seconds, UTC)
    text = body.decode()
    signatures = [Webhook(secret).sign(message_id, moment, text) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(signatures),
    }
