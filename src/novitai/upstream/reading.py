# SPDX-License-Identifier: Apache-2.0
"""From upstream's JSON to our dataclasses, tolerant of what may be missing or odd.

Plain functions and not models of a library: a listing may hold ten thousand rows.
A row that cannot be told apart (no id) is None; nothing else is ever an error here.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from novitai.upstream.models import (
    Cluster,
    Envs,
    Port,
    PortMapping,
    ProductOffer,
    SshAccess,
    StatusError,
    Template,
    Tool,
    UpstreamInstance,
)
from novitai.upstream.wire import (
    Json,
    Object,
    flag,
    integer,
    mapping,
    moment,
    objects,
    positive,
    text,
)

_MAX_ID = 255
_MAX_PORT = 65_535
_NO_ERROR = StatusError()
_SSH_PORT = 22
_SSH_OPTIONS_WITH_VALUE = frozenset("-" + letter for letter in "BbcDEeFIiJLlmOoQRSWw")


def identifier(value: Json) -> str:
    """Read an id; `""` where there is none that could be used."""
    found = text(value).strip()
    return found if len(found) <= _MAX_ID else ""


def cluster(row: Object) -> Cluster | None:
    """Read one cluster (docs/upstream.md §2)."""
    if not (cluster_id := identifier(row.get("id"))):
        return None
    return Cluster(
        id=cluster_id,
        name=text(row.get("name")),
    )


def product(row: Object) -> ProductOffer | None:
    """Read one product (docs/upstream.md §3.1)."""
    if not (product_id := identifier(row.get("id"))):
        return None
    return ProductOffer(
        id=product_id,
        name=text(row.get("name")),
        price=positive(row.get("price")),
        spot_price=positive(row.get("spotPrice")),
        cpu_per_gpu=integer(row.get("cpuPerGpu")),
        memory_per_gpu=integer(row.get("memoryPerGpu")),
        min_rootfs=integer(row.get("minRootFS")),
        max_rootfs=integer(row.get("maxRootFS")),
        available=flag(row.get("availableDeploy")) or False,
    )


def template(row: Object) -> Template | None:
    """Read one template (docs/upstream.md §10)."""
    if not (template_id := identifier(row.get("Id") or row.get("id"))):
        return None
    return Template(
        id=template_id,
        name=text(row.get("name")),
        channel=text(row.get("channel")),
        image=text(row.get("image")),
        image_auth=text(row.get("imageAuth")),
        start_command=text(row.get("startCommand")),
        entrypoint=text(row.get("entrypoint")),
        rootfs_size=positive(row.get("rootfsSize")),
        ports=_template_ports(row.get("ports")),
        envs=_envs(row.get("envs")),
        tools=_tools(row.get("tools")),
        min_cuda_version=text(row.get("minCudaVersion")),
    )


def instance(row: Object) -> UpstreamInstance | None:
    """Read one instance, of the list or by itself (docs/upstream.md §5.1)."""
    if not (instance_id := identifier(row.get("id"))):
        return None
    get = row.get
    ssh, ssh_password = _ssh(row)
    terminal = mapping(get("connectComponentWebTerminal"))
    return UpstreamInstance(
        id=instance_id,
        name=text(get("name")),
        status=text(get("status")),
        status_error=_status_error(get("statusError")),
        port_mappings=_port_mappings(get("portMappings")),
        ssh=ssh,
        ssh_password=ssh_password,
        jupyter_address=_address(mapping(get("connectComponentJupyter"))),
        web_terminal_address=_address(terminal),
        web_terminal_username=text(terminal.get("username")),
        web_terminal_password=text(terminal.get("password")),
        spot_status=text(get("spotStatus")),
        spot_reclaim_at=moment(get("spotReclaimTime")),
        name_readable=type(get("name")) is str,
        created_at=moment(get("createdAt")),
        product_id=identifier(get("productId")),
        gpu_num=positive(get("gpuNum")),
        image=text(get("imageUrl")),
        instance_price=positive(get("instancePrice")),
        billing_mode=text(get("billingMode")),
        cluster_id=identifier(get("clusterId")),
        cluster_name=text(get("clusterName")),
        product_name=text(get("productName")),
        rootfs_size=positive(get("rootfsSize")),
    )


def ssh_access(command: str) -> SshAccess | None:
    """Read `ssh -p PORT USER@HOST`, in any order, or `ssh://USER@HOST:PORT`."""
    target, port = "", _SSH_PORT
    words = iter(command.split())
    for word in words:
        if word == "ssh":
            continue
        if word.startswith("-p"):
            port = _port(word[2:] or next(words, "")) or 0
        elif word in _SSH_OPTIONS_WITH_VALUE:
            next(words, None)
        elif not word.startswith("-") and not target:
            target = word
    if target.startswith("ssh://"):
        return _ssh_uri(command, target)
    user, _, host = target.rpartition("@")
    if not host or not port:
        return None
    return SshAccess(command=command, host=host, port=port, user=user or "root")


def _ssh_uri(command: str, uri: str) -> SshAccess | None:
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port or _SSH_PORT
    except ValueError:
        return None
    if not host:
        return None
    return SshAccess(command=command, host=host, port=port, user=parts.username or "root")


def _ssh(row: Object) -> tuple[SshAccess | None, str]:
    nested = mapping(row.get("connectComponentSSH"))
    command = (
        text(nested.get("sshCommand")) or text(nested.get("command")) or text(row.get("sshCommand"))
    )
    password = (
        text(nested.get("password")) or text(row.get("sshPassword")) or text(row.get("password"))
    )
    return (ssh_access(command) if command else None), password


def _address(component: Object) -> str:
    return text(component.get("address")) or text(component.get("url"))


def _status_error(value: Json) -> StatusError:
    if type(value) is str:
        return StatusError(message=text(value)) if value else _NO_ERROR
    found = mapping(value)
    state, message = text(found.get("state")), text(found.get("message"))
    return StatusError(state, message) if state or message else _NO_ERROR


def _port(value: Json) -> int | None:
    number = integer(value)
    return number if number is not None and 0 < number <= _MAX_PORT else None


def _port_mappings(value: Json) -> tuple[PortMapping, ...]:
    return tuple(
        PortMapping(port=port, endpoint=text(row.get("endpoint")), type=text(row.get("type")))
        for row in objects(value)
        if (port := _port(row.get("port"))) is not None
    )


def _template_ports(value: Json) -> tuple[Port, ...]:
    found: list[Port] = []
    for group in objects(value):
        numbers = group.get("ports", group.get("port"))
        found += [
            Port(port=number, type=text(group.get("type")))
            for item in (numbers if type(numbers) is list else [numbers])
            if (number := _port(item)) is not None
        ]
    return tuple(found)


def _envs(value: Json) -> Envs:
    return tuple(
        (key, text(row.get("value"))) for row in objects(value) if (key := text(row.get("key")))
    )


def _tools(value: Json) -> tuple[Tool, ...]:
    return tuple(
        Tool(name=text(row.get("name")), port=port, type=text(row.get("type")))
        for row in objects(value)
        if (port := _port(row.get("port"))) is not None
    )
