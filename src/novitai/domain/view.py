# SPDX-License-Identifier: Apache-2.0
"""The view: an instance as the API, the event log and webhooks show it.

Absent optional values are left out. It never contains passwords, `envs` or user info of URLs.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

from novitai.clock import iso
from novitai.domain.instance import Instance, Origin
from novitai.domain.operation import Operation

View = dict[str, object]


def view(instance: Instance, operation: Operation | None, observed_at: int | None = None) -> View:
    """Return the view of an instance (API reference, "InstanceDetails").

    Args:
        instance: The record.
        operation: Its unfinished operation, if any.
        observed_at: When Novita last showed it, in Unix milliseconds.
    """
    return present(
        {
            "id": instance.id,
            "name": instance.name,
            "status": instance.status.value,
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
            "billingMode": instance.billing_mode.value,
            "hourlyPrice": instance.current_hourly_price,
            "webhookUrl": masked_url(instance.webhook_url) if instance.webhook_url else None,
            "startedAt": iso_or_none(instance.started_at),
            "stoppedAt": iso_or_none(instance.stopped_at),
            "lastUsedAt": iso_or_none(instance.last_used_at),
            "spotReclaimAt": iso_or_none(instance.observed.spot_reclaim_at),
            "upstreamId": instance.upstream_id,
            "upstreamStatus": None if instance.status.ended else instance.observed.status,
            "origin": instance.origin.value if instance.origin is Origin.ADOPTED else None,
            "operation": _operation(operation),
            "error": _error(instance),
            "observedAt": iso_or_none(observed_at),
        }
    )


def present(shown: Mapping[str, object | None]) -> View:
    """Leave out absent values; the API never shows them as `null`."""
    return {name: value for name, value in shown.items() if value is not None}


def iso_or_none(at: int | None) -> str | None:
    """Format Unix milliseconds as `iso` does; None stays None."""
    return None if at is None else iso(at)


def masked_url(url: str) -> str:
    """Replace the user name and password of a URL, if any, by `***`."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]))


def _connection(instance: Instance) -> dict[str, str] | None:
    observed = instance.observed
    details = {
        "ssh": observed.ssh,
        "jupyter": observed.jupyter,
        "webTerminal": observed.web_terminal,
    }
    return {name: value for name, value in details.items() if value} or None


def _operation(operation: Operation | None) -> dict[str, str] | None:
    if operation is None:
        return None
    return {"id": operation.id, "kind": operation.kind.value, "phase": operation.phase}


def _error(instance: Instance) -> dict[str, str] | None:
    if instance.error is None:
        return None
    error = instance.error
    return {"code": error.code, "message": error.message, "at": iso(error.at)}
