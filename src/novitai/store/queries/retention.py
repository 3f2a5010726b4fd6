# SPDX-License-Identifier: Apache-2.0
"""Queries that delete old events, deliveries and operations, and remove instances that ended.

The row of a removed instance stays without its settings and secrets: the ledger names its product
and region, and its upstream ID and its attempts tell what is ours. No query of the API finds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, bindparam, delete, exists, func, or_, select, update

from novitai.domain.instance import ENDED
from novitai.domain.webhook import DeliveryStatus
from novitai.store.tables import (
    attempts,
    billing_states,
    deliveries,
    delivery_attempts,
    events,
    instance_tags,
    instances,
    listed_instances,
    operations,
)

_later: Final = operations.alias("later")
_LATER_OF_ITS_KIND: Final = exists().where(
    _later.c.instance_id == operations.c.instance_id,
    _later.c.kind == operations.c.kind,
    _later.c.done,
    or_(
        _later.c.updated_at > operations.c.updated_at,
        and_(_later.c.updated_at == operations.c.updated_at, _later.c.id > operations.c.id),
    ),
)
_OF_REMOVED: Final = exists().where(
    instances.c.id == operations.c.instance_id, instances.c.removed_at.is_not(None)
)
_BOUGHT: Final = exists().where(attempts.c.operation_id == operations.c.id)
_OLD_OPERATIONS: Final = (
    select(operations.c.id)
    .where(
        operations.c.done,
        operations.c.updated_at < bindparam("before"),
        ~_BOUGHT,
        or_(_LATER_OF_ITS_KIND, _OF_REMOVED),
    )
    .limit(bindparam("most"))
)
_ENDED_AT: Final = func.coalesce(
    instances.c.released_at, instances.c.terminated_at, instances.c.updated_at
)
# A row that only an older release has written has no `last_listed_at`.
_LATELY: Final = func.coalesce(
    listed_instances.c.last_listed_at, listed_instances.c.first_listed_at
) >= bindparam("listed_before")
_LISTED: Final = exists().where(listed_instances.c.upstream_id == instances.c.upstream_id, _LATELY)
_MARKER_LISTED: Final = exists().where(
    attempts.c.instance_id == instances.c.id,
    or_(
        listed_instances.c.attempt_id == attempts.c.id,
        listed_instances.c.upstream_id == attempts.c.upstream_id,
    ),
    _LATELY,
)
_OLD_INSTANCES: Final = (
    select(instances.c.id)
    .where(
        instances.c.status.in_(ENDED),
        instances.c.removed_at.is_(None),
        bindparam("before") > _ENDED_AT,
        # An older release notes there alone what it has listed.
        or_(instances.c.obs_at.is_(None), instances.c.obs_at < bindparam("listed_before")),
        ~_LISTED,
        ~_MARKER_LISTED,
        ~exists().where(billing_states.c.instance_id == instances.c.id, ~billing_states.c.ended),
        ~exists().where(operations.c.instance_id == instances.c.id, ~operations.c.done),
        ~exists().where(
            deliveries.c.instance_id == instances.c.id,
            deliveries.c.status == DeliveryStatus.PENDING.value,
        ),
    )
    .order_by(instances.c.created_at, instances.c.id)
    .limit(bindparam("most"))
)


@dataclass(frozen=True, slots=True)
class PrunedPage:
    """The result of one step.

    Attributes:
        last: The number of the last event that was looked at; None if no older one is left.
        deleted: How many events were deleted.
    """

    last: int | None
    deleted: int


def prune_events(connection: Connection, *, before: int, after: int, limit: int) -> PrunedPage:
    """Delete the next events from before a time, with their deliveries.

    Events with a delivery that is still to be made stay, and so does the last event: SQLite would
    give its number to another one.

    Args:
        connection: A write transaction.
        before: In Unix milliseconds.
        after: The number of the last event of the step before; 0 at first.
        limit: How many events to look at.
    """
    rows = connection.execute(
        select(events.c.sequence, events.c.at)
        .where(events.c.sequence > after)
        .order_by(events.c.sequence)
        .limit(limit)
    ).all()
    old = [sequence for sequence, at in rows if at < before]
    newest = connection.execute(select(func.max(events.c.sequence))).scalar_one()
    waiting = set(
        connection.execute(
            select(deliveries.c.event_sequence).where(
                deliveries.c.event_sequence.in_(old),
                deliveries.c.status == DeliveryStatus.PENDING.value,
            )
        ).scalars()
    )
    dropped = [one for one in old if one not in waiting and one != newest]
    if dropped:
        of_events = select(deliveries.c.id).where(deliveries.c.event_sequence.in_(dropped))
        connection.execute(
            delete(delivery_attempts).where(delivery_attempts.c.delivery_id.in_(of_events))
        )
        connection.execute(delete(deliveries).where(deliveries.c.event_sequence.in_(dropped)))
        connection.execute(delete(events).where(events.c.sequence.in_(dropped)))
    more = len(rows) == limit and len(old) == len(rows)
    return PrunedPage(rows[-1][0] if more else None, len(dropped))


def prune_operations(connection: Connection, *, before: int, limit: int) -> int:
    """Delete finished operations from before a time; return how many.

    The last of each kind of an instance stays, because its status and its verbs depend on it, and
    so do those that bought something.
    """
    found = connection.execute(_OLD_OPERATIONS, {"before": before, "most": limit}).scalars().all()
    if found:
        connection.execute(delete(operations).where(operations.c.id.in_(found)))
    return len(found)


def remove_instances(
    connection: Connection, *, before: int, listed_before: int, now: int, limit: int
) -> int:
    """Remove records that ended before a time and were not listed since another; return how many.

    A record counts as listed when an instance with its upstream ID, or with the marker of one of
    its attempts, was. It also stays as long as anything is billed for it, an operation of it runs,
    or a message about it is to be delivered. All times are in Unix milliseconds.
    """
    found = (
        connection.execute(
            _OLD_INSTANCES, {"before": before, "listed_before": listed_before, "most": limit}
        )
        .scalars()
        .all()
    )
    if not found:
        return 0
    connection.execute(delete(instance_tags).where(instance_tags.c.instance_id.in_(found)))
    connection.execute(
        update(instances)
        .where(instances.c.id.in_(found))
        .values(
            removed_at=now,
            launch_sealed=b"",
            obs_credentials_sealed=None,
            obs_port_mappings="[]",
            obs_ssh=None,
            obs_jupyter=None,
            obs_web_terminal=None,
            webhook_url=None,
            tags="{}",
            limits=None,
            auto_stop=None,
        )
    )
    return len(found)
