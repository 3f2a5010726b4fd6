# SPDX-License-Identifier: Apache-2.0
"""Respond with one page of a list."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlencode

from starlette.datastructures import QueryParams
from starlette.responses import Response

from novitai.api.http.answers import answer
from novitai.api.routing.router import RouteCall
from novitai.api.schemas.wire import ListPage


def listed(call: RouteCall, page: ListPage) -> Response:
    """Respond with a page of a list and a `Link` to the next page."""
    return answer(page, headers=next_page(call, page.next_cursor))


def next_page(call: RouteCall, cursor: str | None) -> dict[str, str]:
    """Build the `Link` header of the next page (RFC 8288); empty if there is no next page."""
    if cursor is None:
        return {}
    scope = call.request.scope
    return {"Link": _link(scope["path"], scope["query_string"], cursor)}


@lru_cache(1_000)
def _link(path: str, query_string: bytes, cursor: str) -> str:
    given = QueryParams(query_string).multi_items()
    query = [(name, value) for name, value in given if name != "cursor"]
    return f'<{path}?{urlencode([*query, ("cursor", cursor)])}>; rel="next"'
