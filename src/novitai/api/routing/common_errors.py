# SPDX-License-Identifier: Apache-2.0
"""Examples of the errors that several routes return, for the OpenAPI document."""

from __future__ import annotations

from typing import Final

from novitai.errors import (
    Conflict,
    CrossSiteRequest,
    FieldError,
    HostNotAllowed,
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
OVER_BUDGET: Final = Conflict(
    "The budget 'Vision team' has 0.25 USD left, which is too little for this",
    code="BUDGET_EXCEEDED",
    details={
        "budget": "bud_1",
        "limit": 500.0,
        "spent": 498.25,
        "reserved": 1.5,
        "remaining": 0.25,
    },
)
BEYOND_KEY: Final = Conflict(
    "Instance 'inst_1697843200_abc123' may run for 60 minute(s): the API key that created it "
    "allows no more, and only an admin key moves that",
    code="KEY_LIMIT_EXCEEDED",
    details={"key": "key_1", "limit": "maxRunMinutes", "allowed": 60},
)
OVER_KEY: Final = Conflict(
    "This API key may have 3 instance(s) at a time: delete one first",
    code="KEY_LIMIT_EXCEEDED",
    details={"key": "key_1", "limit": "maxInstances", "allowed": 3, "wanted": 4},
)
HOST_NOT_ALLOWED: Final = HostNotAllowed(
    "Browsers may not reach this server as 'other.example.com': use localhost, or set "
    "NOVITAI_PUBLIC_URL to the address that they use"
)
CROSS_SITE: Final = CrossSiteRequest(
    "A page of another origin sent this request: Sec-Fetch-Site is not same-origin"
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
