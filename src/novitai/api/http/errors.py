# SPDX-License-Identifier: Apache-2.0
"""Render errors: in the envelope of the API reference, or as RFC 9457 if `Accept` names it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from novitai.api.http.accept import JSON, PROBLEM, wants_problem
from novitai.api.http.context import RequestContext, context_of
from novitai.clock import Clock, iso
from novitai.errors import (
    RESTART_SECONDS,
    ApiError,
    Details,
    FieldError,
    InternalError,
    MethodNotAllowed,
    NotFound,
    ShuttingDown,
)

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def render(error: ApiError, context: RequestContext, now: int) -> Response:
    """Render an error in the format that the client accepts; `now` is in Unix milliseconds."""
    wanted = wants_problem(context.accept)
    body = (problem if wanted else envelope)(error, context, now)
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    media_type = PROBLEM if wanted else JSON
    return Response(orjson.dumps(body, default=str), error.status, headers, media_type)


def envelope(error: ApiError, context: RequestContext, now: int) -> dict[str, object]:
    """Build the envelope of the API reference ("Error Response Format")."""
    return {"error": {"code": error.code, "message": error.message, **_facts(error, context, now)}}


def problem(error: ApiError, context: RequestContext, now: int) -> dict[str, object]:
    """Build an RFC 9457 problem; the fields of the envelope are its extensions."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.message,
        "code": error.code,
        **_facts(error, context, now),
    }


def install(app: Starlette, clock: Clock) -> None:
    """Make the application render all errors this way, including Starlette's own."""

    async def told(request: Request, error: Exception) -> Response:
        return render(_as_api_error(request, error), context_of(request), clock.now())

    app.add_exception_handler(ApiError, told)
    app.add_exception_handler(HTTPException, told)
    app.add_exception_handler(Exception, told)


def _as_api_error(request: Request, error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException) and error.status_code == HTTPStatus.NOT_FOUND:
        return not_found()
    if isinstance(error, HTTPException) and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = allowed_methods(request)
        return MethodNotAllowed(
            f"Method not allowed; this path answers {', '.join(allowed)}",
            headers={"Allow": ", ".join(allowed)},
        )
    return internal_error()


def internal_error() -> InternalError:
    """Build an error without a cause; the cause is in the log under the same request ID."""
    return InternalError("An unexpected error occurred; it is logged under this request ID")


def not_found() -> NotFound:
    """Build the error for a path that matches no route."""
    return NotFound("Route not found")


def shutting_down() -> ShuttingDown:
    """Build the error for a request that the server could not finish before it shut down."""
    return ShuttingDown(
        "The server is shutting down and could not finish the request; try again",
        retry_after=RESTART_SECONDS,
    )


def allowed_methods(request: Request) -> list[str]:
    """List the methods of all routes that match the path, not only of the first."""
    allowed: set[str] = set()
    for route in request.app.routes:
        for method in _METHODS:
            match, _ = route.matches({**request.scope, "method": method})
            if match is Match.FULL:
                allowed.add(method)
    # The middleware handles HEAD wherever GET exists.
    if "GET" in allowed:
        allowed.add("HEAD")
    return [method for method in _METHODS if method in allowed]


def _facts(error: ApiError, context: RequestContext, now: int) -> dict[str, object]:
    facts: dict[str, object] = {
        "category": error.category.value,
        "retryable": error.retryable,
    }
    if error.details is not None:
        facts["details"] = _shown(error.details)
    facts["timestamp"] = iso(now)
    facts["requestId"] = context.request_id
    if context.correlation_id is not None:
        facts["correlationId"] = context.correlation_id
    return facts


def _shown(details: Details) -> object:
    if isinstance(details, Mapping):
        return details
    return [_field(detail) if isinstance(detail, FieldError) else detail for detail in details]


def _field(error: FieldError) -> dict[str, object]:
    shown: dict[str, object] = {"field": error.field, "message": error.message}
    if error.has_value:
        shown["value"] = error.shown
    return shown
