# SPDX-License-Identifier: Apache-2.0
"""Schemas of errors."""

from __future__ import annotations

from novitai.api.schemas.wire import ResponseModel, Time, absent
from novitai.errors import Category


class ErrorDetail(ResponseModel):
    """One invalid field. The value is absent if it may be secret."""

    field: str
    message: str
    value: object | None = absent()


class ErrorBody(ResponseModel):
    """The error, and whether a retry can succeed."""

    code: str
    message: str
    category: Category
    retryable: bool
    details: list[ErrorDetail] | list[dict[str, object]] | dict[str, object] | None = absent()
    timestamp: Time
    request_id: str
    correlation_id: str | None = absent()


class ErrorResponse(ResponseModel):
    """The envelope of every error."""

    error: ErrorBody


class Problem(ResponseModel):
    """The same error in the format of RFC 9457, for `Accept: application/problem+json`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    category: Category
    retryable: bool
    details: list[ErrorDetail] | list[dict[str, object]] | dict[str, object] | None = absent()
    timestamp: Time
    request_id: str
    correlation_id: str | None = absent()
