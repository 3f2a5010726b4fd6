# SPDX-License-Identifier: Apache-2.0
"""Renders records as the API does: field sets, names and types of upstream.md §2 to §14.

64-bit numbers are strings, 32-bit numbers are numbers. In docs mode, these and `node` have the
documented types.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from novitai.emulator.billing import Kind
from novitai.emulator.calling import JsonObject
from novitai.emulator.catalogue import Cluster, CpuProduct, Product
from novitai.emulator.config import Settings
from novitai.emulator.instances import Instance, Phase, Status, secret
from novitai.emulator.listeners import made_up_port
from novitai.emulator.metering import FREE_STORAGE_GB, release_at
from novitai.emulator.resources import (
    Job,
    Network,
    Prewarm,
    RegistryAuth,
    Storage,
    Template,
)

USER = "5f0c1b7e"
"""The ID of the emulated user; bills use one ID per account (`user_of`)."""


PAY_AS_YOU_GO = 1
"""The `billingMethod` of usage-based bills."""

PRICE_PRECISION = 10
"""Prices of bills are multiples of 1/10000 USD divided by this."""

TcpEndpoint = Callable[[Instance, int], str]


def unix(at: float) -> str:
    """Return a time as the API writes it: Unix seconds in a string."""
    return str(int(at))


def user_of(account: str | None) -> str:
    """Return the user ID of an account; None means the one account that all keys share."""
    if account is None:
        return USER
    return hashlib.blake2b(account.encode(), digest_size=4).hexdigest()


def cluster(record: Cluster, gpu_types: list[str]) -> JsonObject:
    """Render a row of the cluster list."""
    return {
        "id": record.id,
        "name": record.name,
        "availableGpuType": gpu_types,
        "supportNetworkStorage": record.network_storage,
        "supportInstanceNetwork": record.instance_network,
    }


def product(record: Product, *, regions: list[str], available: bool, docs_mode: bool) -> JsonObject:
    """Render a row of the product list."""
    row: JsonObject = {
        "id": record.id,
        "name": record.name,
        "cpuPerGpu": record.cpu,
        "memoryPerGpu": record.memory,
        "diskPerGpu": record.disk,
        "availableDeploy": available,
        "canBuy": available,
        "minRootFS": record.min_rootfs,
        "maxRootFS": record.max_rootfs,
        "minLocalStorage": 0,
        "maxLocalStorage": 0,
        "regions": regions,
        "price": record.price if docs_mode else str(record.price),
        "monthlyPrice": [
            {"price": record.monthly_price if docs_mode else str(record.monthly_price), "month": 1}
        ]
        if record.monthly_price
        else [],
        "billingMethods": list(record.modes),
        "inventoryState": record.inventory if available else "none",
        "prices": [],
    }
    if record.spot_price is not None:
        row["spotPrice"] = record.spot_price if docs_mode else str(record.spot_price)
    return row


def cpu_product(record: CpuProduct, *, docs_mode: bool) -> JsonObject:
    """Render a row of the CPU product list."""
    return {
        "id": record.id,
        "name": record.name,
        "cpuNum": record.cpu,
        "memorySize": record.memory,
        "rootfsSize": record.rootfs,
        "localVolumeSize": record.volume,
        "availableDeploy": record.available,
        "price": record.price if docs_mode else str(record.price),
    }


def instance(
    record: Instance,
    seen: Phase,
    *,
    base_url: str,
    tcp_endpoint: TcpEndpoint,
    settings: Settings,
    started_at: float,
    stopped_at: float,
    jobs: list[Job] | None = None,
) -> JsonObject:
    """Render an instance as get and list show it (upstream.md §5.1).

    The settings decide which of the undocumented fields it has. `started_at` is when the billing
    of the latest run began.
    """
    docs_mode = settings.docs_mode
    running = seen.status is Status.RUNNING
    plan = record.spot
    announced = plan is not None and seen.spot in {"notified", "reclaiming", "terminated"}
    return {
        "id": record.id,
        "name": record.name,
        "clusterId": record.cluster_id,
        "clusterName": record.cluster_name,
        "status": seen.status,
        "imageUrl": record.image_url,
        "imageAuthId": record.image_auth_id,
        "command": record.command,
        "entrypoint": record.entrypoint,
        "cpuNum": str(record.cpu_num),
        "memory": str(record.memory),
        "gpuNum": str(record.gpu_num),
        "productId": record.product_id,
        "productName": record.product_name,
        "rootfsSize": record.rootfs_size,
        "portMappings": _port_mappings(record, base_url, tcp_endpoint) if running else [],
        "volumeMounts": [
            {
                "type": volume.type,
                "size": volume.size if docs_mode else str(volume.size),
                "id": volume.id,
                "mountPath": volume.mount_path,
            }
            for volume in record.volumes
        ],
        "statusError": {"state": seen.error.state, "message": seen.error.message},
        "network": {
            "id": record.network_id,
            "ip": _network_ip(record) if record.network_id else "",
        },
        "node": [{"maxRootfsSize": record.max_rootfs_size}]
        if docs_mode
        else {"maxRootfsSize": record.max_rootfs_size, "maxLocalVolumeSize": 0},
        "envs": [{"key": key, "value": value} for key, value in record.envs],
        "tools": [
            {"name": tool.name, "port": str(tool.port), "type": tool.type} for tool in record.tools
        ],
        "jobs": [{"id": job.id, "type": job.type} for job in jobs or ()],
        "kind": record.kind,
        "billingMode": record.billing_mode,
        "endTime": str(record.end_time),
        "spotStatus": seen.spot,
        "spotReclaimTime": unix(plan.reclaim_at) if plan is not None and announced else "0",
        **({"createdAt": unix(record.shown_created_at)} if settings.creation_times else {}),
        **(
            {"lastStartedAt": unix(started_at), "lastStoppedAt": unix(stopped_at)}
            if settings.start_stop_times
            else {}
        ),
        **({"instancePrice": str(record.price)} if settings.instance_prices else {}),
        "freeStorageSize": FREE_STORAGE_GB,
        "keepDataDay": settings.keep_data_days,
        **(
            {"releaseDataAt": unix(release_at(seen, settings.keep_data_days))}
            if settings.release_times
            else {}
        ),
        **(
            {}
            if settings.exited_storage_price is None
            else {"exitedLocalStoragePrice": str(settings.exited_storage_price)}
        ),
        **_connect_components(record, base_url, running=running, booted=seen.booted),
    }


def _port_mappings(record: Instance, base_url: str, tcp_endpoint: TcpEndpoint) -> list[JsonObject]:
    return [
        {
            "port": port.port,
            "endpoint": tcp_endpoint(record, port.port)
            if port.type == "tcp"
            else http_endpoint(record, port.port, base_url),
            "type": port.type,
        }
        for port in record.ports
    ]


def http_endpoint(record: Instance, port: int, base_url: str) -> str:
    """Return the URL of an HTTP port in the current run of an instance."""
    return f"{base_url}/_proxy/{record.id}/{port}/{record.starts}/"


def _connect_components(
    record: Instance, base_url: str, *, running: bool, booted: bool
) -> JsonObject:
    jupyter = next((tool for tool in record.tools if tool.name.lower() == "jupyter"), None)
    logs = f"{base_url}/_proxy/{record.id}/log"
    return {
        "connectComponentSSH": {
            "sshCommand": f"ssh -p {made_up_port(record, 'ssh')} root@127.0.0.1" if running else "",
            "password": secret(record, "ssh-password") if running else "",
            "isRunning": booted,
        },
        "connectComponentWebTerminal": {
            "address": http_endpoint(record, 2224, base_url) if running else "",
            "username": "root" if running else "",
            "password": secret(record, "terminal-password") if running else "",
            "isRunning": booted,
        },
        "connectComponentJupyter": {
            "port": jupyter.port if jupyter else 8888,
            "address": http_endpoint(record, jupyter.port, base_url) if jupyter and running else "",
            "isRunning": booted and jupyter is not None,
        },
        "connectComponentLog": {
            "systemLogAddress": f"{logs}/system",
            "instanceLogAddress": f"{logs}/instance",
            "isRunning": running,
        },
    }


def _network_ip(record: Instance) -> str:
    return f"10.0.{int(record.id[:2], 16)}.{int(record.id[2:4], 16) % 254 + 1}"


def template(record: Template) -> JsonObject:
    """Render a template; ports are grouped by protocol (upstream.md §10)."""
    kinds = dict.fromkeys(port.type for port in record.ports)
    return {
        "Id": record.id,
        "user": USER,
        "name": record.name,
        "readme": record.readme,
        "type": record.type,
        "channel": record.channel,
        "image": record.image,
        "imageAuth": record.image_auth,
        "startCommand": record.start_command,
        "entrypoint": record.entrypoint,
        "rootfsSize": record.rootfs_size,
        "ports": [
            {"type": kind, "ports": [each.port for each in record.ports if each.type == kind]}
            for kind in kinds
        ],
        "volumes": [
            {"type": kind, "size": size, "mountPath": path} for kind, size, path in record.volumes
        ],
        "envs": [{"key": key, "value": value} for key, value in record.envs],
        "tools": [
            {"name": name, "describe": describe, "port": port, "type": kind}
            for name, describe, port, kind in record.tools
        ],
        "createdAt": unix(record.created_at),
        "recommendCards": [],
        "minCudaVersion": record.min_cuda_version,
    }


def auth(record: RegistryAuth, *, masked: bool) -> JsonObject:
    """Render a registry auth; sources disagree on the password field (upstream.md §9)."""
    return {
        "id": record.id,
        "name": record.name,
        "username": record.username,
        "password": "**********" if masked else record.password,
    }


def storage(record: Storage, cluster_name: str) -> JsonObject:
    """Render a network storage."""
    return {
        "storageId": record.id,
        "storageName": record.name,
        "storageSize": record.size,
        "clusterId": record.cluster_id,
        "clusterName": cluster_name,
        "price": "100",
    }


def network(record: Network, now: float, members: list[Instance]) -> JsonObject:
    """Render a private network with its instances."""
    return {
        "Id": record.id,
        "user": USER,
        "name": record.name,
        "state": {"state": "ready" if now >= record.ready_at else "creating", "error": ""},
        "segment": record.segment,
        "clusterId": record.cluster_id,
        "Addresses": [{"Id": each.id, "Ip": _network_ip(each)} for each in members],
        "createTime": unix(record.created_at),
    }


def job(record: Job, now: float) -> JsonObject:
    """Render a job; the error message has both names in use (upstream.md §19)."""
    state = record.state(now)
    message = record.error if state == "fail" else ""
    return {
        "Id": record.id,
        "user": USER,
        "type": record.type,
        "envs": [],
        "state": {
            "state": state,
            "error": "JOB_FAILED" if message else "",
            "errorMessage": message,
            "message": message,
        },
        "logAddress": "",
        "createdAt": unix(record.created_at),
        "instanceId": record.instance_id,
    }


def prewarm(
    record: Prewarm, now: float, cluster_name: str, products: list[tuple[str, str]]
) -> JsonObject:
    """Render an image prewarm task."""
    state = record.state(now)
    return {
        "id": record.id,
        "imageName": record.image_url.rsplit("/", 1)[-1].split(":", 1)[0],
        "imageUrl": record.image_url,
        "repositoryAuth": record.auth_id,
        "clusterId": record.cluster_id,
        "clusterName": cluster_name,
        "products": [{"productId": one, "productName": name} for one, name in products],
        "imageSize": str(8_589_934_592),
        "createTime": unix(record.created_at),
        "state": state,
        "completeTime": unix(record.ends_at) if state == "Succeeded" else "0",
        "note": record.note,
        "reason": [],
    }


@dataclass(slots=True)
class BillRow:
    """A row of a list of bills; times are Unix seconds, amounts 1/10000 USD.

    Attributes:
        instance: None in a summary, which has one row per period and category.
        price: In 1/100000 USD per GPU-hour or GB-day.
        quantity_ms: GPUs or GB times milliseconds.
    """

    begin: int
    end: int
    instance: Instance | None
    kind: Kind
    price: int
    quantity_ms: int = 0
    amount: int = 0
    voucher: int = 0


def bill(row: BillRow, user: str) -> JsonObject:
    """Render a row of the list of bills; `endTime` is its last second.

    A price is in USD when it is divided by 10000 and by `pricePrecision`.
    """
    paid = row.amount - row.voucher
    return {
        "userId": user,
        "startTime": str(row.begin),
        "endTime": str(row.end - 1),
        "billingMethod": PAY_AS_YOU_GO,
        "productName": row.instance.product_name if row.instance else "",
        "category": row.kind,
        "ownerID": row.instance.id if row.instance else "",
        "billNum0": str(row.quantity_ms // 1000),
        "billNum1": "0",
        "basePrice0": str(row.price),
        "basePrice1": "0",
        "discountPrice0": str(row.price),
        "discountPrice1": "0",
        "amount": str(row.amount),
        "voucherAmount": str(row.voucher),
        "payAmount": str(paid),
        "payAmountDisplay": paid / 10_000,
        "pricePrecision": PRICE_PRECISION,
        "productId": row.instance.product_id if row.instance else "",
    }
