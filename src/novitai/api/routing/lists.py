# SPDX-License-Identifier: Apache-2.0
"""Lists: how a page of one is asked for, and how it is answered."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode

from starlette.responses import Response

from novitai.api.http.answers import json_answer
from novitai.api.openapi.document import Parameter
from novitai.api.routing.queries import query_fields
from novitai.api.routing.router import Call
from novitai.domain.fields import Fields, Wrong
from novitai.lifecycle.queries.pagination import PLACE

MAX_LIMIT: Final = 1000

_CURSOR: Final = re.compile(r"[A-Za-z0-9._~=-]{1,512}")
_WHOLE: Final = re.compile(r"[0-9]{1,9}")
# A text of up to 255 characters, of up to 4 bytes each.
_WRAPPED: Final = re.compile(r"(?:[0-9a-f]{2}){1,1020}")
_NO_CURSOR: Final = "Cursor is not one that a list returned"

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
WRAPPED_CURSOR: Final = _cursor_like(_WRAPPED.pattern)
"""Of lists in the order of a text that we did not make."""


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
        raise Wrong(_NO_CURSOR)
    return value


def offset(value: object) -> int:
    """Accept how far one has come in a list that is whole in memory."""
    if not isinstance(value, str) or not _WHOLE.fullmatch(value):
        raise Wrong(_NO_CURSOR)
    return int(value)


def wrap(text: str) -> str:
    """Write a cursor of a list in the order of a text, which may have any characters."""
    return text.encode().hex()


def wrapped(value: object) -> bytes:
    """Accept such a cursor; return the bytes of the text, whose order is that of its characters."""
    if not isinstance(value, str) or not _WRAPPED.fullmatch(value):
        raise Wrong(_NO_CURSOR)
    return bytes.fromhex(value)


def read_page(fields: Fields) -> tuple[int, str | None]:
    """Read how many are wanted, and after which cursor."""
    return fields.read("limit", limit, MAX_LIMIT), fields.read("cursor", cursor, None)


def only_page(call: Call) -> tuple[int, str | None]:
    """Read the same from a query in which nothing else may stand."""
    fields = query_fields(call)
    page = read_page(fields)
    fields.finish()
    return page


def listed(
    call: Call,
    name: str,
    shown: Sequence[Mapping[str, object]],
    next_cursor: str | None,
    **more: object,
) -> Response:
    """Answer with a page, and with where the next one is, if there is one (RFC 8288)."""
    body: dict[str, object] = {name: shown, **more}
    if next_cursor is None:
        return json_answer(body)
    body["nextCursor"] = next_cursor
    return json_answer(body, headers={"Link": _next_link(call, next_cursor)})


def _next_link(call: Call, next_cursor: str) -> str:
    query = [
        (name, value) for name, value in call.request.query_params.multi_items() if name != "cursor"
    ]
    path = call.request.scope["path"]
    return f'<{path}?{urlencode([*query, ("cursor", next_cursor)])}>; rel="next"'
