# SPDX-License-Identifier: Apache-2.0
"""The exception tree. An API error has a code, an HTTP status, a category and `retryable`.

    NovitaiError
    ├── ApiError                     sent to the client
    │   ├── ValidationFailed         400, one code per field
    │   ├── Unauthorized             401
    │   ├── Forbidden                403
    │   │   └── HttpsRequired, HostNotAllowed, CrossSiteRequest
    │   ├── NotFound                 404 (route, instance, operation, cache, ...)
    │   ├── MethodNotAllowed         405
    │   ├── RequestTimeout           408
    │   ├── Conflict                 409 (state, operation in progress, no capacity, ...)
    │   ├── PreconditionFailed       412
    │   ├── PayloadTooLarge          413
    │   ├── UnsupportedMediaType     415
    │   ├── IdempotencyKeyReused     422
    │   ├── TooManyRequests              429
    │   ├── InternalError            500
    │   ├── Overloaded, ShuttingDown 503
    │   └── UpstreamUnavailable      502, 503, 504: how the API reports an UpstreamError
    ├── SettingsError                a setting is wrong: the command exits with code 2
    └── StartupError                 the process cannot start: message and exit code, no traceback
        └── WrongSecretKey           stored values were sealed with another secret key

Errors of the upstream client live in `novitai.upstream.errors` and derive from `NovitaiError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

RESTART_SECONDS: Final = 5
"""Roughly how long a restart of the process takes."""


class Category(StrEnum):
    """The category of an error (appendix C of the API reference)."""

    CLIENT = "CLIENT_ERROR"
    SERVER = "SERVER_ERROR"
    EXTERNAL_API = "EXTERNAL_API_ERROR"
    VALIDATION = "VALIDATION_ERROR"
    AUTHENTICATION = "AUTHENTICATION_ERROR"
    AUTHORIZATION = "AUTHORIZATION_ERROR"
    RATE_LIMIT = "RATE_LIMIT_ERROR"
    TIMEOUT = "TIMEOUT_ERROR"
    CIRCUIT_BREAKER = "CIRCUIT_BREAKER_ERROR"


_RETRYABLE = {
    Category.SERVER,
    Category.EXTERNAL_API,
    Category.RATE_LIMIT,
    Category.TIMEOUT,
    Category.CIRCUIT_BREAKER,
}

_RETRYABLE_CODES = {"NO_CAPACITY"}
"""Codes that are retryable although their category is not: stock may come back."""

Details = Sequence["FieldError"] | Sequence[Mapping[str, object]] | Mapping[str, object]


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field of a request; `shown` is its value if it has one and it is not secret."""

    field: str
    message: str
    shown: object = None
    has_value: bool = True


class NovitaiError(Exception):
    """Base class of all errors that novitai raises on purpose."""


class ApiError(NovitaiError):
    """An error sent to a client in the envelope of the API reference ("Error Handling")."""

    status: int = 500
    code: str = "INTERNAL_SERVER_ERROR"
    category: Category = Category.SERVER

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        details: Details | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
        retryable: bool | None = None,
    ) -> None:
        """Describe the error.

        Args:
            message: One sentence for the client: what is wrong and, if possible, what to do.
            code: The error's code, if it is not that of the class.
            details: Wrong fields, reasons per candidate, or named facts.
            retry_after: Whole seconds after which the client should retry.
            headers: Further response headers (`Allow`, `WWW-Authenticate`).
            retryable: Whether the same request may succeed later; by default, category and code
                decide.
        """
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.details = details
        self.retry_after = retry_after
        self.headers = dict(headers or {})
        self._retryable = retryable

    @property
    def retryable(self) -> bool:
        """True if `Retry-After` is sent; else as set explicitly; else as in appendix C."""
        if self.retry_after is not None:
            return True
        if self._retryable is not None:
            return self._retryable
        return self.category in _RETRYABLE or self.code in _RETRYABLE_CODES


class ValidationFailed(ApiError):
    """The request is invalid; `details` lists every wrong field."""

    status = 400
    code = "VALIDATION_ERROR"
    category = Category.VALIDATION


