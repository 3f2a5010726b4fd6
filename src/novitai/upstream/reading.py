# SPDX-License-Identifier: Apache-2.0
"""Converts upstream's JSON to dataclasses; missing and malformed values are tolerated.

Plain functions rather than a validation library, for speed: a listing may have 10,000 rows. A row
without an ID is read as None; nothing else counts as an error here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from sys import intern

from novitai.domain import outside
from novitai.upstream.models import (
    MAX_MESSAGE,
    MAX_STATE,
    Envs,
    ProductOffer,
    SshAccess,
    UpstreamBill,
    UpstreamCluster,
    UpstreamInstance,
    UpstreamPort,
    UpstreamPortMapping,
    UpstreamStatusError,
    UpstreamTemplate,
    UpstreamTool,
    UpstreamUtilization,
    UtilizationPoint,
)
from novitai.upstream.wire import (
    Json,
    Object,
    flag,
    integer,
    mapping,
    moment,
    moment_or_never,
    objects,
    positive,
    quantity,
    secret,
    text,
    verbatim,
)

_MAX_ID = 255
_MAX_WORD = 64
# Secrets are removed from this many characters of a message before it is cut.
_MAX_READ = 65_536
_MAX_PORT = 65_535
_MAX_GPUS = 10_000
# 100,000 USD an hour. A higher price counts as absent, so that sums of prices cannot overflow.
_MAX_PRICE = 10_000_000_000
_MAX_GB = 1_000_000
# 10,000,000 USD for an hour. A higher amount cannot be right.
_MAX_BILL = 100_000_000_000
_HOUR_MS = 3_600_000
_MAX_KEEP_DAYS = 3_650
# These limits exceed those of Novita (§4), which refuses a longer value: 2,047 characters for a
# command, 500 for an image, 511 and 4,095 for a variable's name and value, 100 variables and 15
# ports. So a value that is cut here is still refused, and never launched in its cut form.
_MAX_LAUNCH_TEXT = 8_192
_MAX_IMAGE = 1_000
_MAX_ENVS = 200
_MAX_POINTS = 5_000
_MAX_METERED_GPUS = 64
# Novita does not say whether several CPU cores together may exceed 100.
_MAX_PERCENT = 100_000.0
METRICS = frozenset(
    {
        "cpuUtilization",
        "memUtilization",
        "rootDiskUtilization",
        "gpuUtilization",
        "gpuMemUtilization",
    }
)
"""The fields of a response with metrics (upstream.md §14)."""
_MAX_PORTS = 32
_NO_ERROR = UpstreamStatusError()
_SSH_PORT = 22
_SSH_OPTIONS_WITH_VALUE = frozenset("-" + letter for letter in "BbcDEeFIiJLlmOoQRSWw")
_SSH_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")
_MAX_SSH_COMMAND = 2_048
_OTHER = "other"
# Port types, in lower case. Only `http` and `tcp` can be requested (§4); for an HTTP port, Novita's
# gateway adds HTTPS.
_PUBLISHED = {"http": "http", "https": "http", "tcp": "tcp"}
_MAPPED = {**_PUBLISHED, "udp": "udp"}


def identifier(value: Json) -> str:
    """Read an ID; `""` if there is no usable one.

    An ID that is too long or has unprintable characters is not cleaned up, because it could then
    equal another ID. A number with a fraction is not read, because its decoder may have rounded it.
    """
    if type(value) is not str and type(value) is not int:
        return ""
    found = str(value).strip()
    if len(found) > _MAX_ID or not found.isprintable() or "\ufffd" in found:
        return ""
    return found


def cluster(row: Object) -> UpstreamCluster | None:
    """Read one cluster (upstream.md §2)."""
    if not (cluster_id := identifier(row.get("id"))):
        return None
    return UpstreamCluster(
        id=cluster_id,
        name=text(row.get("name")),
    )


def product(row: Object) -> ProductOffer | None:
    """Read one product (upstream.md §3.1)."""
    if not (product_id := identifier(row.get("id"))):
        return None
    return ProductOffer(
        id=product_id,
        name=text(row.get("name")),
        price=positive(row.get("price"), _MAX_PRICE),
        spot_price=positive(row.get("spotPrice"), _MAX_PRICE),
        cpu_per_gpu=positive(row.get("cpuPerGpu"), _MAX_GB),
        memory_per_gpu=positive(row.get("memoryPerGpu"), _MAX_GB),
        min_rootfs=positive(row.get("minRootFS"), _MAX_GB),
        max_rootfs=positive(row.get("maxRootFS"), _MAX_GB),
        available=flag(row.get("availableDeploy")) or False,
    )


def template(row: Object) -> UpstreamTemplate | None:
    """Read one template (upstream.md §10)."""
    if not (template_id := identifier(row.get("Id") or row.get("id"))):
        return None
    return UpstreamTemplate(
        id=template_id,
        name=text(row.get("name")),
        channel=text(row.get("channel"), _MAX_WORD),
        image=text(row.get("image"), _MAX_IMAGE),
        image_auth=verbatim(row.get("imageAuth"), _MAX_LAUNCH_TEXT),
        start_command=verbatim(row.get("startCommand"), _MAX_LAUNCH_TEXT),
        entrypoint=verbatim(row.get("entrypoint"), _MAX_LAUNCH_TEXT),
        rootfs_size=positive(row.get("rootfsSize"), _MAX_GB),
        ports=_template_ports(row.get("ports")),
        envs=_envs(row.get("envs")),
        tools=_tools(row.get("tools")),
        min_cuda_version=text(row.get("minCudaVersion"), _MAX_WORD),
    )


def instance(row: Object, *, secrets: Iterable[str] = ()) -> UpstreamInstance | None:
    """Read one instance, from a listing or a look-up (upstream.md §5.1).

    Args:
        row: The JSON object.
        secrets: Values to remove from messages, besides the row's own secrets: the API key.
    """
    if not (instance_id := identifier(row.get("id"))):
        return None
    get = row.get
    name = get("name")
    ssh, ssh_password = _ssh(row)
    terminal = mapping(get("connectComponentWebTerminal"))
    # Words that most rows share are kept once: in a listing of 10,000 that saves 6 MB.
    found = UpstreamInstance(
        id=instance_id,
        name=name if type(name) is str else text(name),
        status=intern(text(get("status"), _MAX_WORD)),
        status_error=_NO_ERROR,
        port_mappings=_port_mappings(get("portMappings")),
        ssh=ssh,
        ssh_password=ssh_password,
        jupyter_address=_address(mapping(get("connectComponentJupyter"))),
        web_terminal_address=_address(terminal),
        web_terminal_username=secret(terminal.get("username")),
        web_terminal_password=secret(terminal.get("password")),
        spot_status=intern(text(get("spotStatus"), _MAX_WORD)),
        spot_reclaim_at=moment(get("spotReclaimTime")),
        name_readable=type(name) is str,
        created_at=moment(get("createdAt")),
        product_id=intern(identifier(get("productId"))),
        gpu_num=positive(get("gpuNum"), _MAX_GPUS),
        image=intern(text(get("imageUrl"), _MAX_IMAGE)),
        instance_price=positive(get("instancePrice"), _MAX_PRICE),
        billing_mode=intern(text(get("billingMode"), _MAX_WORD)),
        cluster_id=intern(identifier(get("clusterId"))),
        cluster_name=intern(text(get("clusterName"))),
        product_name=intern(text(get("productName"))),
        rootfs_size=positive(get("rootfsSize"), _MAX_GB),
        last_started_at=moment_or_never(get("lastStartedAt")),
        last_stopped_at=moment_or_never(get("lastStoppedAt")),
        exited_disk_price=positive(get("exitedLocalStoragePrice"), _MAX_PRICE),
        purged_at=moment(get("releaseDataAt")),
        keep_days=positive(get("keepDataDay"), _MAX_KEEP_DAYS),
    )
    if not (said := get("statusError")):
        return found
    hidden = _secrets(found, get("envs")).union(secrets)
    return replace(found, status_error=_status_error(said, hidden))


def utilization(row: Object, ahead: int = 0) -> UpstreamUtilization:
    """Read the metrics of an instance (upstream.md §14).

    Args:
        row: The JSON object.
        ahead: Milliseconds that upstream's clock is ahead of ours, in which the times are returned.
    """
    gpu = mapping(row.get("gpuUtilization"))
    return UpstreamUtilization(
        gpu=_points(gpu.get("avg"), ahead),
        gpu_memory=_points(mapping(row.get("gpuMemUtilization")).get("avg"), ahead),
        cpu=_points(row.get("cpuUtilization"), ahead),
        memory=_points(row.get("memUtilization"), ahead),
        disk=_points(row.get("rootDiskUtilization"), ahead),
        gpus=tuple(
            _points(one.get("items"), ahead)
            for one in islice(objects(gpu.get("gpuIds")), _MAX_METERED_GPUS)
        ),
    )


def ssh_access(command: str) -> SshAccess | None:
    """Parse `ssh -p PORT USER@HOST`, in any order, or `ssh://USER@HOST:PORT`.

    Return None if port, user or host is malformed. An SSH client would read a host or user that
    begins with a hyphen as an option.
    """
    if len(command) > _MAX_SSH_COMMAND:
        return None
    target, port = "", str(_SSH_PORT)
    words = iter(command.split())
    for word in words:
        if word == "ssh":
            continue
        if word.startswith("-p"):
            port = word[2:] or next(words, "")
        elif word in _SSH_OPTIONS_WITH_VALUE:
            next(words, None)
        elif not word.startswith("-") and not target:
            target = word
    if target.startswith("ssh://"):
        target = target.removeprefix("ssh://").partition("/")[0]
        place = target.rpartition("@")[2]
        if re.search(r":[^:\]]*\Z", place) and not place.endswith("]"):
            target, _, port = target.rpartition(":")
    login, _, name = target.rpartition("@")
    user, _, password = login.partition(":")
    host, number = outside.read_host_name(name), outside.read_port(port)
    if not host or number is None or not _SSH_USER.fullmatch(user or "root"):
        return None
    return SshAccess(host, number, user or "root", secret(password))


def _ssh(row: Object) -> tuple[SshAccess | None, str]:
    nested = mapping(row.get("connectComponentSSH"))
    commands = (nested.get("sshCommand"), nested.get("command"), row.get("sshCommand"))
    command = next((said for said in map(verbatim, commands) if said), "")
    access = ssh_access(command) if command else None
    passwords = (nested.get("password"), row.get("sshPassword"), row.get("password"))
    password = next((said for said in map(secret, passwords) if said), "")
    return access, password or (access.password if access else "")


def _address(component: Object) -> str:
    said = verbatim(component.get("address")) or verbatim(component.get("url"))
    return outside.read_url(said) if said else ""


def _secrets(row: UpstreamInstance, envs: Json) -> set[str]:
    """Return the secrets of an instance that a message about it might contain."""
    addresses = (row.jupyter_address, row.web_terminal_address)
    endpoints = (mapping.endpoint for mapping in row.port_mappings)
    hidden = {row.ssh_password, row.web_terminal_password, *(value for _, value in _envs(envs))}
    return hidden.union(*map(outside.secrets_of, (*addresses, *endpoints)))


def _status_error(value: Json, secrets: set[str]) -> UpstreamStatusError:
    if type(value) is str:
        return (
            UpstreamStatusError(message=_message(value, MAX_MESSAGE, secrets))
            if value
            else _NO_ERROR
        )
    found = mapping(value)
    state = _message(found.get("state"), MAX_STATE, secrets)
    said = _message(found.get("message"), MAX_MESSAGE, secrets)
    return UpstreamStatusError(state, said) if state or said else _NO_ERROR


def _message(value: Json, limit: int, secrets: set[str]) -> str:
    said = verbatim(value, _MAX_READ)
    return outside.message(outside.hide(said, secrets), limit) if said else ""


def _points(value: Json, ahead: int) -> tuple[UtilizationPoint, ...]:
    """Read a series in the order of time; points without a time or a value are skipped."""
    found: dict[int, float] = {}
    for row in islice(objects(value), _MAX_POINTS):
        at, percent = moment(row.get("timestamp")), quantity(row.get("value"), _MAX_PERCENT)
        if at is not None and percent is not None:
            found[at - ahead] = percent
    return tuple(UtilizationPoint(at, found[at]) for at in sorted(found))


def _port(value: Json) -> int | None:
    number = integer(value)
    return number if number is not None and 0 < number <= _MAX_PORT else None


def _port_mappings(value: Json) -> tuple[UpstreamPortMapping, ...]:
    found: dict[tuple[int, str], UpstreamPortMapping] = {}
    for row in objects(value):
        if (port := _port(row.get("port"))) is None:
            continue
        said = verbatim(row.get("endpoint"))
        endpoint = outside.read_address(said) if said else ""
        kind = _MAPPED.get(_word(row.get("type"))) or _kind_of(endpoint)
        earlier = found.get((port, kind))
        if earlier is None or (endpoint and not earlier.endpoint):
            found[port, kind] = UpstreamPortMapping(port, endpoint, kind)
        if len(found) == _MAX_PORTS:
            break
    return tuple(found.values())


def _kind_of(endpoint: str) -> str:
    """Derive the type of a port from its endpoint, if upstream's type is absent or unknown."""
    if not endpoint:
        return _OTHER
    return "http" if "://" in endpoint else "tcp"


