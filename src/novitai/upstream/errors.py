# SPDX-License-Identifier: Apache-2.0
"""What a call to Novita can end in, so that a caller never looks at an HTTP status.

    UpstreamError
    ├── Refused                 4xx: understood and declined, nothing was changed
    │   ├── InsufficientResource   no stock
    │   └── InvalidStateChange     the instance is in the wrong state for this call
    ├── Gone                    what the call named does not exist
    ├── KeyRefused              401, 403
    ├── RateLimited             429
    ├── Timeout                 no answer in time, or a 408            ┐
    ├── ConnectionFailed        no connection, or it broke             │ upstream's fault:
    ├── ServerError             5xx                                    │ counted by the breaker
    ├── InvalidResponse                an answer that cannot be read          ┘
    ├── NotSent                 certainly nothing left this process
    │   └── BreakerOpen            we are not calling upstream for a while
    └── Ambiguous               of a create: it may or may not have been made

No message ever holds a key, a password, `envs` or registry credentials.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from novitai.errors import NovitaiError


class CallOutcome(StrEnum):
    """How one call ended: the bounded word for metrics."""

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
    """A call to Novita that did not succeed.

    Attributes:
        message: Upstream's own message where it gave one, made safe to show.
        reason: Upstream's reason (upper snake case, upstream.md §1.2), or `""`.
        http_status: The status of the answer, or None where there was none.
    """

    outcome: ClassVar[CallOutcome]
    is_fault: ClassVar[bool] = False
    """Whether it counts against upstream: in the breaker and in health."""

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
    """Upstream understood and declined (4xx). Nothing was made or changed."""

    outcome = CallOutcome.REFUSED


class InsufficientResource(Refused):
    """No stock for this product here and now (upstream.md §1.2)."""

    outcome = CallOutcome.NO_CAPACITY


class InvalidStateChange(Refused):
    """The instance is in the wrong state; yet it may have taken effect (upstream.md §1.1)."""

    outcome = CallOutcome.INVALID_STATE


class Gone(UpstreamError):
    """What the call named does not exist: 404 or 400 `RESOURCE_NOT_FOUND` (§1.3)."""

    outcome = CallOutcome.GONE


class KeyRefused(UpstreamError):
    """Upstream does not accept our key (401, 403): our misconfiguration."""

    outcome = CallOutcome.KEY_REFUSED


class RateLimited(UpstreamError):
    """Upstream says: too many calls. Nothing was made. `retry_after` in seconds, if it said so."""

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
    """A failure that may come before or after the request left. `sent`: whether it may have."""

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
    """No whole answer within the time allowed, or upstream's own 408."""

    outcome = CallOutcome.TIMEOUT


class ConnectionFailed(_MaybeSent):
    """No connection could be made, or it broke before the answer was whole."""

    outcome = CallOutcome.CONNECTION_FAILED


class ServerError(UpstreamError):
    """Upstream failed (5xx)."""

    outcome = CallOutcome.SERVER_ERROR
    is_fault = True


class InvalidResponse(UpstreamError):
    """An answer that cannot be read: not JSON, of the wrong shape, too large, or a redirect."""

    outcome = CallOutcome.INVALID_RESPONSE
    is_fault = True


class NotSent(UpstreamError):
    """Certainly nothing left this process, so nothing was made. `reason` says why."""

    outcome = CallOutcome.NOT_SENT


class BreakerOpen(NotSent):
    """Upstream keeps failing, so it is not called. `retry_after`: seconds until it may be."""

    outcome = CallOutcome.BREAKER_OPEN

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message, reason="BREAKER_OPEN")
        self.retry_after = retry_after


class Ambiguous(UpstreamError):
    """A create that may or may not have been made: to be settled by listing, never by posting.

    Raised for a timeout, a reset, a 5xx, a 408, a redirect, and a success without an id.
    """

    outcome = CallOutcome.AMBIGUOUS


def may_have_worked(error: UpstreamError) -> bool:
    """Whether the call may have taken effect all the same, though its end does not say so."""
    if isinstance(error, _MaybeSent):
        return error.sent
    return isinstance(error, ServerError | InvalidResponse | Ambiguous)
