# SPDX-License-Identifier: Apache-2.0
"""Schemas of events and operations."""

from __future__ import annotations

from pydantic import Field

from novitai.api.schemas.wire import ListPage, ResponseModel, Time, absent
from novitai.domain.actor import Actor, System
from novitai.domain.event import Event, EventType
from novitai.domain.operation import OperationKind, Outcome


class ActorView(ResponseModel):
    """Who caused it: an API key, or a part of novitai (`system`)."""

    key_id: str | None = absent("The ID of the API key")
    name: str | None = absent("The name that the API key had")
    system: System | None = absent("The part of novitai")

    @classmethod
    def of(cls, actor: Actor | None) -> ActorView | None:
        """Return the view of an actor; None if it is not known."""
        return None if actor is None else cls.model_validate(actor)


class EventView(ResponseModel):
    """An event."""

    id: str = Field(description="The event's ID")
    type: EventType = Field(description="The event's type")
    at: Time = Field(description="When it was written")
    data: dict[str, object] = Field(
        description="The instance as it was then, and the facts of the event;"
        " an event about the account has an object of its own. "
        "The webhook of the same type has its schema"
    )
    actor: ActorView | None = absent("Who caused it; absent if that is not known")

    @classmethod
    def of(cls, event: Event) -> EventView:
        """Return the view of an event."""
        return cls(
            id=event.id,
            type=event.type,
            at=event.at,
            data=dict(event.data),
            actor=ActorView.of(event.actor),
        )


class ListEventsResponse(ListPage):
    """Events, oldest first."""

    events: list[EventView] = Field(description="The events of this page")


class OperationErrorView(ResponseModel):
    """Why an operation failed, or why its last step did not succeed."""

    code: str = Field(description="The error code")
    message: str = Field(description="What went wrong")


class OperationView(ResponseModel):
    """An operation, running or ended. A listing of the account has no `instanceId`."""

    id: str = Field(description="The operation's ID")
    kind: OperationKind = Field(description="What it does")
    instance_id: str | None = absent(
        "The instance on which it works; absent for a listing of the account"
    )
    phase: str = Field(description="The step at which it is, or at which it ended")
    done: bool = Field(description="Whether it has ended")
    outcome: Outcome | None = absent("How it ended; absent while it runs")
    attempts: int = Field(description="How many calls it has sent to Novita")
    error: OperationErrorView | None = absent("Why it failed, or why its last step did not succeed")
    created_at: Time = Field(description="When it was accepted")
    updated_at: Time = Field(description="When it last changed")
    actor: ActorView | None = absent("Who began it; absent if that is not known")


class ListOperationsResponse(ListPage):
    """Operations, newest first."""

    operations: list[OperationView] = Field(description="The operations of this page")
