# SPDX-License-Identifier: Apache-2.0
"""Schemas of the Novita account."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from novitai.api.schemas.instances import SentTags
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
    """An instance in the account that belongs to no record."""

    upstream_id: str = Field(description="Its ID at Novita")
    name: str = Field(description="Its name at Novita")
    status: str = Field(description="Its status in Novita's words")
    orphan: bool = Field(
        description="Whether it has the marker of this installation, so that "
        "one of its create calls bought it"
    )
    dismissed: bool | None = absent("`true` if an admin has dismissed it")
    hourly_price: float | None = absent(
        "USD per hour for the whole instance; absent if Novita does not tell it"
    )
    created_at: Time | None = absent("When Novita created it; absent if Novita does not tell it")
    region: str | None = absent("Its region; absent if Novita does not tell it")


class ListUnmanagedResponse(ListPage):
    """The instances in the last listing of the account that belong to no record."""

    instances: list[UnmanagedInstance] = Field(
        description="The unmanaged instances of this page, in the order of `upstreamId`"
    )
    total: int = Field(description="The number of unmanaged instances on all pages")


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
    tags: SentTags = Field(default_factory=dict)

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

    confirmed: int = Field(description="The number of records confirmed as gone")


class MissingInstance(ResponseModel):
    """A record whose instance is missing from the account."""

    instance_id: str = Field(description="The ID of the record")
    name: str = Field(description="The name of the record")
    upstream_id: str | None = absent("The ID at Novita under which it was last listed")


class AccountHold(ResponseModel):
    """Why no write call is sent to Novita."""

    reason: HoldReason = Field(description="Why write calls are held")
    since: Time = Field(description="When the hold began")
    message: str = Field(description="What was found, and what to do")
    missing: list[MissingInstance] = Field(
        description="The records whose instances are missing; at most 100 of them"
    )
    missing_count: int = Field(description="The number of all records whose instances are missing")
    missing_digest: str = Field(
        description="Names this set of missing instances in `POST /api/account/confirm`"
    )


class AccountResponse(ResponseModel):
    """The state of the Novita account."""

    held: bool = Field(description="Whether write calls to Novita are held")
    hold: AccountHold | None = absent("The hold; absent if nothing is held")
    listed_at: Time | None = absent(
        "When the last complete listing of the account began; absent before the first one"
    )
    incomplete_listings: int = Field(
        description="The number of incomplete listings since the last complete one"
    )
    orphans: int = Field(description="The number of orphans in the account")
