# SPDX-License-Identifier: Apache-2.0
"""Error responses in the OpenAPI document, each with the codes that it can have.

Most routes share most errors, so their examples are components, which the responses refer to.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from novitai.api.http.accept import JSON, PROBLEM
from novitai.api.http.auth import NO_KEY
from novitai.api.http.context import RequestContext
from novitai.api.http.errors import envelope, not_found, problem, shutting_down
from novitai.api.openapi.headers import of_errors
from novitai.api.routing.common_errors import (
    BAD_BODY,
    BAD_QUERY,
    CROSS_SITE,
    HOST_NOT_ALLOWED,
    IDEMPOTENCY,
    UNKNOWN_FIELD,
)
from novitai.api.routing.router import Route
from novitai.errors import (
    ApiError,
    FieldError,
    Forbidden,
    HttpsRequired,
    InternalError,
    Overloaded,
    RequestTimeout,
    TooManyRequests,
    Unauthorized,
    ValidationFailed,
)
from novitai.store.engine.errors import (
    CommitUnknown,
    StorageFull,
    StoreBusy,
    StoreCorrupt,
    StoreUnavailable,
)

_EXAMPLE_AT: Final = 1_697_797_800_000
_EXAMPLE: Final = RequestContext("req_1697843200_abc123", None, "", "", 0, 0.0)

_DEFECT: Final = InternalError("An unexpected error occurred")
_BAD_KEY: Final = ValidationFailed(
    "Validation failed",
    details=[
        FieldError(
            "Idempotency-Key",
            "Idempotency-Key must be 1 to 255 visible ASCII characters",
            has_value=False,
        )
    ],
)
_SERVED: Final = (
    HttpsRequired("HTTPS is required"),
    TooManyRequests("Rate limit exceeded", retry_after=1),
    RequestTimeout("The request took too long; nothing was done"),
    Overloaded("Too many connections are open", retry_after=1),
)
"""Errors of every route but those of health."""
_NO_KEY: Final = Unauthorized(NO_KEY)
"""The error of every route that needs an API key."""
_READS: Final = (
    StoreUnavailable("The database does not answer"),
    StoreCorrupt("The database file is damaged"),
)
_WRITES: Final = (
    *_READS,
    StoreBusy("A lock in the database was not released in time"),
    StorageFull("The disk of the database is full"),
    CommitUnknown("The connection to the database broke; the change may be stored"),
)
"""Errors of the database."""


class ErrorAnswers:
    """Writes the error responses of routes, and collects their examples as components."""

    def __init__(self) -> None:
        self.examples: dict[str, Any] = {}

    def of(self, route: Route) -> dict[str, Any]:
        """Return the error responses of a route, by status."""
        by_status: dict[int, list[ApiError]] = {}
        for error in [*route.errors, *_common(route)]:
            by_status.setdefault(error.status, []).append(error)
        return {
            str(status): self._answer(route, status, errors)
            for status, errors in sorted(by_status.items())
        }

    def _answer(self, route: Route, status: int, errors: list[ApiError]) -> dict[str, Any]:
        codes = {error.code: error for error in reversed(errors)}  # the route's own go before
        codes = {error.code: codes[error.code] for error in errors}
        told = ", ".join(f"`{code}`" for code in codes)
        return {
            "description": f"{HTTPStatus(status).phrase}: {told}",
            "headers": of_errors(route, errors),
            "content": {
                JSON: {
                    "schema": {"$ref": "#/components/schemas/ErrorResponse"},
                    "examples": {code: self._envelope(error) for code, error in codes.items()},
                },
                PROBLEM: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {code: self._problem(error) for code, error in codes.items()},
                },
            },
        }

    def _envelope(self, error: ApiError) -> dict[str, str]:
        return self._example(error.code, envelope(error, _EXAMPLE, _EXAMPLE_AT))

    def _problem(self, error: ApiError) -> dict[str, str]:
        return self._example(f"{error.code}.problem", problem(error, _EXAMPLE, _EXAMPLE_AT))

    def _example(self, name: str, value: object) -> dict[str, str]:
        """Return a reference to an example; errors with one code may have several of them."""
        number, chosen = 1, name
        while self.examples.setdefault(chosen, {"value": value}) != {"value": value}:
            number += 1
            chosen = f"{name}.{number}"
        return {"$ref": f"#/components/examples/{chosen}"}


def _common(route: Route) -> list[ApiError]:
    """List the errors that a route has because of what it takes and needs."""
    errors: list[ApiError] = [_DEFECT, shutting_down()]
    if "{" in route.template:
        errors.append(not_found())
    if route.query is not None:
        errors.append(BAD_QUERY)
    if route.body is not None:
        errors += (*BAD_BODY, UNKNOWN_FIELD)
    if route.takes_key:
        errors += (*IDEMPOTENCY, _BAD_KEY)
    if route.scope is not None:
        lacking = Forbidden(f"This API key lacks the scope '{route.scope.value}'")
        errors += (_NO_KEY, lacking, HOST_NOT_ALLOWED)
        if not route.safe:
            errors.append(CROSS_SITE)
    if route.scope is not None or not route.safe:
        errors += _SERVED
        errors += _READS if route.safe else _WRITES
    return errors
