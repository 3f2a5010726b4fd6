# SPDX-License-Identifier: Apache-2.0
"""Reading query strings and headers with the rules that bodies have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlencode

from novitai.api.body import JsonBody
from novitai.api.documentation import Parameter
from novitai.api.routes import Call
from novitai.api.schemas import VISIBLE
from novitai.api.versioning import without_version
from novitai.domain.fields import Check, Fields, Wrong
from novitai.errors import FieldError, ValidationFailed
from novitai.lifecycle.idempotency import IdempotencyKey
from novitai.lifecycle.paging import PLACE

MAX_LIMIT: Final = 1000

_CURSOR: Final = re.compile(r"[A-Za-z0-9._~=-]{1,512}")
_WHOLE: Final = re.compile(r"[0-9]{1,9}")
_IDEMPOTENCY_KEY: Final = re.compile(r"[!-~]{1,255}")

LIMIT: Final = Parameter(
    "limit", "How many to list", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}
)


def _cursor_like(pattern: str) -> Parameter:
    return Parameter(
        "cursor", "`nextCursor` of the page before", {"type": "string", "pattern": f"^{pattern}$"}
    )


CURSOR: Final = _cursor_like(_CURSOR.pattern)
PLACE_CURSOR: Final = _cursor_like(PLACE)
"""Of lists in the order of time."""
OFFSET_CURSOR: Final = _cursor_like(_WHOLE.pattern)
"""Of lists that are whole in memory."""
IDEMPOTENCY_KEY: Final = Parameter(
    "Idempotency-Key",
    "Sent again within 24 h with the same body, the request has no second effect and gets the "
    "same answer, with `Idempotent-Replayed: true`",
    {"type": "string", "pattern": f"^{_IDEMPOTENCY_KEY.pattern}$"},
    "header",
)


def query_fields(call: Call) -> Fields:
    """Read the query string field by field; a parameter given twice is refused."""
    values: dict[str, object] = {}
    for name, value in call.request.query_params.multi_items():
        values[name] = [value] if name in values else value
    return Fields(values)


def limit(value: object) -> int:
    """Accept a page's size."""
    if not isinstance(value, str) or not _WHOLE.fullmatch(value):
        raise Wrong("Limit must be an integer")
    number = int(value)
    if not 1 <= number <= MAX_LIMIT:
        raise Wrong(f"Limit must be between 1 and {MAX_LIMIT}")
    return number


def cursor(value: object) -> str:
    """Accept what can be a cursor; whether it is one, the list knows."""
    if not isinstance(value, str) or not _CURSOR.fullmatch(value):
        raise Wrong("Cursor is not one that a list returned")
    return value


def offset(value: object) -> int:
    """Accept how far one has come in a list that is whole in memory."""
    if not isinstance(value, str) or not _WHOLE.fullmatch(value):
        raise Wrong("Cursor is not one that a list returned")
    return int(value)


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


def next_link(call: Call, next_cursor: str) -> str:
    """Write the `Link` header that leads to the next page (RFC 8288)."""
    query = [
        (name, value) for name, value in call.request.query_params.multi_items() if name != "cursor"
    ]
    path = call.request.scope["path"]
    return f'<{path}?{urlencode([*query, ("cursor", next_cursor)])}>; rel="next"'


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