class Unauthorized(ApiError):
    """The key is missing, malformed, unknown, expired or revoked; the client is not told which."""

    status = 401
    code = "UNAUTHORIZED"
    category = Category.AUTHENTICATION


class Forbidden(ApiError):
    """The key is valid but lacks the scope."""

    status = 403
    code = "FORBIDDEN"
    category = Category.AUTHORIZATION


class HttpsRequired(Forbidden):
    """In production, a request from another machine came over plain HTTP."""

    code = "HTTPS_REQUIRED"


class HostNotAllowed(Forbidden):
    """A browser reached the server under a name that it does not know as its own."""

    code = "HOST_NOT_ALLOWED"


class CrossSiteRequest(Forbidden):
    """A request with a session may have been sent by a page of another origin."""

    code = "CROSS_SITE_REQUEST"


class NotFound(ApiError):
    """The route or the resource does not exist."""

    status = 404
    code = "NOT_FOUND"
    category = Category.CLIENT


class MethodNotAllowed(ApiError):
    """The path does not support this method; `Allow` lists those that it does."""

    status = 405
    code = "METHOD_NOT_ALLOWED"
    category = Category.CLIENT


class RequestTimeout(ApiError):
    """The server did not finish the request in time; nothing was changed."""

    status = 408
    code = "REQUEST_TIMEOUT"
    category = Category.TIMEOUT


class Conflict(ApiError):
    """The request is valid, but not in the current state."""

    status = 409
    code = "INVALID_STATE"
    category = Category.CLIENT


class PreconditionFailed(ApiError):
    """The resource has changed since the client read it: no tag of `If-Match` matches."""

    status = 412
    code = "PRECONDITION_FAILED"
    category = Category.CLIENT


class PayloadTooLarge(ApiError):
    """The body is larger than 1 MiB."""

    status = 413
    code = "PAYLOAD_TOO_LARGE"
    category = Category.CLIENT


class UnsupportedMediaType(ApiError):
    """The `Content-Type` of the body is not JSON."""

    status = 415
    code = "UNSUPPORTED_MEDIA_TYPE"
    category = Category.CLIENT


class IdempotencyKeyReused(ApiError):
    """The `Idempotency-Key` was used before with another body."""

    status = 422
    code = "IDEMPOTENCY_KEY_REUSED"
    category = Category.CLIENT


class TooManyRequests(ApiError):
    """Too many requests for this key, or too many failed authentications from this address."""

    status = 429
    code = "RATE_LIMIT_EXCEEDED"
    category = Category.RATE_LIMIT


class InternalError(ApiError):
    """A bug in novitai. The client gets the request ID; the log has the traceback."""


class Overloaded(ApiError):
    """This process already has the maximum number of such requests or connections open."""

    status = 503
    code = "OVERLOADED"
    category = Category.SERVER


class ShuttingDown(ApiError):
    """This process is shutting down and could not finish the request; retry it."""

    status = 503
    code = "SHUTTING_DOWN"
    category = Category.SERVER


class UpstreamUnavailable(ApiError):
    """A call to Novita failed: 502, 503 (circuit breaker open) or 504 (timeout)."""

    status = 502
    code = "EXTERNAL_API_ERROR"
    category = Category.EXTERNAL_API


class CircuitBreakerOpen(UpstreamUnavailable):
    """Novita is not called for a while, because calls keep failing."""

    status = 503
    code = "CIRCUIT_BREAKER_OPEN"
    category = Category.CIRCUIT_BREAKER


class UpstreamTimeout(UpstreamUnavailable):
    """Novita did not answer in time."""

    status = 504
    code = "UPSTREAM_TIMEOUT"
    category = Category.TIMEOUT


class SettingsError(NovitaiError):
    """A setting is missing or invalid; the message names it and says what to do."""


class StartupError(NovitaiError):
    """The process cannot start or continue; the message says why and what to do.

    `exit_code` follows sysexits(3): 74 for input/output errors, 75 if a later retry may succeed,
    78 for configuration errors.
    """

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class WrongSecretKey(StartupError):
    """A sealed value cannot be opened, because it was sealed with another secret key."""
