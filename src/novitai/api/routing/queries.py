# SPDX-License-Identifier: Apache-2.0
"""Reading query strings and headers with the rules that bodies have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from novitai.api.http.body import JsonBody
from novitai.api.http.versioning import without_version
from novitai.api.openapi.schemas import VISIBLE
from novitai.api.routing.router import IDEMPOTENCY_KEY, Call
from novitai.domain.fields import Check, Fields, Wrong
from novitai.errors import FieldError, ValidationFailed
from novitai.lifecycle.commands.idempotency import IdempotencyKey

_IDEMPOTENCY_KEY: Final = re.compile(IDEMPOTENCY_KEY)


def query_fields(call: Call) -> Fields:
    """Read the query string field by field; a parameter given twice is refused."""
    values: dict[str, object] = {}
    for name, value in call.request.query_params.multi_items():
        values[name] = [value] if name in values else value
    return Fields(values)


def visible(longest: int) -> Mapping[str, object]:
    """Describe what `novitai.domain.fields.text` accepts."""
    return {"type": "string", "minLength": 1, "maxLength": longest, "pattern": VISIBLE}


def one_of(label: str, names: Mapping[str, object] | tuple[str, ...]) -> Check[str]:
    """Accept one of some words."""

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in names:
            raise Wrong(f"{label} must be one of {', '.join(names)}")
        return value

    return check


def flag(label: str) -> Callable[[object], bool]:
    """Accept `true` or `false`."""

    def check(value: object) -> bool:
        if value not in ("true", "false"):
            raise Wrong(f"{label} must be true or false")
        return value == "true"

    return check


def idempotency_key(call: Call, body: JsonBody) -> IdempotencyKey | None:
    """Read the `Idempotency-Key` header and bind it to API key, route and body.

    Raises:
        ValidationFailed: it is empty, longer than 255 characters, or not visible ASCII.
    """
    given = call.request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1 or not _IDEMPOTENCY_KEY.fullmatch(given[0]):
        raise ValidationFailed(
            "Validation failed",
            details=[
                FieldError(
                    "Idempotency-Key",
                    "Idempotency-Key must be 1 to 255 visible ASCII characters",
                    has_value=False,
                )
            ],
        )
    path = without_version(call.request.scope["path"])
    return IdempotencyKey(
        call.caller.key_id, f"{call.request.method} {path}", given[0], body.digest
    )
