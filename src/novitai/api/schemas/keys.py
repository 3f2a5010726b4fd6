# SPDX-License-Identifier: Apache-2.0
"""Schemas of API keys."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, Strict, ValidationInfo

from novitai.api.schemas.wire import (
    END_OF_TIME,
    NOT_BLANK,
    FieldInvalid,
    ListPage,
    RequestModel,
    ResponseModel,
    SentTime,
    Time,
    Wording,
    absent,
    known,
)
from novitai.domain.api_key import MAX_NAME, KeyRequest, Scope

_SCOPES: Final = ", ".join(f"'{scope.value}'" for scope in Scope)


def _listed(value: object) -> object:
    if not isinstance(value, list) or not value:
        raise FieldInvalid(f"Scopes must be a list with at least one of {_SCOPES}")
    return value


def _future(at: int, info: ValidationInfo) -> int:
    if at <= known(info, "now"):
        raise FieldInvalid("Expiry must be in the future")
    if at >= END_OF_TIME:
        raise FieldInvalid("Expiry must be before the year 10000")
    return at


class CreateKeyRequest(RequestModel):
    """The API key to create."""

    name: Annotated[
        str, Field(min_length=1, max_length=MAX_NAME, pattern=NOT_BLANK), Wording("Name")
    ]
    scopes: Annotated[
        list[Annotated[Scope, Strict(False)]],
        BeforeValidator(_listed),
        Field(min_length=1),
        Wording("Scopes", wrong=f"Scopes must be among {_SCOPES}"),
    ]
    expires_at: Annotated[SentTime, AfterValidator(_future), Wording("Expiry")] = absent()

    def wanted(self) -> KeyRequest:
        """Return it as a request of the domain."""
        return KeyRequest(self.name, frozenset(self.scopes), self.expires_at)


class KeyView(ResponseModel):
    """An API key without its secret text."""

    id: str
    name: str
    scopes: list[Scope]
    created_at: Time
    expires_at: Time | None = absent()
    revoked_at: Time | None = absent()
    last_used_at: Time | None = absent()


class CreateKeyResponse(ResponseModel):
    """A new API key. `key` is shown only in this response."""

    id: str
    name: str
    scopes: list[Scope]
    key: str
    created_at: Time
    expires_at: Time | None = absent()


class ListKeysResponse(ListPage):
    """API keys, newest first, including revoked and expired ones."""

    keys: list[KeyView]
