# SPDX-License-Identifier: Apache-2.0
"""Errors of the emulated API: `{code, reason, message, metadata}` (upstream.md §1.1)."""

from __future__ import annotations

import orjson


class Refusal(Exception):
    """The API refuses the request; upstream.md §1.2 lists the values of `reason`.

    Attributes:
        missing: The resource does not exist, so `not_found_status` decides the HTTP status.
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
        """Return the JSON body; `status` overrides the refusal's own."""
        return error_body(status or self.status, self.reason, self.message, self.metadata)


def error_body(
    status: int, reason: str, message: str, metadata: dict[str, str] | None = None
) -> bytes:
    """Return an error body in the format of the Kratos framework."""
    return orjson.dumps(
        {"code": status, "reason": reason, "message": message, "metadata": metadata or {}}
    )


def invalid(message: str) -> Refusal:
    """A parameter is missing or wrong."""
    return Refusal(400, "VALIDATOR_PARAM", message)


def not_found(what: str, reason: str = "RESOURCE_NOT_FOUND") -> Refusal:
    """The resource does not exist; 400 as documented, or 404 if `not_found_status` says so."""
    return Refusal(400, reason, f"{what} not found", missing=True)


def invalid_state_change() -> Refusal:
    """The instance's status does not allow the operation.

    The message was observed live, the reason was not: OPERATION_LIMIT is the likelier of two
    candidates (upstream.md §1.1).
    """
    return Refusal(400, "OPERATION_LIMIT", "invalid state change")


def no_capacity() -> Refusal:
    """No node has enough free GPUs (upstream.md §1.2)."""
    return Refusal(400, "INSUFFICIENT_RESOURCE", "insufficient resource")


def purged_disk() -> Refusal:
    """The disk of the stopped instance was purged; the reason is likely, not seen."""
    return Refusal(400, "INSTANCE_LOCAL_STORAGE_NOT_FOUND", "instance local storage not found")


def bills_too_fast() -> Refusal:
    """Too many lists of bills (upstream.md §14)."""
    return Refusal(429, "LIST_BILL_TOO_FAST", "list bill too fast")


def unauthorized() -> Refusal:
    """The bearer key is missing or wrong."""
    return Refusal(401, "UNAUTHORIZED", "unauthorized")


def rate_limited() -> Refusal:
    """Too many calls."""
    return Refusal(429, "RATE_LIMIT_EXCEEDED", "rate limit exceeded")