def bill(row: Object, category: str) -> UpstreamBill | None:
    """Read a line of the bill of an hour; None if its owner or its hour is not readable.

    Args:
        row: The JSON object.
        category: The category that was asked for.
    """
    owner_id = identifier(row.get("ownerID", row.get("ownerId")))
    begin, last = moment(row.get("startTime")), moment(row.get("endTime"))
    if not owner_id or begin is None:
        return None
    hour = begin // _HOUR_MS * _HOUR_MS
    if last is not None and not begin <= last <= hour + _HOUR_MS:
        return None  # it covers more than an hour
    return UpstreamBill(owner_id, category, hour, _bill_amount(row))


def _bill_amount(row: Object) -> int | None:
    """Read the amount before vouchers, which is the sum of voucher and payment."""
    amount = integer(row.get("amount"))
    if amount is None and "amount" not in row:
        paid, voucher = integer(row.get("payAmount")), integer(row.get("voucherAmount"))
        if paid is not None and voucher is not None:
            amount = paid + voucher
    return amount if amount is not None and 0 <= amount <= _MAX_BILL else None


def _word(value: Json) -> str:
    return text(value, _MAX_WORD).strip().lower()


def _template_ports(value: Json) -> tuple[UpstreamPort, ...]:
    """Read the ports that can be published, without duplicates; skip the others."""
    found: dict[int, UpstreamPort] = {}
    for group in objects(value):
        if (kind := _PUBLISHED.get(_word(group.get("type")))) is None:
            continue
        numbers = group.get("ports", group.get("port"))
        for item in numbers if type(numbers) is list else [numbers]:
            if (number := _port(item)) is not None and len(found) < _MAX_PORTS:
                found.setdefault(number, UpstreamPort(number, kind))
    return tuple(found.values())


