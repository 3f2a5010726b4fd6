# SPDX-License-Identifier: Apache-2.0
"""The wire of verbs, operations and events, for the OpenAPI document and for tests."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from novitai.api.openapi.schemas import Wire, absent
from novitai.domain.account import HoldReason
from novitai.domain.event import EventType
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind, Outcome


class NoFields(Wire):
    """Nothing to say: an absent or empty body is the same."""


class InstanceNameRequest(Wire):
    """Which instance, by its name; one live instance must bear it."""

    instance_name: Annotated[str, Field(min_length=1, max_length=100, pattern="^[A-Za-z0-9_-]+$")]

    model_config = ConfigDict(json_schema_extra={"example": {"instanceName": "my-instance"}})


class LastUsedRequest(Wire):
    """When the instance was last used; now, where nothing is said."""

    last_used_at: Annotated[datetime, Field(description="ISO-8601 with an offset")] = absent()


class VerbResponse(Wire):
    """An accepted verb: `operationId` is what to follow at `/api/operations/{operationId}`."""

    instance_id: str
    status: InstanceStatus
    operation_id: str
    message: str

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "instanceId": "inst_1697843200_abc123def456",
                "status": "stopping",
                "operationId": "op_3f9k2m5x8q1w7e4r6t0y",
                "message": "Instance stop initiated successfully",
            }
        }
    )


class StopBegun(Wire):
    """An instance that is being stopped."""

    instance_id: str
    operation_id: str


class LeftAlone(Wire):
    """An instance that is not being stopped, and why: an error code, or `ALREADY_STOPPED`."""

    instance_id: str
    reason: str


class StopAllResponse(Wire):
    """What became of each live instance."""

    operations: list[StopBegun]
    skipped: list[LeftAlone]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "operations": [
                    {
                        "instanceId": "inst_1697843200_abc123def456",
                        "operationId": "op_3f9k2m5x8q1w7e4r6t0y",
                    }
                ],
                "skipped": [
                    {
                        "instanceId": "inst_1697843300_def456abc123",
                        "reason": "OPERATION_IN_PROGRESS",
                    }
                ],
            }
        }
    )


class SyncResponse(Wire):
    """An accepted listing of the account."""

    operation_id: str


class SecretEndpoint(Wire):
    """A published port whose endpoint, as Novita tells it, holds user info or a query."""

    port: int
    endpoint: str


class CredentialsResponse(Wire):
    """The passwords of an instance, as Novita last told them; what it did not tell is absent.

    `jupyter`, `webTerminal` and `endpoints` are the whole addresses where they hold user info or a
    query, such as `?token=`: the view has them without.
    """

    instance_id: str
    ssh_password: str = absent()
    web_terminal_username: str = absent()
    web_terminal_password: str = absent()
    jupyter: str = absent()
    web_terminal: str = absent()
    endpoints: list[SecretEndpoint] = absent()


class UnmanagedInstance(Wire):
    """An instance of the account that is no record's own; `status` in Novita's words.

    `orphan`: it bears this installation's marker. `hourlyPrice` is in USD for the whole instance.
    """

    upstream_id: str
    name: str
    status: str
    orphan: bool
    dismissed: bool = absent()
    hourly_price: float = absent()
    created_at: datetime = absent()
    region: str = absent()


class ListUnmanagedResponse(Wire):
    """What the last listing of the account held that is no record's own."""

    instances: list[UnmanagedInstance]
    total: int
    next_cursor: str = absent()


class AdoptInstanceRequest(Wire):
    """An instance of the account that is to become a record's own."""

    upstream_id: str = Field(min_length=1, max_length=255, description="Its id at Novita.")
    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=100,
            pattern="^[A-Za-z0-9_-]+$",
            description="The new record's name; made of the name at Novita if absent.",
        ),
    ] = absent()
    instance_id: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            description="The waiting record that is to be given it, instead of a new one.",
        ),
    ] = absent()

    model_config = ConfigDict(json_schema_extra={"example": {"upstreamId": "3560b7fec915bbf9"}})


class ConfirmAccountRequest(Wire):
    """The set of missing instances that a person has been shown."""

    missing_digest: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            description="`missingDigest` of `GET /api/account`; absent where nothing is missing.",
        ),
    ] = absent()


class ConfirmAccountResponse(Wire):
    """How many records were accepted as gone."""

    confirmed: int


class MissingInstance(Wire):
    """A record that was not in the account."""

    instance_id: str
    name: str
    upstream_id: str = absent()


class AccountHold(Wire):
    """Why no write call leaves: `disappeared`, `key_changed` or `restored`."""

    reason: HoldReason
    since: datetime
    message: str
    missing: list[MissingInstance]
    missing_count: int
    missing_digest: str


class AccountResponse(Wire):
    """What is known of the Novita account; `hold` stands there while write calls are held."""

    held: bool
    hold: AccountHold = absent()
    listed_at: datetime = absent()
    incomplete_listings: int
    orphans: int


class EventView(Wire):
    """Something that happened; `data` is the instance as it was then, and facts beside it."""

    id: str
    type: EventType
    at: datetime
    data: dict[str, object]


class ListEventsResponse(Wire):
    """Events, oldest first."""

    events: list[EventView]
    next_cursor: str = absent()


class OperationErrorView(Wire):
    """Why an operation failed, or what hindered its last step."""

    code: str
    message: str


class OperationView(Wire):
    """A verb in progress or over. A listing of the account has no instance."""

    id: str
    kind: OperationKind
    instance_id: str = absent()
    phase: str
    done: bool
    outcome: Outcome = absent()
    attempts: int
    error: OperationErrorView = absent()
    created_at: datetime
    updated_at: datetime

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "op_3f9k2m5x8q1w7e4r6t0y",
                "kind": "create",
                "instanceId": "inst_1697843200_abc123def456",
                "phase": "place",
                "done": False,
                "attempts": 0,
                "createdAt": "2023-10-20T10:20:00.000Z",
                "updatedAt": "2023-10-20T10:20:00.000Z",
            }
        }
    )


REFERRED: Final[tuple[type[BaseModel], ...]] = (
    NoFields,
    InstanceNameRequest,
    LastUsedRequest,
    AdoptInstanceRequest,
    ConfirmAccountRequest,
)
"""What the document refers to besides the answers of routes."""
