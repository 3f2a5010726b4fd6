# SPDX-License-Identifier: Apache-2.0
"""Change the limits and the protection of an instance, and put its stop off."""

from __future__ import annotations

from functools import partial
from typing import Final

from sqlalchemy import Connection

from novitai.clock import iso
from novitai.domain.actor import Actor
from novitai.domain.event import EventType
from novitai.domain.instance import Instance, InstanceStatus
from novitai.domain.instance_details import InstanceDetails
from novitai.domain.limits import KEEP_AT_MOST
from novitai.domain.operation import Operation
from novitai.domain.view import present, view
from novitai.errors import Conflict, FieldError, ValidationFailed
from novitai.lifecycle.commands.idempotency import Transaction
from novitai.lifecycle.core import Core
from novitai.lifecycle.limits.reviews import LimitReviews
from novitai.lifecycle.money import key_limits, ledger
from novitai.lifecycle.queries.ready_views import unknown
from novitai.store.queries import instances, limits, operations

_NO_RUN: Final = frozenset(
    {
        InstanceStatus.STOPPED,
        InstanceStatus.STOPPING,
        InstanceStatus.FAILED,
        InstanceStatus.TERMINATING,
        InstanceStatus.TERMINATED,
        InstanceStatus.RELEASED,
    }
)
"""The statuses in which there is no run to put the end of off."""


class InstanceLimits:
    """Carries out what a user asks about the limits of an instance."""

    def __init__(self, core: Core, reviews: LimitReviews) -> None:
        self._recorder = core.recorder
        self._reviews = reviews

    def keep(
        self, instance_id: str, minutes: int, *, actor: Actor, may_exceed: bool = False
    ) -> Transaction[InstanceDetails]:
        """Put off the stop of `maxRunMinutes`, `stopAt` or auto-stop; return the view.

        Args:
            instance_id: The instance.
            minutes: By how much.
            actor: Who asks.
            may_exceed: Whether the stop may go beyond the limits of the key that created the
                instance, as with an admin key.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
            ValidationFailed: more than 7 days in this run.
            Conflict: `NOTHING_TO_KEEP`: none of them would stop the instance, or it is being
                stopped already; `KEY_LIMIT_EXCEEDED`.
        """
        return partial(
            self._keep,
            instance_id=instance_id,
            minutes=minutes,
            actor=actor,
            may_exceed=may_exceed,
        )

    def _keep(
        self,
        connection: Connection,
        instance_id: str,
        minutes: int,
        actor: Actor,
        *,
        may_exceed: bool,
    ) -> InstanceDetails:
        instance = instances.lock(connection, instance_id)
        if instance is None:
            raise unknown(instance_id)
        running = operations.running(connection, instance_id)
        _insist_on_a_run(instance, running)
        if not may_exceed and not _has_own(instance):
            raise key_limits.beyond(instance)
        left = KEEP_AT_MOST - limits.memory(connection, instance_id).kept_minutes
        if minutes > left:
            message = f"Minutes must be at most {left}: a run can be kept for 7 days in all"
            raise ValidationFailed(
                "Validation failed", details=[FieldError("minutes", message, minutes)]
            )
        kept = self._reviews.keep(connection, instance, minutes, may_exceed=may_exceed)
        stops_at = None if kept.stops_at is None else iso(kept.stops_at)
        self._recorder.by(actor).append(
            connection,
            kept,
            operations.running(connection, instance_id),
            EventType.KEPT,
            also=present({"minutes": minutes, "stopsAt": stops_at}),
        )
        cost = ledger.costs_of(connection, [kept])[instance_id]
        return view(kept, operations.running(connection, instance_id), cost=cost)


def _has_own(instance: Instance) -> bool:
    """Whether a limit in time of its own, or auto-stop, ends its runs."""
    limited = instance.limits is not None and instance.limits.ends_in_time
    return limited or instance.auto_stop is not None


def _insist_on_a_run(instance: Instance, running: Operation | None) -> None:
    ending = running is not None and running.kind.brings_down
    inherited = instance.inherited
    limited = inherited is not None and inherited.max_run_minutes is not None
    limited = limited or _has_own(instance)
    if limited and not ending and instance.status not in _NO_RUN:
        return
    why = "no limit in time stops it" if not limited else f"it is {instance.status.value}"
    raise Conflict(
        f"The stop of instance '{instance.id}' cannot be put off: {why}",
        code="NOTHING_TO_KEEP",
        details={"status": instance.status.value},
    )
