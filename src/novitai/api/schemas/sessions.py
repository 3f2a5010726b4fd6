# SPDX-License-Identifier: Apache-2.0
"""Requests and responses of the session routes."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field, ValidationInfo

from novitai.api.schemas.wire import (
    FieldInvalid,
    RequestModel,
    ResponseModel,
    Time,
    Wording,
    absent,
)
from novitai.domain.api_key import Scope

_MAX_SECRET: Final = 1_000


def _alone(code: str, info: ValidationInfo) -> str:
    if info.data.get("key") is not None:
        raise FieldInvalid("Send either a key or a code")
    return code


class CreateSessionRequest(RequestModel):
    """What the browser logs in with: an API key or a one-time code."""

    key: Annotated[
        str,
        Field(min_length=1, max_length=_MAX_SECRET, repr=False, description="An API key"),
        Wording("Key", secret=True),
    ] = absent()
    code: Annotated[
        str,
        AfterValidator(_alone),
        Field(
            min_length=1,
            max_length=_MAX_SECRET,
            repr=False,
            description="A one-time code, in place of a key",
        ),
        Wording("Code", secret=True),
    ] = absent()


class SessionResponse(ResponseModel):
    """The session of the request."""

    key_id: str = Field(description="The ID of the API key of the log-in")
    name: str = Field(description="The name of that key")
    scopes: list[Scope] = Field(description="What the session may do, which is what its key may")
    expires_at: Time = Field(description="When the session ends if it is not used again")


class LoginCodeResponse(ResponseModel):
    """A new one-time code, with which a browser logs in as the API key of the request."""

    code: str = Field(description="The code itself; no other response shows it")
    url: str = Field(description="The address of the dashboard, with the code in its fragment")
    expires_at: Time = Field(description="From when on the code is refused")
