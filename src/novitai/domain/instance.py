# SPDX-License-Identifier: Apache-2.0
"""The instance record and its status transitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from novitai.domain.actor import Actor
from novitai.domain.idle import AutoStop, AutoStopState
from novitai.domain.limits import InheritedLimits, LimitSettings, StopReason, least
from novitai.domain.tags import Tags


class InstanceStatus(StrEnum):
    """The statuses of Appendix A of the API reference, and three more of novitai's own."""

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
        """Whether the record has ended, which frees its name and its upstream ID."""
        return self in {InstanceStatus.TERMINATED, InstanceStatus.RELEASED}


class Origin(StrEnum):
    """How the record of an instance came about."""

    CREATED = "created"
    ADOPTED = "adopted"


class BillingMode(StrEnum):
    """How Novita charges: on demand at a fixed price, or spot: cheaper, but reclaimable."""

    ON_DEMAND = "onDemand"
    SPOT = "spot"


class PortType(StrEnum):
    """How a port is published: behind Novita's HTTPS gateway, or as a public TCP port."""

    HTTP = "http"
    TCP = "tcp"


ENDED: Final = tuple(status.value for status in InstanceStatus if status.ended)
"""The stored words of the statuses in which a record has ended."""

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
"""The transitions of Appendix A, and those for a restart, a refused start or stop, a stop or start
from outside, a migration, a deletion, and an instance that is gone. A terminated instance that
reappears is revived outside this table."""


def may_follow(previous: InstanceStatus, following: InstanceStatus) -> bool:
    """Return whether `previous` may change to `following`, or is equal to it."""
    return previous is following or following in TRANSITIONS[previous]


@dataclass(frozen=True, slots=True)
class Port:
    """A port of the instance to publish."""

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
    """The launch settings of a create call: the template's, overridden by the request's.

    It contains secrets (`envs`), so it is stored encrypted and never shown.
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
        """Return the ports, including those of tools, that must answer before it is ready."""
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
    """The state of an instance in the account listing. Only reconciliation writes it.

    Attributes:
        at: When the listing that last changed this state began.
        missing_since: Since when the instance has been absent from complete listings.
        missing_count: From how many of them it has been absent.
        unlisted_since: As `missing_since`, for listings read to the end, complete or not.
        unlisted_count: As `missing_count`, for the same listings.
        gone: Whether complete listings and a look-up have proven that it no longer exists.
        hourly_price: Novita's price for the whole instance in USD per hour; None if not given.
        run_began_at: The first moment at which the current run may have billed; None without a run.
        exited_at: The last moment at which it may have stopped; None unless it is stopped.
        purge_at: When Novita purges the disk of a stopped instance; None if not known.
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
    run_began_at: int | None = None
    exited_at: int | None = None
    purge_at: int | None = None


GONE: Final = "GONE"
"""The error code of a record that was terminated only because its instance was absent."""


@dataclass(frozen=True, slots=True)
class Instance:
    """The record of an instance. Times are Unix milliseconds, sizes GB, prices USD per hour.

    `confirmed_at` is when the upstream ID was confirmed to belong to this record; until then only
    read calls are sent for it. `upstream_created_at` is a time of Novita's clock. `hourly_price` is
    the price of the whole instance at its purchase. `quote_id` names the quote that bound it.
    `stops_at` is when a limit stops or deletes the instance, and `stop_reason` names that limit, or
    the one that has stopped it; `unenforced` means that a limit is due and has no effect yet.
    `inherited` are its limits from the API key that created it.
    `created_by` is the API key of the create request; None for adopted instances and for records
    from before it was stored.
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
    quote_id: str | None = None
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
    limits: LimitSettings | None = None
    inherited: InheritedLimits | None = None
    protected_reason: str | None = None
    stops_at: int | None = None
    stop_reason: StopReason | None = None
    auto_stop: AutoStop | None = None
    auto_stop_state: AutoStopState = AutoStopState.ARMED
    auto_stops_at: int | None = None
    unenforced: bool = False
    tags: Tags = field(default_factory=dict)
    created_by: Actor | None = None

    @property
    def protected(self) -> bool:
        """Whether deletes are refused: a protection begins with the first `running`.

        An adopted instance may have run before it was adopted.
        """
        ran = self.started_at is not None or self.ever_ran or self.origin is Origin.ADOPTED
        return self.protected_reason is not None and ran

    @property
    def longest_minutes(self) -> int | None:
        """The longest run in minutes that its limits and those of its key allow."""
        own = self.limits.max_run_minutes if self.limits else None
        return least(own, self.inherited.longest_minutes if self.inherited else None)

    @property
    def unconfirmed(self) -> bool:
        """Whether it has an upstream ID that is not confirmed to belong to it."""
        return self.upstream_id is not None and self.confirmed_at is None

    @property
    def ended_by_absence(self) -> bool:
        """Whether it was terminated only by absence, so that it is revived if listed again."""
        ended = self.status is InstanceStatus.TERMINATED
        return ended and self.error is not None and self.error.code == GONE

    @property
    def current_hourly_price(self) -> float | None:
        """The hourly price that Novita lists; if it lists none, the price at purchase."""
        observed = self.observed.hourly_price
        return self.hourly_price if observed is None else observed
