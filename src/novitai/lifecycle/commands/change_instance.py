# SPDX-License-Identifier: Apache-2.0
"""Change an instance by a merge patch (RFC 7396), in one transaction.

Each field that can be changed is a line in the table `PATCHABLE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import orjson
from sqlalchemy import Connection

from novitai.domain.actor import Actor
from novitai.domain.event import EventType
from novitai.domain.instance import Instance, InstanceStatus
from novitai.domain.instance_details import InstanceDetails
from novitai.domain.requests import InstanceChange
from novitai.domain.tags import MAX_TAGS, TagsPatch, merged_tags
from novitai.domain.view import view
from novitai.domain.webhook import id_of_url
from novitai.errors import Conflict, FieldError, PreconditionFailed, ValidationFailed
from novitai.lifecycle.commands.idempotency import Transaction
from novitai.lifecycle.core import Core
from novitai.lifecycle.limits.reviews import LimitReviews
from novitai.lifecycle.money import admission, key_limits, ledger
from novitai.lifecycle.queries.ready_views import digest_of, observed_at, unknown
from novitai.store.queries import coordination, instance_tags, instances, operations, webhooks

Condition = Callable[[str], bool]
"""Returns whether the digest of the current view is one that the client has read."""


@dataclass(frozen=True, slots=True)
class ChangedInstance:
    """An instance after a change: its view, and the digest of the view without `observedAt`."""

    view: InstanceDetails
    digest: str


@dataclass(frozen=True, slots=True)
class Patching:
    """What a field of a patch is applied to: the locked instance, at `now` (Unix milliseconds).

    `reviews` arms changed limits. With `may_exceed`, the instance may go beyond the limits of the
    key that created it.
    """

    connection: Connection
    instance: Instance
    change: InstanceChange
    now: int
    reviews: LimitReviews
    may_exceed: bool = False


class InstanceChanges:
    """Changes instances at the request of clients."""

    def __init__(self, core: Core, reviews: LimitReviews) -> None:
        self._reviews = reviews
        self._clock = core.clock
        self._recorder = core.recorder

    def change(
        self,
        instance_id: str,
        change: InstanceChange,
        *,
        actor: Actor,
        condition: Condition | None = None,
        may_exceed: bool = False,
    ) -> Transaction[ChangedInstance]:
        """Change the given fields; the result is the instance's view after the change.

        Args:
            instance_id: The instance; it may have been terminated.
            change: The patch.
            actor: Who makes the change.
            condition: The precondition; it is checked under the lock of the instance.
            may_exceed: Whether the instance may go beyond the limits of the key that created it,
                as with an admin key.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
            Conflict: `INSTANCE_RELEASED`, `BUDGET_EXCEEDED`, `KEY_LIMIT_EXCEEDED`.
            PreconditionFailed: the condition does not hold.
            ValidationFailed: the result would be invalid.
        """
        return partial(
            self._change,
            instance_id=instance_id,
            change=change,
            actor=actor,
            condition=condition,
            may_exceed=may_exceed,
        )

    def _change(
        self,
        connection: Connection,
        instance_id: str,
        change: InstanceChange,
        actor: Actor,
        condition: Condition | None,
        *,
        may_exceed: bool,
    ) -> ChangedInstance:
        instance = instances.lock(connection, instance_id)
        if instance is None:
            raise unknown(instance_id)
        if instance.status is InstanceStatus.RELEASED:
            raise Conflict(
                f"Instance '{instance_id}' was released and is no longer managed",
                code="INSTANCE_RELEASED",
            )
        if condition is not None and not condition(_shown(connection, instance).digest):
            raise PreconditionFailed(
                f"Instance '{instance_id}' has changed since it was read: read it again"
            )
        now = self._clock.now()
        if "tags" in change.given:
            tags = _checked_tags(instance, change.tags)
            key_limits.insist_on_tags(connection, actor, instance, tags)
            admission.admit_tags(connection, instance, tags, now)
        patching = Patching(connection, instance, change, now, self._reviews, may_exceed)
        changed = sorted(
            name for name, apply in PATCHABLE.items() if name in change.given and apply(patching)
        )
        if not changed:
            return _shown(connection, instance)
        instances.update_columns(connection, instance_id, {"updated_at": now})
        after = instances.load_many(connection, [instance_id])[instance_id]
        self._recorder.by(actor).append(
            connection,
            after,
            operations.running(connection, instance_id),
            EventType.UPDATED,
            also={"changed": [_api_name(field) for field in changed]},
        )
        return _shown(connection, after)


def _checked_tags(instance: Instance, patch: TagsPatch | None) -> dict[str, str]:
    """Return the tags of an instance after a merge patch.

    Raises:
        ValidationFailed: there would be more than `MAX_TAGS` tags.
    """
    tags = merged_tags(instance.tags, patch)
    if len(tags) > MAX_TAGS:
        message = f"There must be at most {MAX_TAGS} tags; there would be {len(tags)}"
        raise ValidationFailed(
            "Validation failed", details=[FieldError("tags", message, has_value=False)]
        )
    return tags


def change_tags(
    connection: Connection, instance: Instance, patch: TagsPatch | None, now: int
) -> bool:
    """Apply a merge patch to the tags of an instance, whose lock the caller holds.

    What it costs from now on is assigned to the new tags.

    Args:
        connection: A write transaction.
        instance: The instance.
        patch: The patch.
        now: Unix milliseconds.

    Returns:
        Whether the tags have changed.

    Raises:
        ValidationFailed: there would be more than `MAX_TAGS` tags.
    """
    tags = _checked_tags(instance, patch)
    if tags == instance.tags:
        return False
    instance_tags.replace(connection, instance.id, tags, created_at=instance.created_at)
    ledger.relabel(connection, replace(instance, tags=tags), now)
    return True


def _tags(patching: Patching) -> bool:
    return change_tags(patching.connection, patching.instance, patching.change.tags, patching.now)


def _webhook_url(patching: Patching) -> bool:
    """Set the receiver of the following events; earlier messages still go to the old one."""
    url = patching.change.webhook_url
    if url is not None:
        # A client that gives a URL says that it works, even if it was switched off before.
        webhooks.switch_on(patching.connection, id_of_url(url), now=patching.now)
    if url == patching.instance.webhook_url:
        return False
    columns = {"webhook_url": url}
    instances.update_columns(patching.connection, patching.instance.id, columns)
    return True


def _limits(patching: Patching) -> bool:
    """Change the limits and arm them; what is due already acts on the next listing.

    Raises:
        Conflict: `KEY_LIMIT_EXCEEDED`.
    """
    connection, instance, change = patching.connection, patching.instance, patching.change.limits
    wanted = None if change is None else change.applied(instance.limits)
    inherited = key_limits.changed(
        connection,
        instance,
        change,
        wanted,
        patching.reviews.key_ends_at(connection, instance),
        may_exceed=patching.may_exceed,
    )
    if wanted == instance.limits and inherited == instance.inherited:
        return False
    if inherited != instance.inherited:
        patching.reviews.inherit(connection, instance, inherited)
    patching.reviews.change(connection, instance, wanted)
    return True


def _protected(patching: Patching) -> bool:
    """Set or remove the protection, and review the limits that it holds back."""
    reason, instance = patching.change.protected, patching.instance
    if reason == instance.protected_reason:
        return False
    instances.update_columns(patching.connection, instance.id, {"protected_reason": reason})
    fresh = instances.load_many(patching.connection, [instance.id])[instance.id]
    patching.reviews.review(patching.connection, fresh)
    return True


def _auto_stop(patching: Patching) -> bool:
    """Change the auto-stop setting; the instance counts as idle from now at the earliest.

    Raises:
        ValidationFailed: a setting without `idleMinutes`.
    """
    before, change = patching.instance.auto_stop, patching.change.auto_stop
    wanted = None if change is None else change.applied(before)
    if change is not None and wanted is None:
        wrong = FieldError("autoStop.idleMinutes", "Idle minutes is required", has_value=False)
        raise ValidationFailed("Validation failed", details=[wrong])
    if wanted == before:
        return False
    patching.reviews.change_auto_stop(patching.connection, patching.instance, wanted)
    return True


PATCHABLE: Final[Mapping[str, Callable[[Patching], bool]]] = {
    "auto_stop": _auto_stop,
    "limits": _limits,
    "protected": _protected,
    "tags": _tags,
    "webhook_url": _webhook_url,
}
"""How each field of an `InstanceChange` is applied; the result is whether it changed anything."""


def _api_name(field: str) -> str:
    first, *others = field.split("_")
    return first + "".join(word.capitalize() for word in others)


def _shown(connection: Connection, instance: Instance) -> ChangedInstance:
    running = operations.running(connection, instance.id)
    seen_at = observed_at(instance, coordination.listed_at(connection))
    digest = digest_of(orjson.dumps(view(instance, running)))
    cost = ledger.costs_of(connection, [instance])[instance.id]
    return ChangedInstance(view(instance, running, seen_at, cost), digest)
