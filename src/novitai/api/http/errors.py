# SPDX-License-Identifier: Apache-2.0
"""Render errors: in the envelope of the API reference, or as RFC 9457 if `Accept` names it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import orjson
from starlette.responses import Response

from novitai.api.http.accept import JSON, PROBLEM, wants_problem
from novitai.api.http.context import RequestContext
from novitai.clock import iso
from novitai.errors import (
    RESTART_SECONDS,
    ApiError,
    Details,
    FieldError,
    InternalError,
    NotFound,
    ShuttingDown,
)


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
