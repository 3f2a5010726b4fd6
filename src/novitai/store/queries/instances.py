# SPDX-License-Identifier: Apache-2.0
"""Queries on `instances`. Rows are mapped by position, which is faster for lists of 10,000."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import Any, Final

import orjson
from sqlalchemy import Connection, and_, bindparam, func, or_, select, tuple_, update
from sqlalchemy import insert as insert_into
from sqlalchemy.sql import ColumnElement, Select

from novitai.domain.actor import Actor
from novitai.domain.idle import (
    AutoStop,
    AutoStopState,
    setting_from_json,
    setting_to_json,
)
from novitai.domain.instance import (
    ENDED,
    BillingMode,
    Instance,
    InstanceError,
    InstanceStatus,
    Observed,
    Origin,
    PortMapping,
)
from novitai.domain.limits import (
    InheritedLimits,
    LimitSettings,
    StopReason,
    inherited_from_json,
    inherited_to_json,
    limits_from_json,
    limits_to_json,
)
from novitai.domain.product import PRICE_UNITS_PER_USD, usd_or_none
from novitai.store.engine.chunks import chunks
from novitai.store.queries import instance_tags
from novitai.store.tables import Record
from novitai.store.tables import instances as table

SHOWN: Final = tuple(
    column
    for column in table.c
    if column.name
    not in {
        "launch_sealed",
        "obs_credentials_sealed",
        "obs_digest",
        "cluster_id",
        "first_ready_at",
        "identity_told_at",
        "deleted_again",
        "late_call",
        "late_call_at",
        "obs_unmarked_count",
        "limit_memory",
        "limit_fired_at",
        "review_due_at",
        "auto_stop_memory",
        "sample_due_at",
        "changed_in",
        "removed_at",
    }
)
"""The columns of `Instance`: not the sealed ones, nor those that only sync, estimates or the review
of limits read."""
NOT_MISSING: Final[Mapping[str, object]] = {
    "obs_gone": False,
    "obs_missing_since": None,
    "obs_missing_count": 0,
    "obs_unlisted_since": None,
    "obs_unlisted_count": 0,
}
"""The values of the columns for an instance that is not missing from the account."""
NO_ERROR: Final[Mapping[str, object]] = {
    "error_code": None,
    "error_message": None,
    "error_at": None,
}
"""The values of the error columns for an instance without an error."""
_AT: Final = {column.name: index for index, column in enumerate(SHOWN)}
# Built once, because building a statement costs more than running it.
_ONE: Final = select(*SHOWN).where(table.c.id == bindparam("wanted"), table.c.removed_at.is_(None))
_ONE_LOCKED: Final = _ONE.with_for_update(key_share=True)
_MANY: Final = (
    select(*SHOWN).where(table.c.id.in_(bindparam("wanted", expanding=True))).order_by(table.c.id)
)
_MANY_LOCKED: Final = _MANY.with_for_update(key_share=True)
_INSERT: Final = insert_into(table)
_UPDATE: Final = update(table).where(table.c.id == bindparam("wanted"))
_UPDATE_MANY: Final = update(table).where(table.c.id.in_(bindparam("wanted", expanding=True)))
_LAUNCH: Final = select(table.c.launch_sealed).where(table.c.id == bindparam("wanted"))
_OWNER: Final = select(table.c.id).where(
    table.c.upstream_id == bindparam("wanted"), table.c.status.not_in(ENDED)
)
_COUNT_IN_TRANSITION: Final = (
    select(func.count())
    .select_from(table)
    .where(
        table.c.status.in_(
            [
                InstanceStatus.CREATING.value,
                InstanceStatus.STARTING.value,
                InstanceStatus.STOPPING.value,
                InstanceStatus.MIGRATING.value,
                InstanceStatus.TERMINATING.value,
            ]
        )
    )
)
_READY: Final = (
    select(table.c.created_at, table.c.first_ready_at)
    .where(table.c.product_name == bindparam("product"), table.c.first_ready_at.is_not(None))
    .order_by(table.c.created_at.desc())
    .limit(bindparam("most"))
)


def error_columns(code: str, message: str, now: int) -> dict[str, object]:
    """Return the values of the error columns; `now` is in Unix milliseconds."""
    return {"error_code": code, "error_message": message, "error_at": now}


@dataclass(frozen=True, slots=True)
class Tracked:
    """The columns of a live row that sync compares with a listing."""

    id: str
    upstream_id: str
    digest: str | None
    obs_at: int | None
    acted_at: int | None
    missing_since: int | None
    missing_count: int
    unlisted_since: int | None = None
    unlisted_count: int = 0
    unmarked_count: int = 0
    status: InstanceStatus = InstanceStatus.RUNNING
    obs_status: str | None = None
    confirmed_at: int | None = 0
    bought_at: int | None = None
    identity_told_at: int | None = None
    gpu_num: int = 1
    origin: Origin = Origin.CREATED
    upstream_created_at: int | None = None


@dataclass(frozen=True, slots=True)
class Former:
    """A record that has ended, or whose instance was proven gone, though a listing shows it."""

    id: str
    name: str
    upstream_id: str
    status: InstanceStatus
    origin: Origin
    error_code: str | None
    ended_at: int
    upstream_created_at: int | None
    deleted_again: int


@dataclass(frozen=True, slots=True)
class Filter:
    """The conditions for a list of instances; all that are set must be met.

    `tags` are names with values, all of which an instance must have.
    """

    status: InstanceStatus | None = None
    region: str | None = None
    name: str | None = None
    include_terminated: bool = False
    tags: tuple[tuple[str, str], ...] = ()


def insert(connection: Connection, instance: Instance, launch_sealed: bytes) -> None:
    """Insert an instance with the sealed launch specification for its purchase."""
    by = instance.created_by
    connection.execute(
        _INSERT,
        {
            "id": instance.id,
            "name": instance.name,
            "status": instance.status.value,
            "product_name": instance.product_name,
            "template_id": instance.template_id,
            "gpu_num": instance.gpu_num,
            "rootfs_size": instance.rootfs_size,
            "region": instance.region,
            "billing_mode": instance.billing_mode.value,
            "created_at": instance.created_at,
            "updated_at": instance.updated_at,
            "region_fallback": instance.region_fallback,
            "max_hourly_price": to_units(instance.max_hourly_price),
            "quote_id": instance.quote_id,
            "webhook_url": instance.webhook_url,
            "limits": dump_limits(instance.limits),
            "inherited_limits": dump_inherited(instance.inherited),
            "protected_reason": instance.protected_reason,
            "auto_stop": dump_auto_stop(instance.auto_stop),
            "launch_sealed": launch_sealed,
            "tags": instance_tags.dump(instance.tags),
            "created_by_key_id": by.key_id if by else None,
            "created_by_name": by.name if by else None,
        },
    )
    instance_tags.insert(connection, instance.id, instance.tags, created_at=instance.created_at)


def load(connection: Connection, instance_id: str) -> Instance | None:
    """Load an instance; None if it does not exist or was removed."""
    row = connection.execute(_ONE, {"wanted": instance_id}).first()
    return None if row is None else from_row(row)


def lock(connection: Connection, instance_id: str) -> Instance | None:
    """Load an instance and lock its row until the transaction ends; None as for `load`.

    To avoid deadlocks, each transaction that writes an instance and its operation locks the
    instance first.
    """
    row = connection.execute(_ONE_LOCKED, {"wanted": instance_id}).first()
    return None if row is None else from_row(row)


def load_many(connection: Connection, ids: Sequence[str]) -> dict[str, Instance]:
    """Load instances by ID; those that do not exist are left out."""
    return _by_id(connection, ids, _MANY)


def lock_many(connection: Connection, ids: Sequence[str]) -> dict[str, Instance]:
    """Load instances and lock their rows, in the order of their IDs to avoid deadlocks."""
    return _by_id(connection, ids, _MANY_LOCKED)


def _by_id(
    connection: Connection, ids: Sequence[str], query: Select[*tuple[Any, ...]]
) -> dict[str, Instance]:
    found: dict[str, Instance] = {}
    ordered = sorted(ids)
    for chunk in chunks(ordered):
        rows = connection.execute(query, {"wanted": chunk})
        found.update((row[_AT["id"]], from_row(row)) for row in rows)
    return found


def update_observed(connection: Connection, observed: Mapping[str, Mapping[str, object]]) -> None:
    """Set observed columns of many instances, by ID; all must set the same columns."""
    if not observed:
        return
    connection.execute(_UPDATE, [{"wanted": one, **observed[one]} for one in sorted(observed)])


def owner_of(connection: Connection, upstream_id: str) -> str | None:
    """Return the ID of the live instance with an upstream ID; None if there is none."""
    return connection.execute(_OWNER, {"wanted": upstream_id}).scalar_one_or_none()


def load_launch(connection: Connection, instance_id: str) -> bytes:
    """Load the sealed launch specification of an instance that exists."""
    return bytes(connection.execute(_LAUNCH, {"wanted": instance_id}).scalar_one())


def load_launches(connection: Connection, instance_ids: Sequence[str]) -> dict[str, bytes]:
    """Load the sealed launch specifications by instance ID; missing instances are left out."""
    if not instance_ids:
        return {}
    rows = connection.execute(
        select(table.c.id, table.c.launch_sealed).where(table.c.id.in_(instance_ids))
    )
    return {instance_id: bytes(sealed) for instance_id, sealed in rows}


def load_credentials(connection: Connection, instance_id: str) -> bytes | None:
    """Load the sealed credentials of an instance; None if none were observed."""
    return connection.execute(
        select(table.c.obs_credentials_sealed).where(table.c.id == instance_id)
    ).scalar_one_or_none()


def statuses(connection: Connection, instance_ids: Sequence[str]) -> dict[str, InstanceStatus]:
    """Load the statuses of many instances, by ID; those that do not exist are left out."""
    found: dict[str, InstanceStatus] = {}
    for chunk in chunks(instance_ids):
        rows = connection.execute(select(table.c.id, table.c.status).where(table.c.id.in_(chunk)))
        found.update((row[0], InstanceStatus(row[1])) for row in rows)
    return found


def live_ids(connection: Connection) -> list[str]:
    """List the IDs of all instances that have not ended."""
    return list(
        connection.execute(
            select(table.c.id).where(table.c.status.not_in(ENDED)).order_by(table.c.id)
        ).scalars()
    )


def count_of_key(connection: Connection, key_id: str) -> int:
    """Count the instances that a key has created and that have not ended.

    An instance that failed without an upstream instance does not count.
    """
    nothing = and_(table.c.status == InstanceStatus.FAILED.value, table.c.upstream_id.is_(None))
    return connection.execute(
        select(func.count())
        .select_from(table)
        .where(table.c.created_by_key_id == key_id, table.c.status.not_in(ENDED), ~nothing)
    ).scalar_one()


def update_columns(connection: Connection, instance_id: str, values: Mapping[str, object]) -> None:
    """Set columns by name. The caller must be their writer (see `tables`) and hold the row lock."""
    connection.execute(_UPDATE, {"wanted": instance_id, **values})


def update_columns_of(
    connection: Connection, instance_ids: Sequence[str], values: Mapping[str, object]
) -> None:
    """Set columns of many instances. The caller must be their writer and hold the row locks."""
    for chunk in chunks(instance_ids):
        connection.execute(_UPDATE_MANY, {"wanted": chunk, **values})


def forget_digests(connection: Connection, instance_ids: Sequence[str]) -> None:
    """Let the next listing write the rows of these instances even if they are unchanged."""
    for chunk in chunks(instance_ids):
        known = table.c.id.in_(chunk), table.c.obs_digest.is_not(None)
        connection.execute(update(table).where(*known).values(obs_digest=None))


def tracked(connection: Connection) -> list[Tracked]:
    """List every live row with an upstream instance that is not gone, ordered by ID."""
    rows = connection.execute(
        select(
            table.c.id,
            table.c.upstream_id,
            table.c.obs_digest,
            table.c.obs_at,
            table.c.acted_at,
            table.c.obs_missing_since,
            table.c.obs_missing_count,
            table.c.obs_unlisted_since,
            table.c.obs_unlisted_count,
            table.c.obs_unmarked_count,
            table.c.status,
            table.c.obs_status,
            table.c.confirmed_at,
            table.c.bought_at,
            table.c.identity_told_at,
            table.c.gpu_num,
            table.c.origin,
            table.c.upstream_created_at,
        )
        .where(table.c.upstream_id.is_not(None), table.c.status.not_in(ENDED), ~table.c.obs_gone)
        .order_by(table.c.id)
    )
    return [_tracked(row) for row in rows]


def _tracked(row: Record) -> Tracked:
    """Map a row; its columns have the order of the fields."""
    fields = list(row)
    fields[10], fields[16] = InstanceStatus(row[10]), Origin(row[16])
    return Tracked(*fields)


def former_of(connection: Connection, upstream_ids: Sequence[str]) -> dict[str, Former]:
    """Find the former records of these instances: ended, or their instance was proven gone.

    If an instance has several, the result is the one that ended last.
    """
    found: dict[str, Former] = {}
    for chunk in chunks(upstream_ids):
        rows = connection.execute(
            select(
                table.c.id,
                table.c.name,
                table.c.upstream_id,
                table.c.status,
                table.c.origin,
                table.c.error_code,
                func.coalesce(table.c.released_at, table.c.terminated_at, table.c.updated_at),
                table.c.upstream_created_at,
                table.c.deleted_again,
            ).where(
                table.c.upstream_id.in_(chunk),
                or_(table.c.status.in_(ENDED), table.c.obs_gone),
            )
        )
        for row in rows:
            one = Former(*row[:3], InstanceStatus(row[3]), Origin(row[4]), *row[5:])
            before = found.get(one.upstream_id)
            if before is None or before.ended_at <= one.ended_at:
                found[one.upstream_id] = one
    return found


def late_call(connection: Connection, instance_id: str) -> tuple[str, int] | None:
    """Read which call was sent after its claim had ended, and when; None if none was."""
    row = connection.execute(
        select(table.c.late_call, table.c.late_call_at).where(table.c.id == instance_id)
    ).first()
    return None if row is None or row[0] is None else (row[0], row[1])


def count_in_transition(connection: Connection) -> int:
    """Count the instances in a transitional status."""
    return connection.execute(_COUNT_IN_TRANSITION).scalar_one()


def ready_durations(connection: Connection, product_name: str, limit: int) -> list[int]:
    """List how long the last `limit` instances of a product took to be ready, in milliseconds."""
    rows = connection.execute(_READY, {"product": product_name, "most": limit})
    return [ready_at - created_at for created_at, ready_at in rows]


def page(
    connection: Connection, wanted: Filter, *, after: tuple[int, str] | None, limit: int
) -> list[Instance]:
    """List instances that meet a filter, newest first, after the (created_at, id) of a cursor."""
    query = select(*SHOWN).where(*conditions(wanted))
    created_at, instance_id = place(wanted)
    if after is not None:
        query = query.where(tuple_(created_at, instance_id) < after)
    query = query.order_by(created_at.desc(), instance_id.desc()).limit(limit)
    return [from_row(row) for row in connection.execute(query)]


def count(connection: Connection, wanted: Filter) -> int:
    """Count the instances that meet a filter."""
    return connection.execute(
        select(func.count()).select_from(table).where(*conditions(wanted))
    ).scalar_one()


def conditions(wanted: Filter) -> Sequence[ColumnElement[bool]]:
    """Return the conditions of a filter."""
    found: list[ColumnElement[bool]] = []
    if wanted.status is not None:
        found.append(table.c.status == wanted.status.value)
    if wanted.include_terminated:
        found.append(table.c.removed_at.is_(None))
    else:
        found.append(table.c.status.not_in(ENDED))
    if wanted.region is not None:
        found.append(func.lower(table.c.region) == wanted.region.lower())
    if wanted.name is not None:
        found.append(table.c.name == wanted.name)
    if wanted.tags:
        found += instance_tags.having(wanted.tags)
    return found


def place(wanted: Filter) -> tuple[ColumnElement[int], ColumnElement[str]]:
    """Return the columns by which the list of a filter is sorted, those of its index."""
    return instance_tags.place() if wanted.tags else (table.c.created_at, table.c.id)


def to_units(price: float | None) -> int | None:
    """Convert USD to the stored unit of 1/100000 USD."""
    # Rounded down, so that a price limit is never raised; 1e-6 offsets the error of the float.
    return None if price is None else floor(price * PRICE_UNITS_PER_USD + 1e-6)


def from_row(row: Record) -> Instance:
    """Map a row that begins with the columns `SHOWN` to an instance."""
    return Instance(
        id=row[_AT["id"]],
        name=row[_AT["name"]],
        status=InstanceStatus(row[_AT["status"]]),
        product_name=row[_AT["product_name"]],
        template_id=row[_AT["template_id"]],
        gpu_num=row[_AT["gpu_num"]],
        rootfs_size=row[_AT["rootfs_size"]],
        region=row[_AT["region"]],
        billing_mode=BillingMode(row[_AT["billing_mode"]]),
        created_at=row[_AT["created_at"]],
        updated_at=row[_AT["updated_at"]],
        product_id=row[_AT["product_id"]],
        region_fallback=row[_AT["region_fallback"]],
        max_hourly_price=usd_or_none(row[_AT["max_hourly_price"]]),
        quote_id=row[_AT["quote_id"]],
        hourly_price=usd_or_none(row[_AT["hourly_price"]]),
        webhook_url=row[_AT["webhook_url"]],
        upstream_id=row[_AT["upstream_id"]],
        bought_at=row[_AT["bought_at"]],
        ever_ran=row[_AT["ever_ran"]],
        ready_at=row[_AT["ready_at"]],
        started_at=row[_AT["started_at"]],
        stopped_at=row[_AT["stopped_at"]],
        terminated_at=row[_AT["terminated_at"]],
        last_used_at=row[_AT["last_used_at"]],
        acted_at=row[_AT["acted_at"]],
        failed=row[_AT["failed"]],
        origin=Origin(row[_AT["origin"]]),
        confirmed_at=row[_AT["confirmed_at"]],
        upstream_created_at=row[_AT["upstream_created_at"]],
        released_at=row[_AT["released_at"]],
        error=_error(row),
        observed=_observed(row),
        limits=_limits(row[_AT["limits"]]),
        inherited=_inherited(row[_AT["inherited_limits"]]),
        protected_reason=row[_AT["protected_reason"]],
        stops_at=row[_AT["stops_at"]],
        stop_reason=_stop_reason(row[_AT["stop_reason"]]),
        unenforced=row[_AT["unenforced"]],
        auto_stop=_auto_stop(row[_AT["auto_stop"]]),
        auto_stop_state=AutoStopState(row[_AT["auto_stop_state"]]),
        auto_stops_at=row[_AT["auto_stops_at"]],
        tags=instance_tags.load(row[_AT["tags"]]),
        created_by=_created_by(row),
    )


def _created_by(row: Record) -> Actor | None:
    key_id = row[_AT["created_by_key_id"]]
    return None if key_id is None else Actor(key_id, row[_AT["created_by_name"]])


def _error(row: Record) -> InstanceError | None:
    code = row[_AT["error_code"]]
    if code is None:
        return None
    return InstanceError(code, row[_AT["error_message"]], row[_AT["error_at"]])


def _observed(row: Record) -> Observed:
    return Observed(
        status=row[_AT["obs_status"]],
        at=row[_AT["obs_at"]],
        error=row[_AT["obs_error"]],
        port_mappings=_mappings(row[_AT["obs_port_mappings"]]),
        ssh=row[_AT["obs_ssh"]],
        jupyter=row[_AT["obs_jupyter"]],
        web_terminal=row[_AT["obs_web_terminal"]],
        spot_status=row[_AT["obs_spot_status"]],
        spot_reclaim_at=row[_AT["obs_spot_reclaim_at"]],
        hourly_price=usd_or_none(row[_AT["obs_hourly_price"]]),
        missing_since=row[_AT["obs_missing_since"]],
        missing_count=row[_AT["obs_missing_count"]],
        unlisted_since=row[_AT["obs_unlisted_since"]],
        unlisted_count=row[_AT["obs_unlisted_count"]],
        gone=row[_AT["obs_gone"]],
        run_began_at=row[_AT["obs_run_began_at"]],
        exited_at=row[_AT["obs_exited_at"]],
        purge_at=row[_AT["obs_purge_at"]],
    )


def _mappings(text: str) -> tuple[PortMapping, ...]:
    if text == "[]":
        return ()
    return tuple(PortMapping(*mapping) for mapping in orjson.loads(text))


def dump_mappings(mappings: Sequence[PortMapping]) -> str:
    """Serialize port mappings for the column `obs_port_mappings`."""
    return orjson.dumps([[m.port, m.endpoint, m.type] for m in mappings]).decode()


def dump_limits(limits: LimitSettings | None) -> str | None:
    """Serialize limits for the column `limits`."""
    return None if limits is None else orjson.dumps(limits_to_json(limits)).decode()


def _limits(text: str | None) -> LimitSettings | None:
    return None if text is None else limits_from_json(orjson.loads(text))


def dump_inherited(limits: InheritedLimits | None) -> str | None:
    """Serialize limits for the column `inherited_limits`."""
    return None if limits is None else orjson.dumps(inherited_to_json(limits)).decode()


def _inherited(text: str | None) -> InheritedLimits | None:
    return None if text is None else inherited_from_json(orjson.loads(text))


def dump_auto_stop(auto_stop: AutoStop | None) -> str | None:
    """Serialize a setting for the column `auto_stop`."""
    return None if auto_stop is None else orjson.dumps(setting_to_json(auto_stop)).decode()


def _auto_stop(text: str | None) -> AutoStop | None:
    return None if text is None else setting_from_json(orjson.loads(text))


def _stop_reason(word: str | None) -> StopReason | None:
    """Read a stored reason; one that a newer process wrote counts as absent."""
    return next((one for one in StopReason if one.value == word), None)
