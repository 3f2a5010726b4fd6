# SPDX-License-Identifier: Apache-2.0
"""Respond with one page of a list."""

from __future__ import annotations

from urllib.parse import urlencode

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
    given = call.request.query_params.multi_items()
    query = [(name, value) for name, value in given if name != "cursor"]
    path = call.request.scope["path"]
    return {"Link": f'<{path}?{urlencode([*query, ("cursor", cursor)])}>; rel="next"'}
