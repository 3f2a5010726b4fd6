# SPDX-License-Identifier: Apache-2.0
"""The errors of a call to Novita, so that callers do not need HTTP statuses.

    UpstreamError
    ├── Refused                 4xx: refused, nothing was changed
    │   ├── InsufficientResource   no stock
    │   └── InvalidStateChange     the instance is in the wrong state for this call
    ├── Gone                    the resource does not exist
    ├── KeyRefused              401, 403
    ├── RateLimited             429
    ├── Timeout                 no response in time, or a 408          ┐
    ├── ConnectionFailed        no connection, or it broke             │ upstream's fault:
    ├── ServerError             5xx                                    │ counted by the breaker
    ├── InvalidResponse         a response that cannot be read         ┘
    ├── NotSent                 nothing was sent
    │   └── BreakerOpen            upstream is not called for a while
    └── Ambiguous               a create that may or may not have taken effect

No message contains a key, a password, `envs` or registry credentials.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from novitai.errors import NovitaiError


class CallOutcome(StrEnum):
    """The result of a call, as a label for metrics."""

    OK = "ok"
    REFUSED = "refused"
    NO_CAPACITY = "no_capacity"
    INVALID_STATE = "invalid_state"
    GONE = "gone"
    KEY_REFUSED = "key_refused"
    RATE_LIMITED = "rate_limited"
    TIMEOUT = "timeout"
    CONNECTION_FAILED = "connection_failed"
    SERVER_ERROR = "server_error"
    INVALID_RESPONSE = "invalid_response"
    NOT_SENT = "not_sent"
    BREAKER_OPEN = "breaker_open"
    AMBIGUOUS = "ambiguous"
    CANCELLED = "cancelled"


class UpstreamError(NovitaiError):
    """A call to Novita failed.

    Attributes:
        message: Upstream's message, if it sent one, without secrets.
        reason: Upstream's reason (upper snake case, upstream.md §1.2), or `""`.
        http_status: The status of the response; None if none arrived.
    """

    outcome: ClassVar[CallOutcome]
    is_fault: ClassVar[bool] = False
    """Whether upstream is at fault; if so, the breaker and the health record count it."""

    def __init__(self, message: str, *, reason: str = "", http_status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.http_status = http_status

    def __str__(self) -> str:
        facts = [str(self.http_status) if self.http_status is not None else "", self.reason]
        known = " ".join(fact for fact in facts if fact)
        return f"{self.message} ({known})" if known else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class Refused(UpstreamError):
    """Upstream refused the call (4xx). Nothing was created or changed."""

    outcome = CallOutcome.REFUSED


class InsufficientResource(Refused):
    """The product is out of stock in this cluster (upstream.md §1.2)."""

    outcome = CallOutcome.NO_CAPACITY


class InvalidStateChange(Refused):
    """The instance is in the wrong state; the call may still have taken effect (§1.1)."""

    outcome = CallOutcome.INVALID_STATE


class Gone(UpstreamError):
    """The resource does not exist: 404 or 400 `RESOURCE_NOT_FOUND` (upstream.md §1.3)."""

    outcome = CallOutcome.GONE


class KeyRefused(UpstreamError):
    """Upstream does not accept the API key (401, 403): novitai is misconfigured."""

    outcome = CallOutcome.KEY_REFUSED


class RateLimited(UpstreamError):
    """Too many calls (429); nothing was changed. `retry_after` in seconds, if upstream sent it."""

    outcome = CallOutcome.RATE_LIMITED

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        http_status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, reason=reason, http_status=http_status)
        self.retry_after = retry_after


class _MaybeSent(UpstreamError):
    """A failure before or after the request was sent. `sent`: whether it may have been sent."""

    is_fault = True

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        http_status: int | None = None,
        sent: bool = True,
    ) -> None:
        super().__init__(message, reason=reason, http_status=http_status)
        self.sent = sent


class Timeout(_MaybeSent):
    """No complete response arrived in time, or upstream sent a 408."""

    outcome = CallOutcome.TIMEOUT


class ConnectionFailed(_MaybeSent):
    """No connection could be made, or it broke before the response was complete."""

    outcome = CallOutcome.CONNECTION_FAILED


class ServerError(UpstreamError):
    """Upstream failed (5xx)."""

    outcome = CallOutcome.SERVER_ERROR
    is_fault = True


class InvalidResponse(UpstreamError):
    """The response cannot be read: not JSON, the wrong shape, too large, or a redirect."""

    outcome = CallOutcome.INVALID_RESPONSE
    is_fault = True


class NotSent(UpstreamError):
    """Nothing was sent, so nothing was changed. `reason` says why."""

    outcome = CallOutcome.NOT_SENT


class BreakerOpen(NotSent):
    """The breaker is open: calls keep failing. `retry_after`: seconds until the next one."""

    outcome = CallOutcome.BREAKER_OPEN

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message, reason="BREAKER_OPEN")
        self.retry_after = retry_after


class Ambiguous(UpstreamError):
    """A create may or may not have taken effect: settle it by listing, never by another create.

    Raised for a timeout, a reset, a 5xx, a 408, a redirect, and a success without an ID.
    """

    outcome = CallOutcome.AMBIGUOUS


def may_have_worked(error: UpstreamError) -> bool:
    """Whether the call may have taken effect although it failed."""
    if isinstance(error, _MaybeSent):
        return error.sent
    return isinstance(error, ServerError | InvalidResponse | Ambiguous)
