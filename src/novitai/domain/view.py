# SPDX-License-Identifier: Apache-2.0
"""Render the view: an instance as the API, the event log and webhooks show it.

It never contains passwords, `envs` or user info of URLs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

from novitai.clock import iso
from novitai.domain.actor import Actor
from novitai.domain.billing import Cost, usd_down, usd_up
from novitai.domain.instance import Instance, InstanceError, Origin
from novitai.domain.instance_details import (
    AutoStopView,
    ConnectionDetails,
    CostView,
    CreatedBy,
    InstanceDetails,
    InstanceErrorView,
    LimitsView,
    RunningOperation,
)
from novitai.domain.limits import LimitSettings
from novitai.domain.operation import Operation
from novitai.domain.product import usd_or_none
from novitai.urls import masked_login

T = TypeVar("T", bound=Mapping[str, object])


def view(
    instance: Instance,
    operation: Operation | None,
    observed_at: int | None = None,
    cost: Cost | None = None,
) -> InstanceDetails:
    """Return the view of an instance (API reference, "InstanceDetails").

    Args:
        instance: The record.
        operation: Its unfinished operation, if any.
        observed_at: When Novita last showed it, in Unix milliseconds.
        cost: Its costs.
    """
    protected = instance.protected_reason
    shown: InstanceDetails = {
        "id": instance.id,
        "name": instance.name,
        "status": instance.status,
        "gpuNum": instance.gpu_num,
        "region": instance.region,
        "portMappings": [
            {"port": mapping.port, "endpoint": mapping.endpoint, "type": mapping.type}
            for mapping in instance.observed.port_mappings
        ],
        "connectionDetails": _connection(instance),
        "createdAt": iso(instance.created_at),
        "readyAt": iso_or_none(instance.ready_at),
        "productName": instance.product_name,
        "productId": instance.product_id,
        "templateId": instance.template_id or None,
        "rootfsSize": instance.rootfs_size or None,
        "billingMode": instance.billing_mode,
        "hourlyPrice": instance.current_hourly_price,
        "tags": dict(instance.tags),
        "createdBy": _created_by(instance.created_by),
        "webhookUrl": masked_login(instance.webhook_url) if instance.webhook_url else None,
        "startedAt": iso_or_none(instance.started_at),
        "stoppedAt": iso_or_none(instance.stopped_at),
        "lastUsedAt": iso_or_none(instance.last_used_at),
        "spotReclaimAt": iso_or_none(instance.observed.spot_reclaim_at),
        "upstreamId": instance.upstream_id,
        "upstreamStatus": None if instance.status.ended else instance.observed.status,
        "origin": Origin.ADOPTED if instance.origin is Origin.ADOPTED else None,
        "limits": _limits(instance.limits),
        "autoStop": _auto_stop(instance),
        "protected": {"reason": protected} if protected is not None else None,
        "stopsAt": None if instance.status.ended else iso_or_none(instance.stops_at),
        "stopReason": instance.stop_reason,
        "unenforced": (instance.unenforced and not instance.status.ended) or None,
        "operation": _operation(operation),
        "error": _error(instance.error),
        "observedAt": iso_or_none(observed_at),
        "cost": None if cost is None else cost_view(cost),
    }
    return present(shown)


def cost_view(cost: Cost) -> CostView:
    """Return what a record costs, as the API shows it: bounds in USD, rounded outwards.

    If the price is unknown, the amounts are left out.
    """
    known = not cost.unknown
    shown: CostView = {
        "currency": "USD",
        "hourlyPrice": cost.hourly_price if known else None,
        "accrued": usd_down(cost.least) if known else None,
        "accruedAtMost": usd_up(cost.most) if known else None,
        "asOf": iso(cost.as_of),
        "costSince": iso_or_none(cost.since),
        "unknown": None if known else True,
    }
    return present(shown)


def present(shown: T) -> T:
    """Leave out absent values; the API never shows them as `null`."""
    return cast("T", {name: value for name, value in shown.items() if value is not None})


def iso_or_none(at: int | None) -> str | None:
    """Format Unix milliseconds as `iso` does; None stays None."""
    return None if at is None else iso(at)


def _connection(instance: Instance) -> ConnectionDetails | None:
    observed = instance.observed
    details: ConnectionDetails = {
        "ssh": observed.ssh or None,
        "jupyter": observed.jupyter or None,
        "webTerminal": observed.web_terminal or None,
    }
    return present(details) or None


def _limits(limits: LimitSettings | None) -> LimitsView | None:
    if limits is None:
        return None
    shown: LimitsView = {
        "maxSpend": usd_or_none(limits.max_spend),
        "maxRunMinutes": limits.max_run_minutes,
        "stopAt": iso_or_none(limits.stop_at),
        "onLimit": limits.on_limit,
        "deleteAfterStoppedMinutes": limits.delete_after_stopped_minutes,
    }
    return present(shown)


def _auto_stop(instance: Instance) -> AutoStopView | None:
    setting = instance.auto_stop
    if setting is None:
        return None
    shown: AutoStopView = {
        "idleMinutes": setting.idle_minutes,
        "signals": list(setting.signals),
        "gpuBelowPercent": setting.gpu_below_percent,
        "action": setting.action,
        "warnMinutes": setting.warn_minutes,
        "state": instance.auto_stop_state,
        "stopsAt": None if instance.status.ended else iso_or_none(instance.auto_stops_at),
    }
    return present(shown)


def _operation(operation: Operation | None) -> RunningOperation | None:
    if operation is None:
        return None
    return {"id": operation.id, "kind": operation.kind, "phase": operation.phase}


def _error(error: InstanceError | None) -> InstanceErrorView | None:
    if error is None:
        return None
    return {"code": error.code, "message": error.message, "at": iso(error.at)}


def _created_by(actor: Actor | None) -> CreatedBy | None:
    return None if actor is None else {"keyId": actor.key_id or "", "name": actor.name or ""}
