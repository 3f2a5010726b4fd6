# SPDX-License-Identifier: Apache-2.0
"""Refusals as the API words them: `{code, reason, message, metadata}` (upstream.md §1.1)."""

from __future__ import annotations

import orjson


class Refusal(Exception):
    """The request is refused; `reason` is one of the table in upstream.md §1.2.

    Attributes:
        missing: The thing asked for does not exist, so that the 404 mode applies.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        metadata: dict[str, str] | None = None,
        *,
        missing: bool = False,
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.metadata = metadata or {}
        self.missing = missing

    def body(self, status: int | None = None) -> bytes:
        """The JSON body; `status` replaces the refusal's own."""
        return error_body(status or self.status, self.reason, self.message, self.metadata)


def error_body(
    status: int, reason: str, message: str, metadata: dict[str, str] | None = None
) -> bytes:
    """An error body in the shape of the Kratos framework."""
    return orjson.dumps(
        {"code": status, "reason": reason, "message": message, "metadata": metadata or {}}
    )


def invalid(message: str) -> Refusal:
    """A parameter is missing or wrong."""
    return Refusal(400, "VALIDATOR_PARAM", message)


def not_found(what: str, reason: str = "RESOURCE_NOT_FOUND") -> Refusal:
    """There is no such thing; 400 as documented, unless the 404 mode is on."""
    return Refusal(400, reason, f"{what} not found", missing=True)


def invalid_state_change() -> Refusal:
    """The instance's status does not allow the operation.

    The message was seen live, the reason was not: OPERATION_LIMIT is the likelier of two
    candidates (upstream.md §1.1).
    """
    return Refusal(400, "OPERATION_LIMIT", "invalid state change")


def no_capacity() -> Refusal:
    """No node has the GPUs (upstream.md §1.2)."""
    return Refusal(400, "INSUFFICIENT_RESOURCE", "insufficient resource")


def unauthorized() -> Refusal:
    """The bearer key is missing or wrong."""
    return Refusal(401, "UNAUTHORIZED", "unauthorized")


def rate_limited() -> Refusal:
    """Too many calls."""
    return Refusal(429, "RATE_LIMIT_EXCEEDED", "rate limit exceeded")
