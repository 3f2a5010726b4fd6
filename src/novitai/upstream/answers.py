# SPDX-License-Identifier: Apache-2.0
"""Turns an HTTP response into its payload or into an error (upstream.md §1.1–1.3)."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from novitai.domain import outside
from novitai.upstream.decoding import decode
from novitai.upstream.errors import (
    Gone,
    InsufficientResource,
    InvalidResponse,
    InvalidStateChange,
    KeyRefused,
    RateLimited,
    Refused,
    ServerError,
    Timeout,
    UpstreamError,
)
from novitai.upstream.operations import Endpoint
from novitai.upstream.transport import Answer
from novitai.upstream.wire import Json, Object, verbatim

_MAX_MESSAGE: Final = 500
# Secrets are removed from this many characters of a message before it is cut.
_MAX_READ: Final = 65_536
_REASON: Final = re.compile(r"[A-Z0-9_]{1,64}\Z")
_NO_STOCK: Final = frozenset({"INSUFFICIENT_RESOURCE", "MIGRATE_INSUFFICIENT_RESOURCE"})
_WRONG_STATE: Final = "invalid state change"
_NOT_FOUND: Final = "not found"


def failure(
    endpoint: Endpoint, answer: Answer, *, now: int, secrets: Iterable[str] = ()
) -> UpstreamError | None:
    """Return the error of a response; None if it is a success.

    Args:
        endpoint: The endpoint of the request; it decides what "not found" means.
        answer: The response.
        now: Unix milliseconds, to read a `Retry-After` that is a date.
        secrets: Values to remove from the message: upstream might repeat the request.
    """
    status = answer.status
    if 200 <= status < 300:
        return None
    if status < 400:
        return InvalidResponse("Novita answered with a redirect", http_status=status)
    reason, message = _explanation(answer, secrets)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return KeyRefused(message, reason=reason, http_status=status)
    if status == HTTPStatus.REQUEST_TIMEOUT:
        return Timeout(message, reason=reason, http_status=status)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimited(
            message,
            reason=reason,
            http_status=status,
            retry_after=retry_after(answer.headers, now=now),
        )
    if status >= 500:
        return ServerError(message, reason=reason, http_status=status)
    if _is_gone(endpoint, status, reason, message):
        return Gone(message, reason=reason, http_status=status)
    if reason in _NO_STOCK:
        return InsufficientResource(message, reason=reason, http_status=status)
    if _WRONG_STATE in message.lower():
        return InvalidStateChange(message, reason=reason, http_status=status)
    return Refused(message, reason=reason, http_status=status)


def payload(answer: Answer) -> Object:
    """Parse the JSON object of a success.

    Raises:
        InvalidResponse: not JSON, or not an object.
    """
    found = _json(answer.body)
    if type(found) is not dict:
        raise InvalidResponse("the answer is not a JSON object", http_status=answer.status)
    return found


def retry_after(headers: Mapping[str, str], *, now: int) -> float | None:
    """Read `Retry-After` (RFC 9110 §10.2.3) as seconds from `now`; None if absent or invalid."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return _seconds_until(value, now)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _seconds_until(date: str, now: int) -> float | None:
    try:
        at = parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return max(0.0, at - now / 1000)


def _is_gone(endpoint: Endpoint, status: int, reason: str, message: str) -> bool:
    if not endpoint.gone_reasons:
        return False
    if status == HTTPStatus.NOT_FOUND or reason in endpoint.gone_reasons:
        return True
    # For a missing template, Novita was observed to send a 400 with only a message.
    return endpoint is Endpoint.TEMPLATE and not reason and _NOT_FOUND in message.lower()


def _explanation(answer: Answer, secrets: Iterable[str]) -> tuple[str, str]:
    body = _json(answer.body)
    fallback = f"Novita answered {answer.status}"
    if type(body) is not dict:
        return "", fallback
    # A gateway's errors have other shapes: {"error": {...}}, {"error": "..."}, {"title": "..."}.
    nested = body.get("error")
    source: Object = nested if type(nested) is dict else body
    reason = verbatim(source.get("reason"))
    said = (verbatim(source.get(key), _MAX_READ) for key in ("message", "error", "title"))
    message = next((text for text in said if text), "")
    return (reason if _REASON.match(reason) else ""), _safe(message, secrets) or fallback


def _safe(message: str, secrets: Iterable[str]) -> str:
    return outside.message(outside.hide(message, secrets), _MAX_MESSAGE)


def _json(body: bytes) -> Json:
    with contextlib.suppress(ValueError):
        return decode(body)
    return None
