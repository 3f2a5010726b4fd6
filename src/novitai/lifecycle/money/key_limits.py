# SPDX-License-Identifier: Apache-2.0
"""Keep instances within the limits of the API key that created them.

Budgets of keys are admitted with all others, in `novitai.lifecycle.money.admission`.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from novitai.domain.actor import Actor
from novitai.domain.instance import Instance
from novitai.domain.key_limits import KeyLimit, KeyLimits, KeyRoom
from novitai.domain.limits import InheritedLimits, LimitsChange, LimitSettings
from novitai.domain.product import usd
from novitai.domain.requests import CreateRequest
from novitai.domain.tags import Tags
from novitai.errors import Conflict
from novitai.store.queries import api_keys, budgets, instances
from novitai.store.queries.instances import to_units


def exceeded(key_id: str | None, limit: KeyLimit, message: str, **facts: object) -> Conflict:
    """Return the error for a request that a limit of a key refuses.

    Args:
        key_id: The key whose limit it is.
        limit: The limit.
        message: The message of the error.
        facts: Further entries of `details`.
    """
    details = {"key": key_id, "limit": limit.value, **facts}
    return Conflict(message, code="KEY_LIMIT_EXCEEDED", details=details)


def insist_on_run(key_id: str | None, limits: KeyLimits | None, request: CreateRequest) -> None:
    """Refuse a request for a longer run than the key allows.

    Raises:
        Conflict: `KEY_LIMIT_EXCEEDED`.
    """
    wanted = None if request.limits is None else request.limits.max_run_minutes
    most = None if limits is None else limits.max_run_minutes
    if most is not None and wanted is not None and wanted > most:
        raise _too_long(key_id, most, wanted)


def insist_on_number(connection: Connection, instance: Instance, limits: KeyLimits | None) -> None:
    """Refuse a new instance, which is stored already, if its key has too many with it.

    The key is locked first, so of many requests at once only those within the limit are accepted.

    Raises:
        Conflict: `KEY_LIMIT_EXCEEDED`.
    """
    most = None if limits is None else limits.max_instances
    if most is None or instance.created_by is None or instance.created_by.key_id is None:
        return
    key_id = instance.created_by.key_id
    api_keys.lock_one(connection, key_id)
    wanted = instances.count_of_key(connection, key_id)
    if wanted > most:
        raise exceeded(
            key_id,
            KeyLimit.MAX_INSTANCES,
            f"This API key may have {most} instance(s) at a time: delete one first",
            allowed=most,
            wanted=wanted,
        )


def insist_on_price(instance: Instance) -> None:
    """Refuse the start of an instance that now costs more than its key allows.

    Raises:
        Conflict: `KEY_LIMIT_EXCEEDED`.
    """
    most = None if instance.inherited is None else instance.inherited.max_hourly_price
    price = to_units(instance.current_hourly_price)
    if most is not None and price is not None and price > most:
        raise exceeded(
            _key_of(instance),
            KeyLimit.MAX_HOURLY_PRICE,
            f"Instance '{instance.id}' costs {usd(price):g} USD an hour, over the {usd(most):g} "
            "that the API key that created it allows",
            allowed=usd(most),
            wanted=usd(price),
        )


def insist_on_tags(connection: Connection, actor: Actor, instance: Instance, tags: Tags) -> None:
    """Refuse a change of tags that budgets name, by a key with limits.

    Raises:
        Conflict: `KEY_LIMIT_EXCEEDED`.
    """
    before = instance.tags
    changed = {name for name in {*before, *tags} if before.get(name) != tags.get(name)}
    if not changed or api_keys.limits_of(connection, actor.key_id) is None:
        return
    named = sorted(changed & budgets.tag_names(connection))
    if named:
        raise exceeded(
            actor.key_id,
            KeyLimit.TAGS,
            f"A budget names the tag '{named[0]}', which an API key with limits does not change",
            tags=named,
        )


def changed(
    connection: Connection,
    instance: Instance,
    change: LimitsChange | None,
    wanted: LimitSettings | None,
    key_ends_at: int | None,
    *,
    may_exceed: bool,
) -> InheritedLimits | None:
    """Return the inherited limits of an instance after its own limits are changed.

    An admin key moves the longest run that the instance inherits along with `maxRunMinutes` and
    `stopAt`; other keys stay within it.

    Args:
        connection: A transaction.
        instance: The instance before the change.
        change: The change; None removes all limits.
        wanted: Its own limits after the change.
        key_ends_at: When its present run must have ended by the inherited limits, if it must.
        may_exceed: Whether an admin key makes the change.

    Raises:
        Conflict: `KEY_LIMIT_EXCEEDED`.
    """
    inherited = instance.inherited
    if inherited is None or inherited.max_run_minutes is None:
        return inherited
    most, new = inherited.max_run_minutes, wanted or LimitSettings()
    minutes_given = change is None or "max_run_minutes" in change.fields
    stop_given = change is None or "stop_at" in change.fields
    if may_exceed:
        if minutes_given:
            key = api_keys.limits_of(connection, _key_of(instance))
            own = key.max_run_minutes if key and key.max_run_minutes else most
            inherited = replace(inherited, max_run_minutes=max(own, new.max_run_minutes or 0))
        return replace(inherited, until=new.stop_at) if stop_given else inherited
    if minutes_given and new.max_run_minutes is not None and new.max_run_minutes > most:
        raise _too_long(_key_of(instance), most, new.max_run_minutes)
    late = new.stop_at is not None and key_ends_at is not None and new.stop_at > key_ends_at
    if stop_given and late:
        raise beyond(instance)
    return inherited


def beyond(instance: Instance) -> Conflict:
    """Return the error for moving the stop of a run to after the longest run that is allowed."""
    inherited = instance.inherited or InheritedLimits()
    return exceeded(
        _key_of(instance),
        KeyLimit.MAX_RUN_MINUTES,
        f"Instance '{instance.id}' may run for {inherited.max_run_minutes} minute(s): the API key "
        "that created it allows no more, and only an admin key moves that",
        allowed=inherited.max_run_minutes,
    )


def rooms(
    connection: Connection, key_id: str | None, limits: KeyLimits | None, request: CreateRequest
) -> tuple[KeyRoom, ...]:
    """List the limits of a key, other than price and budget, and whether they allow a request."""
    if limits is None or key_id is None:
        return ()
    found = []
    if limits.max_instances is not None:
        wanted = instances.count_of_key(connection, key_id) + 1
        found.append(KeyRoom(KeyLimit.MAX_INSTANCES, limits.max_instances, wanted))
    if limits.max_run_minutes is not None:
        own = request.limits.max_run_minutes if request.limits else None
        wanted = limits.max_run_minutes if own is None else own
        found.append(KeyRoom(KeyLimit.MAX_RUN_MINUTES, limits.max_run_minutes, wanted))
    return tuple(found)


def _too_long(key_id: str | None, most: int, wanted: int) -> Conflict:
    return exceeded(
        key_id,
        KeyLimit.MAX_RUN_MINUTES,
        f"Maximum run minutes must be at most {most}, which is what the API key allows",
        allowed=most,
        wanted=wanted,
    )


def _key_of(instance: Instance) -> str | None:
    return instance.created_by.key_id if instance.created_by else None