def _tools(value: Json) -> tuple[UpstreamTool, ...]:
    found: dict[tuple[str, int], UpstreamTool] = {}
    for row in objects(value):
        port, kind = _port(row.get("port")), _PUBLISHED.get(_word(row.get("type")))
        name = text(row.get("name"))
        if port is not None and kind is not None and len(found) < _MAX_PORTS:
            found.setdefault((name, port), UpstreamTool(name, port, kind))
    return tuple(found.values())


def _envs(value: Json) -> Envs:
    """Read variables: objects with `key` and `value`, one object, or `NAME=value` strings."""
    return tuple(
        (name, said)
        for key, given in islice(_pairs(value), _MAX_ENVS)
        if (name := verbatim(key, _MAX_LAUNCH_TEXT)) and (said := _variable(given)) is not None
    )


def _pairs(value: Json) -> Iterator[tuple[Json, Json]]:
    if type(value) is dict and "key" not in value:
        yield from value.items()
        return
    for item in value if type(value) is list else [value]:
        if type(item) is dict:
            yield item.get("key"), item.get("value")
        elif type(item) is str:
            name, _, said = item.partition("=")
            yield name, said


def _variable(value: Json) -> str | None:
    """Read a variable's value; None if it is a list or an object."""
    if type(value) is bool:
        return "true" if value else "false"
    return None if isinstance(value, list | dict) else verbatim(value, _MAX_LAUNCH_TEXT)
