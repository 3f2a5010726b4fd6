# SPDX-License-Identifier: Apache-2.0
"""Upstream's resources, with upstream's names and units; absent values are None or empty.

Prices are in 1/100000 USD per GPU-hour, sizes in GB, times in Unix milliseconds. Every `repr` omits
secrets: passwords, `envs`, registry credentials, and addresses that may contain a token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from novitai.domain import outside
from novitai.domain.billing_edges import Look
from novitai.upstream.wire import MAX_TEXT

Envs = tuple[tuple[str, str], ...]

ON_DEMAND: Final = "onDemand"
SPOT: Final = "spot"


@dataclass(frozen=True, slots=True)
class UpstreamCluster:
    """A place where instances run (upstream.md §2)."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ProductOffer:
    """A GPU product as returned by one query (upstream.md §3.1).

    Attributes:
        price: On-demand price per GPU-hour; None if not offered.
        spot_price: Spot price per GPU-hour; None if not offered.
        available: Whether it is deployable now, under the filter of the query.
    """

    id: str
    name: str
    price: int | None
    spot_price: int | None
    cpu_per_gpu: int | None
    memory_per_gpu: int | None
    min_rootfs: int | None
    max_rootfs: int | None
    available: bool


@dataclass(frozen=True, slots=True)
class UpstreamPort:
    """A port for upstream to publish; `type` is `http` or `tcp`."""

    port: int
    type: str


@dataclass(frozen=True, slots=True)
class UpstreamTool:
    """A tool that upstream runs in the instance, such as Jupyter."""

    name: str
    port: int
    type: str


@dataclass(frozen=True, slots=True)
class UpstreamTemplate:
    """A template (upstream.md §10). `image_auth` is the ID of registry credentials."""

    id: str
    name: str
    channel: str
    image: str
    image_auth: str = field(repr=False)
    start_command: str
    entrypoint: str
    rootfs_size: int | None
    ports: tuple[UpstreamPort, ...]
    envs: Envs = field(repr=False)
    tools: tuple[UpstreamTool, ...]
    min_cuda_version: str


@dataclass(frozen=True, slots=True)
class UpstreamPortMapping:
    """The endpoint of a port of an instance.

    Attributes:
        endpoint: An HTTP(S) URL or `host:port`, which may contain credentials; empty until the port
            is mapped.
        type: `http`, `tcp`, `udp` or `other`.
    """

    port: int
    endpoint: str = field(repr=False)
    type: str


@dataclass(frozen=True, slots=True)
class SshAccess:
    """SSH access, parsed from upstream's command line; its other parts are discarded."""

    host: str
    port: int
    user: str
    password: str = field(default="", repr=False)


MAX_STATE: Final = 100
MAX_MESSAGE: Final = 500
"""Maximum characters that are kept of an error's state and of its message."""


@dataclass(frozen=True, slots=True)
class UpstreamStatusError:
    """The reason of a failure as upstream sent it; both fields are empty if nothing failed."""

    state: str = ""
    message: str = ""

    def __bool__(self) -> bool:
        return bool(self.state or self.message)


@dataclass(frozen=True, slots=True)
class UpstreamInstance:
    """An instance as upstream returns it (upstream.md §5.1).

    Attributes:
        name: As upstream sent it, not cut, because it contains the marker. See `shown_name`.
        status: Upstream's status (§7); it may be one that novitai does not know.
        jupyter_address: An HTTP(S) URL, which may contain a token.
        web_terminal_address: An HTTP(S) URL, which may contain a token.
        spot_reclaim_at: When a spot instance will be reclaimed; None if not announced.
        name_readable: False if upstream sent no name, or one that is not text.
        created_at: When upstream created it, by upstream's clock; None if unknown.
        image: The value of `imageUrl`.
        purged_at: When its disk is purged, by upstream's clock; None if not announced.
        keep_days: For how many days upstream keeps the disk of a stopped instance; None if unknown.
        instance_price: Of the whole instance, in 1/100000 USD per hour; None if unknown.
        last_started_at: When it was last started, by upstream's clock; 0 if never, None if unknown.
        last_stopped_at: As `last_started_at`, for the last stop.
        exited_disk_price: Of the disk while it is stopped, in 1/100000 USD per GB-day; None if
            unknown.
    """

    id: str
    name: str
    status: str
    status_error: UpstreamStatusError
    port_mappings: tuple[UpstreamPortMapping, ...]
    ssh: SshAccess | None
    ssh_password: str = field(repr=False)
    jupyter_address: str = field(repr=False)
    web_terminal_address: str = field(repr=False)
    web_terminal_username: str
    web_terminal_password: str = field(repr=False)
    spot_status: str
    spot_reclaim_at: int | None
    name_readable: bool = True
    created_at: int | None = None
    product_id: str = ""
    gpu_num: int | None = None
    image: str = ""
    instance_price: int | None = None
    billing_mode: str = ""
    cluster_id: str = ""
    cluster_name: str = ""
    product_name: str = ""
    rootfs_size: int | None = None
    last_started_at: int | None = None
    last_stopped_at: int | None = None
    purged_at: int | None = None
    keep_days: int | None = None
    exited_disk_price: int | None = None

    @property
    def shown_name(self) -> str:
        """The name in a form that is safe to show and store."""
        return outside.plain(self.name, MAX_TEXT)


