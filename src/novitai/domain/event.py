# SPDX-License-Identifier: Apache-2.0
"""Events: the entries of the log that history, webhooks and the live stream read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from novitai.domain.actor import Actor
from novitai.domain.instance import InstanceStatus


class EventType(StrEnum):
    """All event types. `novitai.domain.webhook.WEBHOOK_EVENTS` lists those that webhooks get."""

    CREATED = "instance.created"
    STARTING = "instance.starting"
    RUNNING = "instance.running"
    STOPPING = "instance.stopping"
    STOPPED = "instance.stopped"
    FAILED = "instance.failed"
    MIGRATING = "instance.migrating"
    SPOT_RECLAIM_SCHEDULED = "instance.spot_reclaim_scheduled"
    TERMINATING = "instance.terminating"
    TERMINATED = "instance.terminated"
    PRICE_CHANGED = "instance.price_changed"
    DRIFT = "instance.drift"
    CLEANED_UP = "instance.cleaned_up"
    SURPLUS_DELETED = "instance.surplus_deleted"
    ATTEMPT_REFUSED = "instance.attempt_refused"
    START_REFUSED = "instance.start_refused"
    STOP_REFUSED = "instance.stop_refused"
    OPERATION_CANCELLED = "instance.operation_cancelled"
    IDENTITY_UNCONFIRMED = "instance.identity_unconfirmed"
    REAPPEARED = "instance.reappeared"
    DELETE_INEFFECTIVE = "instance.delete_ineffective"
    LIMIT_NEAR = "instance.limit_near"
    LIMIT_REACHED = "instance.limit_reached"
    LIMIT_UNENFORCED = "instance.limit_unenforced"
    AUTOSTOP_WARNING = "instance.autostop_warning"
    AUTOSTOP_FIRED = "instance.autostop_fired"
    AUTOSTOP_FAILED = "instance.autostop_failed"
    AUTOSTOP_SIGNAL_LOST = "instance.autostop_signal_lost"
    KEPT = "instance.kept"
    DATA_PURGE_SCHEDULED = "instance.data_purge_scheduled"
    ADOPTED = "instance.adopted"
    RELEASED = "instance.released"
    UPDATED = "instance.updated"
    WEBHOOK_SWITCHED_OFF = "webhook.switched_off"
    ACCOUNT_CHANGED = "account.changed"
    ORPHAN_FOUND = "account.orphan_found"
    ORPHAN_DELETED = "account.orphan_deleted"
    BUDGET_ALERT = "budget.alert"
    BUDGET_EXCEEDED = "budget.exceeded"
    COST_UNEXPLAINED = "cost.unexplained"
    COST_UNKNOWN_OWNER = "cost.unknown_owner"
    COST_RECONCILIATION_UNAVAILABLE = "cost.reconciliation_unavailable"


def of_status(status: InstanceStatus) -> EventType:
    """Return the event type for an instance that has changed to `status`."""
    if status is InstanceStatus.CREATING:
        return EventType.CREATED
    return EventType(f"instance.{status.value}")


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the log; `at` in Unix milliseconds.

    `actor` is who caused it; None for events from before actors were stored. An account event
    belongs to no instance, and its `data` has a shape of its own.
    """

    id: str
    type: EventType
    at: int
    data: Mapping[str, object]
    actor: Actor | None = None
