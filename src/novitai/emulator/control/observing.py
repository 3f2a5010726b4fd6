# SPDX-License-Identifier: Apache-2.0
"""What the emulator has seen: calls, counts, and all instances that ever were."""

from __future__ import annotations

import math
from itertools import islice
from typing import Annotated

from pydantic import Field

from novitai.emulator.calling import JsonObject
from novitai.emulator.calls import KEPT, Entry
from novitai.emulator.control.endpoint import Context, Endpoint, Given, Nothing, endpoint
from novitai.emulator.instances import Instance, Status, phase

PageSize = Annotated[int, Field(ge=1, le=20_000)]


class CallsQuery(Given):
    """Which calls to show: those after a number (`seq`), of a path, of a method."""

    path: str = ""
    method: str = ""
    since: Annotated[float, Field(ge=0)] = 0
    after: Annotated[int, Field(ge=0)] = 0
    limit: PageSize = 1000


def calls(context: Context, given: CallsQuery) -> JsonObject:
    """All calls received, oldest first; bounded, `total` counts those forgotten too."""
    log = context.emulator.calls
    found = (
        entry
        for entry in log.find(given.path, given.method.upper(), given.after)
        if entry.at >= given.since
    )
    return {
        "calls": [call_view(entry) for entry in islice(found, given.limit)],
        "total": log.total,
        "kept": KEPT,
    }


def counts(context: Context, _given: Nothing) -> JsonObject:
    """Number of calls per method and path."""
    log = context.emulator.calls
    rows = {f"{method} {path}": number for (method, path), number in sorted(log.counts.items())}
    return {"counts": rows, "total": log.total}


class InstancesQuery(Given):
    """Which instances to show."""

    name_prefix: str = ""
    live: bool | None = None
    account: str = ""
    limit: PageSize = 20_000
    offset: Annotated[int, Field(ge=0)] = 0


def instances(context: Context, given: InstancesQuery) -> JsonObject:
    """All instances ever created, oldest first, whatever became of them."""
    now = context.emulator.clock.now()
    matching = [
        each
        for each in context.emulator.ever()
        if each.name.startswith(given.name_prefix)
        and (not given.account or each.account == context.emulator.account_of(given.account))
        and (given.live is None or is_live(each, now) is given.live)
    ]
    return {
        "instances": [
            instance_view(each, now) for each in matching[given.offset : given.offset + given.limit]
        ],
        "total": len(matching),
        "live": sum(1 for each in matching if is_live(each, now)),
    }


def instance(context: Context, _given: Nothing) -> JsonObject:
    """One instance with its timeline."""
    found = context.instance()
    now = context.emulator.clock.now()
    return {
        **instance_view(found, now),
        "timeline": [{"at": step.at, "status": step.status} for step in found.steps],
        "envs": [{"key": key, "value": "***"} for key, _ in found.envs],
    }


def is_live(record: Instance, now: float) -> bool:
    """Whether the instance is not removed."""
    return phase(record, now).status is not Status.REMOVED


def instance_view(record: Instance, now: float) -> JsonObject:
    """An instance as the control side shows it; times are virtual Unix seconds."""
    seen = phase(record, now)
    return {
        "id": record.id,
        "name": record.name,
        "productId": record.product_id,
        "productName": record.product_name,
        "clusterId": record.cluster_id,
        "billingMode": record.billing_mode,
        "gpuNum": record.gpu_num,
        "imageUrl": record.image_url,
        "instancePrice": record.price,
        "status": seen.status,
        "spotStatus": seen.spot,
        "booted": seen.booted,
        "live": seen.status is not Status.REMOVED,
        "held": record.held,
        "starts": record.starts,
        "ports": [f"{port.port}/{port.type}" for port in record.ports],
        "createdAt": record.shown_created_at,
        "createdBy": record.created_by,
        "account": record.account,
        "deletedAt": _time(record.deleted_at),
        "deletedBy": record.deleted_by or None,
        "removedAt": _time(record.removed_at) if seen.status is Status.REMOVED else None,
        "nextChangeAt": _time(seen.until),
    }


def call_view(entry: Entry) -> JsonObject:
    """A call as the control side shows it."""
    return {
        "seq": entry.seq,
        "at": entry.at,
        "virtualAt": entry.virtual_at,
        "method": entry.method,
        "path": entry.path,
        "query": entry.query,
        "body": entry.body,
        "caller": entry.caller,
        "status": entry.status,
        "dropped": entry.status == 0,
        "durationMs": entry.duration_ms,
        "faults": entry.faults,
    }


def _time(at: float) -> float | None:
    return at if math.isfinite(at) else None


ENDPOINTS: list[Endpoint] = [
    endpoint("GET", "/calls", CallsQuery, calls),
    endpoint("GET", "/counts", Nothing, counts),
    endpoint("GET", "/instances", InstancesQuery, instances),
    endpoint("GET", "/instances/{id}", Nothing, instance),
]
