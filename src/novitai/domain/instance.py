# SPDX-License-Identifier: Apache-2.0
"""What an instance is, and which status may follow which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class InstanceStatus(StrEnum):
    """The statuses of Appendix A of the API reference, and three that tell more of the truth."""

    CREATING = "creating"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    MIGRATING = "migrating"
    FAILED = "failed"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    RELEASED = "released"

    @property
    def ended(self) -> bool:
        """Whether the record is over: it holds neither its name nor its upstream id any more."""
        return self in {InstanceStatus.TERMINATED, InstanceStatus.RELEASED}


class Origin(StrEnum):
    """How an instance came to be a record of ours."""

    CREATED = "created"
    ADOPTED = "adopted"


class BillingMode(StrEnum):
    """How Novita charges: by the second at a fixed price, or cheaper and reclaimable."""

    ON_DEMAND = "onDemand"
    SPOT = "spot"


class PortType(StrEnum):
    """How a port is published: behind Novita's HTTPS gateway, or as a public TCP port."""

    HTTP = "http"
    TCP = "tcp"


_S = InstanceStatus

_ENDS: Final = frozenset({_S.TERMINATING, _S.TERMINATED, _S.RELEASED})

TRANSITIONS: Final[Mapping[InstanceStatus, frozenset[InstanceStatus]]] = {
    _S.CREATING: frozenset({_S.STARTING, _S.RUNNING, _S.FAILED}) | _ENDS,
    _S.STARTING: frozenset({_S.RUNNING, _S.STOPPING, _S.STOPPED, _S.MIGRATING, _S.FAILED}) | _ENDS,
    _S.RUNNING: frozenset({_S.STARTING, _S.STOPPING, _S.STOPPED, _S.MIGRATING, _S.FAILED}) | _ENDS,
    _S.STOPPING: frozenset({_S.STOPPED, _S.RUNNING, _S.FAILED}) | _ENDS,
    _S.STOPPED: frozenset({_S.STARTING, _S.RUNNING, _S.MIGRATING}) | _ENDS,
    _S.MIGRATING: frozenset({_S.STARTING, _S.RUNNING, _S.STOPPED, _S.FAILED}) | _ENDS,
    _S.FAILED: frozenset({_S.STARTING}) | _ENDS,
    _S.TERMINATING: frozenset({_S.TERMINATED, _S.RELEASED}),
    _S.TERMINATED: frozenset(),
    _S.RELEASED: frozenset(),
}
"""Appendix A, widened by what really happens: a restart, a refused start or stop, a stop or start
from outside, a migration, a deletion, and an instance that is gone. What reappears is revived."""


def may_follow(previous: InstanceStatus, following: InstanceStatus) -> bool:
    """Tell whether `following` may come right after `previous`."""
    return previous is following or following in TRANSITIONS[previous]


@dataclass(frozen=True, slots=True)
class Port:
    """A port inside the instance that is to be reachable from outside."""

    port: int
    type: PortType


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port as Novita published it; `endpoint` is a URL for http and `host:port` for tcp."""

    port: int
    endpoint: str
    type: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A helper that Novita runs beside the workload, such as Jupyter."""

    name: str
    port: int
    type: PortType


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """All that a create call says besides product and name: the template with the request over it.

    Holds secrets (`envs`), so it is stored encrypted and never shown.
    """

    image: str
    image_auth_id: str | None = None
    command: str | None = None
    entrypoint: str | None = None
    ports: tuple[Port, ...] = ()
    tools: tuple[Tool, ...] = ()
    envs: Mapping[str, str] = field(default_factory=dict, repr=False)
    min_cuda_version: str | None = None

    def watched_ports(self) -> tuple[Port, ...]:
        """List what has to answer before the instance counts as ready: ports and tools."""
        tools = tuple(Port(tool.port, tool.type) for tool in self.tools)
        return self.ports + tuple(port for port in tools if port not in self.ports)


@dataclass(frozen=True, slots=True)
class InstanceError:
    """Why an instance failed, or why the last start was refused. `at` in Unix milliseconds."""

    code: str
    message: str
    at: int


@dataclass(frozen=True, slots=True)
class Observed:
    """What the account listing last said of an instance. Written by sync alone.

    `at` is when the listing that brought the news began; `missing_since` and `missing_count` tell
    for how long, and in how many complete listings, the row has been absent; `unlisted_since`
    and `unlisted_count` the same of listings that were read whole, complete or not; `gone` that
    the absence has been proven by complete listings and a look-up. `hourly_price` is what Novita
    charges for the whole instance, in USD an hour; None where it does not say.
    """

    status: str | None = None
    at: int | None = None
    error: str | None = None
    port_mappings: tuple[PortMapping, ...] = ()
    ssh: str | None = None
    jupyter: str | None = None
    web_terminal: str | None = None
    spot_status: str | None = None
    spot_reclaim_at: int | None = None
    hourly_price: float | None = None
    missing_since: int | None = None
    missing_count: int = 0
    unlisted_since: int | None = None
    unlisted_count: int = 0
    gone: bool = False


GONE: Final = "GONE"
"""The error code of a record that was terminated because its instance was absent, no more."""


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance as our record knows it. Times are Unix milliseconds, sizes GB, prices USD/h.

    `confirmed_at` is when it was established that the upstream id is really this record's: until
    then nothing but a look leaves for it. `upstream_created_at` is on upstream's clock.
    `hourly_price` is the price at which it was bought, for the whole instance.
    """

    id: str
    name: str
    status: InstanceStatus
    product_name: str
    template_id: str
    gpu_num: int
    rootfs_size: int
    region: str
    billing_mode: BillingMode
    created_at: int
    updated_at: int
    product_id: str | None = None
    region_fallback: bool = False
    max_hourly_price: float | None = None
    hourly_price: float | None = None
    webhook_url: str | None = None
    upstream_id: str | None = None
    bought_at: int | None = None
    ever_ran: bool = False
    ready_at: int | None = None
    started_at: int | None = None
    stopped_at: int | None = None
    terminated_at: int | None = None
    last_used_at: int | None = None
    acted_at: int | None = None
    failed: bool = False
    origin: Origin = Origin.CREATED
    confirmed_at: int | None = None
    upstream_created_at: int | None = None
    released_at: int | None = None
    error: InstanceError | None = None
    observed: Observed = Observed()

    @property
    def unconfirmed(self) -> bool:
        """Whether it has an upstream id of which it is not established that it is its own."""
        return self.upstream_id is not None and self.confirmed_at is None

    @property
    def ended_by_absence(self) -> bool:
        """Whether it was terminated by absence alone, so that a sighting brings it back."""
        ended = self.status is InstanceStatus.TERMINATED
        return ended and self.error is not None and self.error.code == GONE

    @property
    def current_hourly_price(self) -> float | None:
        """What Novita charges by its own account, else the price at which it was bought."""
        observed = self.observed.hourly_price
        return self.hourly_price if observed is None else observed
