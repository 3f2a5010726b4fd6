# SPDX-License-Identifier: Apache-2.0
"""Schemas of events and operations."""

from __future__ import annotations

from pydantic import ConfigDict

from novitai.api.schemas.wire import ListPage, ResponseModel, Time, absent
from novitai.domain.event import EventType
from novitai.domain.operation import OperationKind, Outcome


class EventView(ResponseModel):
    """An event; `data` holds the instance as it was then and the facts of the event."""

    id: str
    type: EventType
    at: Time
    data: dict[str, object]


class ListEventsResponse(ListPage):
    """Events, oldest first."""

    events: list[EventView]


class OperationErrorView(ResponseModel):
    """Why an operation failed, or why its last step did not succeed."""

    code: str
    message: str


class OperationView(ResponseModel):
    """An operation, running or ended. A listing of the account has no `instanceId`."""

    id: str
    kind: OperationKind
    instance_id: str | None = absent()
    phase: str
    done: bool
    outcome: Outcome | None = absent()
    attempts: int
    error: OperationErrorView | None = absent()
    created_at: Time
    updated_at: Time

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
