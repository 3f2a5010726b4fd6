# SPDX-License-Identifier: Apache-2.0
"""Build the body of a message, open its secrets, and convert its answer to a `Try`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson

from novitai.clock import iso
from novitai.domain.actor import Actor
from novitai.domain.webhook import Try
from novitai.egress.sending import ReceiverAnswer
from novitai.store.queries.webhooks import Sealed
from novitai.store.vault import Vault

SECRET_PURPOSE: Final = "webhook-secret"  # noqa: S105 - a purpose, not a secret


def body_of(event_type: str, at: int, data: str, actor: Actor | None) -> bytes:
    """Return the body of a message. An event never changes, so every try sends the same bytes.

    Receivers get the IDs of API keys, but not their names, which may be those of people.
    """
    told: dict[str, object] = orjson.loads(data)
    if actor is not None:
        told["actor"] = _without_name(actor.view())
    created_by = told.get("createdBy")
    if isinstance(created_by, dict):
        told["createdBy"] = _without_name(created_by)
    return orjson.dumps({"type": event_type, "timestamp": iso(at), "data": told})


def _without_name(actor: Mapping[str, str]) -> dict[str, str]:
    return {field: value for field, value in actor.items() if field != "name"}


def as_try(answer: ReceiverAnswer) -> Try:
    """Return the stored form of an answer."""
    return Try(
        at=answer.at,
        duration_ms=answer.duration_ms,
        status_code=answer.status,
        error=answer.error,
        response=answer.response,
    )


def open_secrets(vault: Vault, sealed: Sealed, now: int) -> list[str]:
    """Decrypt the currently valid secrets of a standing webhook, newest first.

    Raises:
        WrongSecretKey: they were encrypted with another secret key.
    """
    valid = [sealed.secret]
    if sealed.previous_until is not None and now < sealed.previous_until:
        valid.append(sealed.previous)
    return [vault.unseal(SECRET_PURPOSE, one).decode() for one in valid if one is not None]
