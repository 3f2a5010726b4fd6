# SPDX-License-Identifier: Apache-2.0
"""Examples of the errors that several routes return, for the OpenAPI document."""

from __future__ import annotations

from typing import Final

from novitai.errors import (
    Conflict,
    FieldError,
    IdempotencyKeyReused,
    NotFound,
    PayloadTooLarge,
    UnsupportedMediaType,
    ValidationFailed,
)

NO_INSTANCE: Final = NotFound(
    "Instance 'inst_1697843200_abc123' not found", code="INSTANCE_NOT_FOUND"
)
RELEASED: Final = Conflict(
    "Instance 'inst_1697843200_abc123' was released and is no longer managed",
    code="INSTANCE_RELEASED",
)
BAD_QUERY: Final = ValidationFailed(
    "Validation failed", details=[FieldError("limit", "Limit must be between 1 and 1000", "0")]
)
BAD_BODY: Final = (
    ValidationFailed("The request body is not valid JSON", code="INVALID_JSON"),
    PayloadTooLarge("The request body is larger than 1048576 bytes"),
    UnsupportedMediaType("The request body must be sent as application/json"),
)
"""Errors of every route that takes a body."""
UNKNOWN_FIELD: Final = ValidationFailed(
    "Validation failed", details=[FieldError("force", "Unknown field", has_value=False)]
)
IDEMPOTENCY: Final = (
    Conflict(
        "The first request with this Idempotency-Key is still running",
        code="IDEMPOTENCY_IN_PROGRESS",
        retry_after=1,
    ),
    IdempotencyKeyReused("This Idempotency-Key was already used with another request body"),
)
"""Errors of every route that takes an `Idempotency-Key`."""
