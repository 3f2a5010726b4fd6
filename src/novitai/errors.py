# SPDX-License-Identifier: Apache-2.0
"""The one exception tree. An error knows its code, HTTP status, category and whether to retry.

    NovitaiError
    ├── ApiError                     rendered to a client as it stands
    │   ├── ValidationFailed         400, one code per field
    │   ├── Unauthorized             401
    │   ├── Forbidden, HttpsRequired 403
    │   ├── NotFound                 404 (route, instance, operation, cache, ...)
    │   ├── MethodNotAllowed         405
    │   ├── RequestTimeout           408
    │   ├── Conflict                 409 (state, operation in progress, no capacity, ...)
    │   ├── PayloadTooLarge          413
    │   ├── UnsupportedMediaType     415
    │   ├── IdempotencyKeyReused     422
    │   ├── TooManyRequests              429
    │   ├── InternalError            500
    │   ├── Overloaded, ShuttingDown 503
    │   └── UpstreamUnavailable      502, 503, 504: what the API says of an UpstreamError
    ├── SettingsError                a setting is wrong: the command ends with exit code 2
    └── StartupError                 the process cannot start: message and exit code, no traceback
        └── WrongSecretKey           what is stored was sealed under another secret key

Errors of the upstream client live in `novitai.upstream.errors` and derive from `NovitaiError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

RESTART_SECONDS: Final = 5
"""How long a process takes to end and to be started again, about."""


class Category(StrEnum):
    """Appendix C of the API reference: what kind of error this is."""

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
"""Codes that retrying can cure, whatever their category says: stock comes back."""

Details = Sequence["FieldError"] | Sequence[Mapping[str, object]] | Mapping[str, object]


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field of a request. `shown` is the value as it may be shown; absent if secret."""

    field: str
    message: str
    shown: object = None
    has_value: bool = True


class NovitaiError(Exception):
    """Anything novitai raises on purpose."""


class ApiError(NovitaiError):
    """An error a client is told of, in the envelope of the API reference ("Error Handling")."""

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
            message: One sentence for the client: what is wrong and, where possible, what to do.
            code: The error's code where it differs from its class's.
            details: Wrong fields, reasons per candidate, or named facts.
            retry_after: Whole seconds after which trying again makes sense.
            headers: Further response headers (`Allow`, `WWW-Authenticate`).
            retryable: Whether the same request may succeed later, where that differs from what
                category and code say.
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
        """As in Appendix C unless said otherwise, and true wherever `Retry-After` is sent."""
        if self.retry_after is not None:
            return True
        if self._retryable is not None:
            return self._retryable
        return self.category in _RETRYABLE or self.code in _RETRYABLE_CODES


class ValidationFailed(ApiError):
    """The request itself is wrong; `details` names every wrong field."""

    status = 400
    code = "VALIDATION_ERROR"
    category = Category.VALIDATION


class Unauthorized(ApiError):
    """No key, or one that is malformed, unknown, expired or revoked: all the same to a client."""

    status = 401
    code = "UNAUTHORIZED"
    category = Category.AUTHENTICATION


class Forbidden(ApiError):
    """The key is good, its scopes are not."""

    status = 403
    code = "FORBIDDEN"
    category = Category.AUTHORIZATION


class HttpsRequired(Forbidden):
    """Plain HTTP from beyond loopback, in production."""

    code = "HTTPS_REQUIRED"


class NotFound(ApiError):
    """No such route, or no such thing."""

    status = 404
    code = "NOT_FOUND"
    category = Category.CLIENT


class MethodNotAllowed(ApiError):
    """The path is known, the method is not; `Allow` says which are."""

    status = 405
    code = "METHOD_NOT_ALLOWED"
    category = Category.CLIENT


class RequestTimeout(ApiError):
    """Our own handling took longer than it may; nothing was done."""

    status = 408
    code = "REQUEST_TIMEOUT"
    category = Category.TIMEOUT


class Conflict(ApiError):
    """The request is right, but not now."""

    status = 409
    code = "INVALID_STATE"
    category = Category.CLIENT


class PayloadTooLarge(ApiError):
    """The body is over 1 MiB."""

    status = 413
    code = "PAYLOAD_TOO_LARGE"
    category = Category.CLIENT


class UnsupportedMediaType(ApiError):
    """The body is not declared as JSON."""

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
    """A defect of ours. The client learns the request id, the log has the traceback."""


class Overloaded(ApiError):
    """This process holds as many requests of that kind open as it will."""

    status = 503
    code = "OVERLOADED"
    category = Category.SERVER


class ShuttingDown(ApiError):
    """This process is ending and could not finish the request; another one, or the next, will."""

    status = 503
    code = "SHUTTING_DOWN"
    category = Category.SERVER


class UpstreamUnavailable(ApiError):
    """Novita did not give what the request needed: 502, 503 (breaker open) or 504 (too slow)."""

    status = 502
    code = "EXTERNAL_API_ERROR"
    category = Category.EXTERNAL_API


class CircuitBreakerOpen(UpstreamUnavailable):
    """We are not calling Novita for a while, because it keeps failing."""

    status = 503
    code = "CIRCUIT_BREAKER_OPEN"
    category = Category.CIRCUIT_BREAKER


class UpstreamTimeout(UpstreamUnavailable):
    """Novita did not answer in time."""

    status = 504
    code = "UPSTREAM_TIMEOUT"
    category = Category.TIMEOUT


class SettingsError(NovitaiError):
    """A setting is missing or wrong; the message names it and says what to do."""


class StartupError(NovitaiError):
    """The process cannot start or go on; the message says why and what to do.

    `exit_code` follows sysexits(3): 74 for input/output, 75 where trying again later helps,
    78 for configuration.
    """

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class WrongSecretKey(StartupError):
    """A sealed value cannot be opened: the secret key is not the one it was sealed with."""
