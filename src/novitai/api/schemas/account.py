# SPDX-License-Identifier: Apache-2.0
"""The Novita account."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from novitai.api.schemas.wire import (
    NAME_TOLD,
    NOT_BLANK,
    VISIBLE,
    ListPage,
    Name,
    RequestModel,
    ResponseModel,
    Time,
    Wording,
    absent,
)
from novitai.domain.account import HoldReason
from novitai.domain.requests import AdoptRequest


class UnmanagedInstance(ResponseModel):
    """An instance of the account that is no record's own; `status` in Novita's words.

    `orphan`: it bears this installation's marker. `hourlyPrice` is in USD for the whole instance.
    """

    upstream_id: str
    name: str
    status: str
    orphan: bool
    dismissed: bool | None = absent()
    hourly_price: float | None = absent()
    created_at: Time | None = absent()
    region: str | None = absent()


class ListUnmanagedResponse(ListPage):
    """What the last listing of the account held that is no record's own."""

    instances: list[UnmanagedInstance]
    total: int


class AdoptInstanceRequest(RequestModel):
    """An instance of the account that is to become a record's own."""

    upstream_id: Annotated[
        str,
        Field(min_length=1, max_length=255, pattern=NOT_BLANK, description="Its id at Novita."),
        Wording("Upstream ID"),
    ]
    name: Annotated[
        Name,
        Field(description="The new record's name; made of the name at Novita if absent."),
        Wording("Name", code="INVALID_INSTANCE_NAME", pattern=NAME_TOLD),
    ] = absent()
    instance_id: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            pattern=VISIBLE,
            description="The waiting record that is to be given it, instead of a new one.",
        ),
        Wording("Instance ID"),
    ] = absent()

    model_config = ConfigDict(json_schema_extra={"example": {"upstreamId": "3560b7fec915bbf9"}})

    def wanted(self) -> AdoptRequest:
        """Return it as a request of the domain."""
        return AdoptRequest(**dict(self))


class ConfirmAccountRequest(RequestModel):
    """The set of missing instances that a person has been shown."""

    missing_digest: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            pattern=VISIBLE,
            description="`missingDigest` of `GET /api/account`; absent where nothing is missing.",
        ),
        Wording("Missing digest"),
    ] = absent()


class ConfirmAccountResponse(ResponseModel):
    """How many records were accepted as gone."""

    confirmed: int


class MissingInstance(ResponseModel):
    """A record that was not in the account."""

    instance_id: str
    name: str
    upstream_id: str | None = absent()


class AccountHold(ResponseModel):
    """Why no write call leaves: `disappeared`, `key_changed` or `restored`."""

    reason: HoldReason
    since: Time
    message: str
    missing: list[MissingInstance]
    missing_count: int
    missing_digest: str


class AccountResponse(ResponseModel):
    """What is known of the Novita account; `hold` stands there while write calls are held."""

    held: bool
    hold: AccountHold | None = absent()
    listed_at: Time | None = absent()
    incomplete_listings: int
    orphans: int
