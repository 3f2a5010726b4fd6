# SPDX-License-Identifier: Apache-2.0
"""Errors."""

from __future__ import annotations

from novitai.api.schemas.wire import ResponseModel, Time, absent
from novitai.errors import Category


class ErrorDetail(ResponseModel):
    """One wrong field. The value is left out where it may be secret."""

    field: str
    message: str
    value: object | None = absent()


class ErrorBody(ResponseModel):
    """What went wrong, and whether trying again makes sense."""

    code: str
    message: str
    category: Category
    retryable: bool
    details: list[ErrorDetail] | list[dict[str, object]] | dict[str, object] | None = absent()
    timestamp: Time
    request_id: str
    correlation_id: str | None = absent()


class ErrorResponse(ResponseModel):
    """Every error of every kind."""

    error: ErrorBody


class Problem(ResponseModel):
    """The same error as RFC 9457 has it, for `Accept: application/problem+json`."""

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
