# SPDX-License-Identifier: Apache-2.0
"""Schemas of errors."""

from __future__ import annotations

from pydantic import Field

from novitai.api.schemas.wire import ResponseModel, Time, absent
from novitai.errors import Category


class ErrorDetail(ResponseModel):
    """One invalid field. The value is absent if it may be secret."""

    field: str = Field(description="The field, such as `gpuNum` or `limits.stopAt`")
    message: str = Field(description="What is wrong with it")
    value: object | None = absent(
        "The value that was sent; absent if none was, or if it may be secret"
    )


class ErrorBody(ResponseModel):
    """The error, and whether a retry can succeed."""

    code: str = Field(description="The error code, for programs")
    message: str = Field(description="What is wrong and, if possible, what to do, for people")
    category: Category = Field(description="The category of the code")
    retryable: bool = Field(description="Whether the same request may succeed later")
    details: list[ErrorDetail] | list[dict[str, object]] | dict[str, object] | None = absent(
        "The invalid fields, or facts that belong to the code"
    )
    timestamp: Time = Field(description="When the error occurred")
    request_id: str = Field(
        description="The ID of the request, as in `X-Request-ID` and in the log"
    )
    correlation_id: str | None = absent("The `X-Correlation-ID` of the request")


class ErrorResponse(ResponseModel):
    """The envelope of every error."""

    error: ErrorBody = Field(description="The error")


class Problem(ResponseModel):
    """The same error in the format of RFC 9457, for `Accept: application/problem+json`."""

    type: str = Field(description="Always `about:blank`: `code` names the kind of the problem")
    title: str = Field(description="The phrase of the HTTP status")
    status: int = Field(description="The HTTP status")
    detail: str = Field(description="What is wrong and, if possible, what to do, for people")
    code: str = Field(description="The error code, for programs")
    category: Category = Field(description="The category of the code")
    retryable: bool = Field(description="Whether the same request may succeed later")
    details: list[ErrorDetail] | list[dict[str, object]] | dict[str, object] | None = absent(
        "The invalid fields, or facts that belong to the code"
    )
    timestamp: Time = Field(description="When the error occurred")
    request_id: str = Field(
        description="The ID of the request, as in `X-Request-ID` and in the log"
    )
    correlation_id: str | None = absent("The `X-Correlation-ID` of the request")
