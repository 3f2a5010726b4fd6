# SPDX-License-Identifier: Apache-2.0
"""`POST /gpu/instance/create` (upstream.md §4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from novitai.emulator.calling import Call, Reply, flag, integer, objects, ok, one_of, text
from novitai.emulator.catalogue import Cluster, CpuProduct, Product
from novitai.emulator.errors import Refusal, invalid, no_capacity, not_found
from novitai.emulator.instances import BillingMode, Instance, Port, Status, Tool, Volume
from novitai.emulator.lifecycle import CREATE, PULL_FAILURE, SUCCESS
from novitai.emulator.resources import PRIVATE_REGISTRY
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator

MONTH_SECONDS = 30 * 86_400
RESERVED_PORTS = frozenset({2222, 2223, 2224})
MOST_PORTS = 15


@dataclass(frozen=True, slots=True)
class _Machine:
    """The machine that the chosen product provides; all amounts are totals."""

    product_id: str
    product_name: str
    cluster: Cluster
    gpu_num: int
    cpu: int
    memory: int
    price: int
    max_rootfs: int


def create(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """Create an instance and return its ID."""
    body = call.body
    mode, month = _billing(body)
    kind = one_of(text(body, "kind") or "gpu", ("gpu", "cpu"), "kind")
    name = text(body, "name")
    product_id = text(body, "productId", least=1)
    image_url = text(body, "imageUrl", least=1, most=500)
    auth_id = text(body, "imageAuthId")
    ports, tools = _ports_and_tools(body)
    envs = parse_envs(body)
    command, entrypoint = text(body, "command", most=2047), text(body, "entrypoint", most=2047)
    network_id = text(body, "networkId")
    gpu_num = integer(body, "gpuNum", least=1, most=8) if kind == "gpu" else 0
    rootfs = max(10, integer(body, "rootfsSize", default=None if kind == "gpu" else 60, most=6144))
    renew = flag(body, "autoRenew")
    renew_month = integer(body, "autoRenewMonth", default=0, most=12)
    _check_references(emulator, auth_id, network_id)
    machine = _place(
        emulator,
        kind,
        product_id,
        gpu_num=gpu_num,
        mode=mode,
        cluster_id=text(body, "clusterId"),
    )
    if rootfs > machine.max_rootfs:
        raise invalid(f"rootfsSize must be at most {machine.max_rootfs}")
    volumes = _volumes(emulator, body, machine.cluster)
    emulator.charge("BALANCE_NOT_ENOUGH")

    outcome = emulator.faults.outcome("create", name, machine.product_id, machine.product_name)
    if outcome is SUCCESS and not can_pull(body, image_url, auth_id):
        outcome = PULL_FAILURE
    steps = emulator.pace.plan(call.now, CREATE, Status.RUNNING, outcome)
    instance = Instance(
        id=emulator.hex_id(),
        name=name,
        product_id=machine.product_id,
        product_name=machine.product_name,
        cluster_id=machine.cluster.id,
        cluster_name=machine.cluster.name,
        kind=kind,
        billing_mode=mode,
        gpu_num=machine.gpu_num,
        cpu_num=machine.cpu,
        memory=machine.memory,
        rootfs_size=rootfs,
        image_url=image_url,
        created_at=call.now,
        created_by=call.caller,
        steps=steps,
        booted_at=emulator.pace.booted_at(steps, outcome),
        account=emulator.account_of(call.caller),
        image_auth_id=auth_id,
        command=command,
        entrypoint=entrypoint,
        envs=envs,
        ports=ports,
        tools=tools,
        volumes=volumes,
        network_id=network_id,
        end_time=int(call.now) + month * MONTH_SECONDS if month else -1,
        auto_renew=renew,
        auto_renew_month=renew_month,
        price=machine.price,
        max_rootfs_size=machine.max_rootfs,
    )
    emulator.add(instance)
    return ok({"id": instance.id})


def parse_ports(value: str) -> tuple[Port, ...]:
    """Parse ports written like `"80/http, 3306/tcp"`.

    Raises:
        Refusal: The text has another form, or a port is reserved.
    """
    ports = []
    for part in filter(None, (each.strip() for each in value.split(","))):
        number, _, kind = part.partition("/")
        if not number.isascii() or not number.isdigit():
            raise invalid(f"ports: {part!r} is not like 80/http")
        ports.append(checked_port(int(number), kind))
    return tuple(ports)


def checked_port(number: int, kind: str) -> Port:
    """Return a port that may be exposed.

    Raises:
        Refusal: The port is out of range, reserved, or has an unknown type.
    """
    if not 1 <= number <= 65535 or number in RESERVED_PORTS:
        raise invalid(f"port {number} cannot be exposed")
    return Port(number, one_of(kind, ("http", "tcp"), "port type"))


def can_pull(body: Mapping[str, object], image_url: str, auth_id: str) -> bool:
    """Whether an image can be pulled; images of the private registry need credentials."""
    private = image_url.removeprefix("https://").startswith(PRIVATE_REGISTRY + "/")
    return not private or bool(auth_id) or bool(body.get("imageAuth"))


def _billing(body: Mapping[str, object]) -> tuple[BillingMode, int]:
    month = integer(body, "month", default=0, most=120)
    mode = BillingMode(
        one_of(
            text(body, "billingMode") or BillingMode.ON_DEMAND,
            [each.value for each in BillingMode],
            "billingMode",
        )
    )
    if month:
        return BillingMode.MONTHLY, month
    return mode, 1 if mode is BillingMode.MONTHLY else 0


def _ports_and_tools(
    body: Mapping[str, object],
) -> tuple[tuple[Port, ...], tuple[Tool, ...]]:
    ports = parse_ports(text(body, "ports", most=4096))
    tools = tuple(
        Tool(
            text(each, "name", least=1),
            integer(each, "port", least=1, most=65535),
            one_of(text(each, "type") or "http", ("http", "tcp"), "tool type"),
        )
        for each in objects(body, "tools")
    )
    if len(ports) + len(tools) > MOST_PORTS:
        raise invalid(f"ports and tools must not be more than {MOST_PORTS}")
    if len({port.port for port in ports}) != len(ports):
        raise invalid("a port is given twice")
    return ports, tools


def parse_envs(body: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Parse the environment variables of a request.

    Raises:
        Refusal: There are too many variables, or one is too long.
    """
    return tuple(
        (text(each, "key", most=511), text(each, "value", most=4095))
        for each in objects(body, "envs")
    )


