# SPDX-License-Identifier: Apache-2.0
"""Shows what the emulator has recorded: calls, counts, and all instances ever created."""

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
    """Selects calls: by path and method, after a number (`seq`), since a real time."""

    path: str = ""
    method: str = ""
    since: Annotated[float, Field(ge=0)] = 0
    after: Annotated[int, Field(ge=0)] = 0
    limit: PageSize = 1000


def calls(context: Context, given: CallsQuery) -> JsonObject:
    """List the latest calls, oldest first; `total` also counts those no longer kept."""
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
    """Count the calls per method and path."""
    log = context.emulator.calls
    rows = {f"{method} {path}": number for (method, path), number in sorted(log.counts.items())}
    return {"counts": rows, "total": log.total}


class InstancesQuery(Given):
    """Selects instances."""

    name_prefix: str = ""
    live: bool | None = None
    account: str = ""
    limit: PageSize = 20_000
    offset: Annotated[int, Field(ge=0)] = 0


def instances(context: Context, given: InstancesQuery) -> JsonObject:
    """List all instances ever created, oldest first, removed ones included."""
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
    """Show one instance with its timeline."""
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
    """Return an instance as the control API shows it; times are virtual Unix seconds."""
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
    """Return a call as the control API shows it."""
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
