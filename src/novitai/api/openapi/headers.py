# SPDX-License-Identifier: Apache-2.0
"""Headers of responses in the OpenAPI document that apply to many routes."""

from __future__ import annotations

from typing import Any, Final

from novitai.api.routing.router import Route
from novitai.api.schemas.wire import ListPage
from novitai.errors import ApiError

_EACH: Final = ("X-Request-ID", "X-Correlation-ID")
_LIMITED: Final = ("RateLimit", "RateLimit-Policy")
_GOING: Final = ("Deprecation", "Sunset", "Link")

HEADERS: Final = {
    "Deprecation": "Since when the route is deprecated (RFC 9745)",
    "Idempotent-Replayed": "`true` if this is the stored response to an earlier request with the "
    "same `Idempotency-Key`",
    "Link": "The next page, with `rel=next` (RFC 8288); absent on the last one. On a deprecated "
    "route also the page that explains it",
    "RateLimit": "How many requests the API key, or all its sessions, have left, and in how many "
    "seconds they have all again",
    "RateLimit-Policy": "How many requests the API key, or all its sessions, have, and in how many "
    "seconds",
    "Retry-After": "After how many seconds the request may succeed",
    "Sunset": "When the route is removed (RFC 8594)",
    "WWW-Authenticate": "Always `Bearer`",
    "X-Correlation-ID": "The `X-Correlation-ID` of the request, if it had one",
    "X-Request-ID": "The ID of the request, as in errors and in the log",
}
"""Descriptions by name; routes describe further headers themselves."""


def shared_headers() -> dict[str, Any]:
    """Return the components that `of_success` and `of_errors` refer to."""
    return {name: _header(about) for name, about in HEADERS.items()}


def of_success(route: Route, model: type | None) -> dict[str, Any]:
    """Describe the headers of a successful response; `model` is that of its body."""
    names = [*_EACH]
    if route.scope is not None:
        names += _LIMITED
    if route.takes_key:
        names.append("Idempotent-Replayed")
    if route.deprecated is not None:
        names += _GOING
    elif isinstance(model, type) and issubclass(model, ListPage):
        names.append("Link")
    own = {name: _header(about) for name, about in (route.sends or {}).items()}
    return {**own, **{name: _shared(name) for name in names}}


def of_errors(route: Route, errors: list[ApiError]) -> dict[str, Any]:
    """Describe the headers of a route's response for errors of one status."""
    names = [*_EACH]
    if route.scope is not None:
        names += _LIMITED
    if route.deprecated is not None:
        names += _GOING
    if any(error.retry_after is not None for error in errors):
        names.append("Retry-After")
    if any(error.status == 401 for error in errors):
        names.append("WWW-Authenticate")
    return {name: _shared(name) for name in names}


def _shared(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}


def _header(about: str) -> dict[str, Any]:
    return {"description": about, "schema": {"type": "string"}}