def _check_references(emulator: Emulator, auth_id: str, network_id: str) -> None:
    if auth_id and auth_id not in emulator.auths:
        raise Refusal(400, "IMAGE_URL_OR_AUTH_ERROR", "image auth not found")
    if network_id and network_id not in emulator.networks:
        raise not_found("network", "NETWORK_NOT_FOUND")


def _volumes(
    emulator: Emulator, body: Mapping[str, object], cluster: Cluster
) -> tuple[Volume, ...]:
    volumes = []
    for each in objects(body, "networkStorages", most=30):
        storage = emulator.storages.get(text(each, "Id", least=1))
        if storage is None or storage.cluster_id != cluster.id:
            raise not_found("network storage", "NETWORK_STORAGE_NOT_FOUND")
        path = text(each, "mountPoint", most=4095) or "/network"
        volumes.append(Volume("network", storage.size, storage.id, path))
    return tuple(volumes)


def _place(
    emulator: Emulator,
    kind: str,
    product_id: str,
    *,
    gpu_num: int,
    mode: BillingMode,
    cluster_id: str,
) -> _Machine:
    """Choose the requested cluster, or else the first one with enough free GPUs."""
    if cluster_id:
        emulator.cluster(cluster_id)
    if kind == "cpu":
        return _place_cpu(emulator, product_id, cluster_id)
    product = emulator.products.get(product_id)
    if product is None:
        raise not_found("product")
    if mode not in product.modes:
        raise Refusal(400, "UNSUPPORTED_BILLING_MODE", f"billing mode {mode} is not supported")
    if emulator.faults.refuses("create", product.id, product.name):
        raise no_capacity()
    for offer in product.offers:
        cluster = emulator.clusters.get(offer.cluster_id)
        if cluster is None or (cluster_id and cluster.id != cluster_id):
            continue
        if offer.has(mode, gpu_num) and not emulator.faults.refuses(
            "create", product.id, product.name, cluster.id, cluster.name
        ):
            return _machine(product, cluster, gpu_num, mode)
    raise no_capacity()


def _machine(product: Product, cluster: Cluster, gpu_num: int, mode: BillingMode) -> _Machine:
    price = (product.spot_price or 0) if mode is BillingMode.SPOT else product.price
    return _Machine(
        product.id,
        product.name,
        cluster,
        gpu_num,
        product.cpu * gpu_num,
        product.memory * gpu_num,
        price * gpu_num,
        product.max_rootfs,
    )


def _place_cpu(emulator: Emulator, product_id: str, cluster_id: str) -> _Machine:
    product: CpuProduct | None = emulator.cpu_products.get(product_id)
    if product is None:
        raise not_found("product")
    wanted = cluster_id or product.cluster_ids[0]
    cluster = emulator.clusters[wanted]
    if wanted not in product.cluster_ids or not product.available:
        raise no_capacity()
    what = ("create", product.id, product.name)
    if emulator.faults.refuses(*what) or emulator.faults.refuses(*what, cluster.id, cluster.name):
        raise no_capacity()
    return _Machine(
        product.id, product.name, cluster, 0, product.cpu, product.memory, product.price, 6144
    )