@dataclass(frozen=True, slots=True)
class Listing:
    """One listing of all instances of the account.

    Attributes:
        began_at: The time before the first page was requested; no data here is older.
        read_at: The time after the last page was read; no data here is newer.
        complete: Whether all pages had the same total and the distinct IDs add up to it.
        whole: Whether all pages were read: the listing is complete, or it ended with an empty page.
            A page that only repeats known IDs is not empty.
        total: The last total that upstream sent; the number of instances if it sent none.
        clock_offset: Milliseconds that upstream's clock is ahead; None if unknown.
        key_digest: Identifies the API key of the listing.
    """

    began_at: int
    instances: tuple[UpstreamInstance, ...]
    complete: bool
    total: int
    whole: bool = False
    clock_offset: int | None = None
    key_digest: str = ""
    read_at: int = 0

    @property
    def look(self) -> Look:
        """When it was asked for and read."""
        return Look(self.began_at, max(self.began_at, self.read_at), self.clock_offset)


@dataclass(frozen=True, slots=True)
class UtilizationPoint:
    """A value of a metric in percent; `at` in Unix milliseconds."""

    at: int
    percent: float


@dataclass(frozen=True, slots=True)
class UpstreamUtilization:
    """How busy an instance was (upstream.md §14).

    Each series is in the order of time; moments without a value are missing. `gpu` and `gpu_memory`
    are averages over the GPUs, and `gpus` has the use of each.
    """

    gpu: tuple[UtilizationPoint, ...] = ()
    gpu_memory: tuple[UtilizationPoint, ...] = ()
    cpu: tuple[UtilizationPoint, ...] = ()
    memory: tuple[UtilizationPoint, ...] = ()
    disk: tuple[UtilizationPoint, ...] = ()
    gpus: tuple[tuple[UtilizationPoint, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class UpstreamBill:
    """A line of the bill of an hour (upstream.md §14).

    Attributes:
        owner_id: The billed thing; for an instance, its ID.
        category: `gpu` or `cloud_storage`.
        hour: The begin of the hour in Unix milliseconds, by upstream's clock.
        amount: In 1/10000 USD, before vouchers; None if it cannot be read.
    """

    owner_id: str
    category: str
    hour: int
    amount: int | None


@dataclass(frozen=True, slots=True)
class UpstreamBills:
    """The bills of a window, and how many rows cannot be assigned to an owner or an hour."""

    bills: tuple[UpstreamBill, ...]
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class CreateInstance:
    """The request for a new GPU instance (upstream.md §4).

    Empty fields are not sent: to upstream, empty and absent are the same.
    """

    name: str
    product_id: str
    gpu_num: int
    rootfs_size: int
    image_url: str
    billing_mode: str = ON_DEMAND
    cluster_id: str = ""
    image_auth_id: str = field(default="", repr=False)
    ports: tuple[UpstreamPort, ...] = ()
    envs: Envs = field(default=(), repr=False)
    tools: tuple[UpstreamTool, ...] = ()
    command: str = field(default="", repr=False)
    entrypoint: str = field(default="", repr=False)
    min_cuda_version: str = ""

    def secrets(self) -> tuple[str, ...]:
        """Return the values that must not appear in messages about this request."""
        return tuple(value for _, value in self.envs)
