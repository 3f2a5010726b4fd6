# SPDX-License-Identifier: Apache-2.0
"""Schemas of the Novita account."""

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
    """An instance in the account that belongs to no record; `status` is Novita's.

    `orphan`: it has this installation's marker. `hourlyPrice` is in USD for the whole instance.
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
    """The instances in the last listing of the account that belong to no record."""

    instances: list[UnmanagedInstance]
    total: int


class AdoptInstanceRequest(RequestModel):
    """The unmanaged instance to adopt."""

    upstream_id: Annotated[
        str,
        Field(min_length=1, max_length=255, pattern=NOT_BLANK, description="Its ID at Novita."),
        Wording("Upstream ID"),
    ]
    name: Annotated[
        Name,
        Field(description="Name of the new record; derived from the name at Novita if absent."),
        Wording("Name", code="INVALID_INSTANCE_NAME", pattern=NAME_TOLD),
    ] = absent()
    instance_id: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            pattern=VISIBLE,
            description="A record that waits to be bought; it gets the instance.",
        ),
        Wording("Instance ID"),
    ] = absent()

    model_config = ConfigDict(json_schema_extra={"example": {"upstreamId": "3560b7fec915bbf9"}})

    def wanted(self) -> AdoptRequest:
        """Return it as a request of the domain."""
        return AdoptRequest(**dict(self))


class ConfirmAccountRequest(RequestModel):
    """The set of missing instances to confirm as gone."""

    missing_digest: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            pattern=VISIBLE,
            description="`missingDigest` of `GET /api/account`; absent if no instance is missing.",
        ),
        Wording("Missing digest"),
    ] = absent()


class ConfirmAccountResponse(ResponseModel):
    """The number of records confirmed as gone."""

    confirmed: int


class MissingInstance(ResponseModel):
    """A record whose instance is missing from the account."""

    instance_id: str
    name: str
    upstream_id: str | None = absent()


class AccountHold(ResponseModel):
    """Why no write call is sent to Novita: `disappeared`, `key_changed` or `restored`."""

    reason: HoldReason
    since: Time
    message: str
    missing: list[MissingInstance]
    missing_count: int
    missing_digest: str


class AccountResponse(ResponseModel):
    """The state of the Novita account; `hold` is present while write calls are held."""

    held: bool
    hold: AccountHold | None = absent()
    listed_at: Time | None = absent()
    incomplete_listings: int
    orphans: int
