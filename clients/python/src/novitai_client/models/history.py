# SPDX-License-Identifier: Apache-2.0
"""Events and operations."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from novitai_client.wire import Model, Open
from novitai_client.words import EventType, OperationKind, Outcome, SystemPart


class Actor(Model):
    """Who caused it: an API key, or a part of novitai (`system`)."""

    key_id: str | None = None
    name: str | None = None
    system: Open[SystemPart] | None = None


class Event(Model):
    """An event; `data` holds the instance as it was then and the facts of the event."""

    id: str
    type: Open[EventType]
    at: datetime
    data: dict[str, Any]
    actor: Actor | None = None


class Gap(Model):
    """Events that a stream asked for are no longer stored; it goes on with the oldest there is.

    Attributes:
        type: Always `gap`, which no event has.
        oldest: The ID of the oldest event there is; None if there is none.
    """

    type: Literal["gap"] = "gap"
    oldest: str | None = None


class OperationError(Model):
    """Why an operation failed, or why its last step did not succeed."""

    code: str
    message: str


class Operation(Model):
    """An operation, running or ended. A listing of the account has no `instance_id`."""

    id: str
    kind: Open[OperationKind]
    instance_id: str | None = None
    phase: str
    done: bool
    outcome: Open[Outcome] | None = None
    attempts: int
    error: OperationError | None = None
    created_at: datetime
    updated_at: datetime
    actor: Actor | None = None
