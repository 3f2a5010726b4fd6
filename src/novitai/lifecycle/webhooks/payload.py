# SPDX-License-Identifier: Apache-2.0
"""What a message is made of, and what is kept of its answer."""

from __future__ import annotations

from typing import Final

import orjson

from novitai.clock import iso
from novitai.domain.webhook import Try
from novitai.egress.sending import ReceiverAnswer
from novitai.store.queries.webhooks import Sealed
from novitai.store.vault import Vault

SECRET_PURPOSE: Final = "webhook-secret"  # noqa: S105 - a purpose, no secret


def body_of(event_type: str, at: int, data: str) -> bytes:
    """Write the body of a message: the same bytes for every try, since the event never changes."""
    shown = {"type": event_type, "timestamp": iso(at), "data": orjson.Fragment(data)}
    return orjson.dumps(shown)


def as_try(answer: ReceiverAnswer) -> Try:
    """Keep of an answer what the record shows."""
    return Try(
        at=answer.at,
        duration_ms=answer.duration_ms,
        status_code=answer.status,
        error=answer.error,
        response=answer.response,
    )


def open_secrets(vault: Vault, sealed: Sealed, now: int) -> list[str]:
    """Open the secrets of a standing webhook that sign now, newest first.

    Raises:
        WrongSecretKey: they were sealed under another secret key.
    """
    valid = [sealed.secret]
    if sealed.previous_until is not None and now < sealed.previous_until:
        valid.append(sealed.previous)
    return [vault.unseal(SECRET_PURPOSE, one).decode() for one in valid if one is not None]
