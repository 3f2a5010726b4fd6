# SPDX-License-Identifier: Apache-2.0
"""What upstream has, in upstream's words and units; what is absent is None or empty.

Prices are in 1/100000 USD per GPU-hour, sizes in GB, points in time in Unix milliseconds.
Secrets (passwords, `envs`, registry credentials, addresses that may carry a token) are left out of
every `repr`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from novitai.domain import outside
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
    """A GPU product as one query saw it (upstream.md §3.1).

    Attributes:
        price: On demand, per GPU-hour; None if not offered.
        spot_price: Spot, per GPU-hour; None if there is no spot offer.
        available: Deployable now, under the filter of the query.
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
    """A port that upstream is to publish: its number, and `http` or `tcp`."""

    port: int
    type: str


@dataclass(frozen=True, slots=True)
class UpstreamTool:
    """A tool that upstream runs inside, such as Jupyter."""

    name: str
    port: int
    type: str


@dataclass(frozen=True, slots=True)
class UpstreamTemplate:
    """A recipe for an instance (upstream.md §10). `image_auth` is a registry auth's id."""

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
    """Where a port of an instance can be reached.

    Attributes:
        endpoint: An http(s) URL or `host:port`, which may hold user info or a token; empty until
            the port is mapped.
        type: `http`, `tcp`, `udp` or `other`.
    """

    port: int
    endpoint: str = field(repr=False)
    type: str


@dataclass(frozen=True, slots=True)
class SshAccess:
    """How to log in, read out of upstream's command line; no other part of it is kept."""

    host: str
    port: int
    user: str
    password: str = field(default="", repr=False)


MAX_STATE: Final = 100
MAX_MESSAGE: Final = 500
"""How many characters of an error's state and of its message are kept."""


@dataclass(frozen=True, slots=True)
class UpstreamStatusError:
    """Why something failed, in upstream's words; both empty where nothing did."""

    state: str = ""
    message: str = ""

    def __bool__(self) -> bool:
        return bool(self.state or self.message)


@dataclass(frozen=True, slots=True)
class UpstreamInstance:
    """An instance as upstream shows it (upstream.md §5.1).

    Attributes:
        name: As upstream sent it, at any length: a marker is read from it. See `shown_name`.
        status: Upstream's own word, known to us or not (§7).
        jupyter_address: An http(s) URL, which may hold a token; likewise of the web terminal.
        spot_reclaim_at: When a spot instance will be taken away; None if not announced.
        name_readable: False where upstream sent no name, or one that is not text.
        created_at: When upstream made it, on upstream's clock; None where it does not say.
        image: What `imageUrl` says.
        instance_price: Of the whole instance, in 1/100000 USD per hour; None where it is not told.
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

    @property
    def shown_name(self) -> str:
        """The name as it may be shown and stored."""
        return outside.plain(self.name, MAX_TEXT)


@dataclass(frozen=True, slots=True)
class Listing:
    """The whole account as one listing saw it.

    Attributes:
        began_at: Taken before the first page was asked for: nothing here is older.
        complete: Each page gave the same total, and the distinct ids add up to it.
        whole: Every page was read, whatever the totals say: an empty page ended the list, or it
            is complete. A page that only repeats known ids is not an empty page.
        total: What upstream said last; the number of instances where it said nothing.
        clock_offset: Milliseconds that upstream's clock is ahead of ours; None if unknown.
        key_digest: Tells the key that the listing was made with from other keys.
    """

    began_at: int
    instances: tuple[UpstreamInstance, ...]
    complete: bool
    total: int
    whole: bool = False
    clock_offset: int | None = None
    key_digest: str = ""


@dataclass(frozen=True, slots=True)
class CreateInstance:
    """What we say of a new GPU instance (upstream.md §4).

    Empty fields are not sent: upstream takes empty for absent.
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
        """List what must not appear in any message about this request."""
        return tuple(value for _, value in self.envs)
