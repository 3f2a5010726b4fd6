# SPDX-License-Identifier: Apache-2.0
"""An instance, and its state at a given time.

An instance stores a timeline: which status it enters at which virtual time. Its state is a pure
function of that timeline and the clock, so instances need no background work.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from enum import StrEnum

NEVER = math.inf


class Status(StrEnum):
    """The statuses of Novita's API (upstream.md §7)."""

    PENDING = "pending"
    TO_CREATE = "toCreate"
    CREATING = "creating"
    PULLING = "pulling"
    RUNNING = "running"
    TO_START = "toStart"
    STARTING = "starting"
    TO_STOP = "toStop"
    STOPPING = "stopping"
    EXITED = "exited"
    TO_RESTART = "toRestart"
    RESTARTING = "restarting"
    TO_REMOVE = "toRemove"
    REMOVING = "removing"
    REMOVED = "removed"
    TO_RESET = "toReset"
    RESETTING = "resetting"
    MIGRATING = "migrating"
    FREEZING = "freezing"


class SpotStatus(StrEnum):
    """The stages of a spot reclaim (upstream.md §8)."""

    NONE = ""
    RUNNING = "running"
    NOTIFIED = "notified"
    RECLAIMING = "reclaiming"
    TERMINATED = "terminated"


class BillingMode(StrEnum):
    """How an instance is billed."""

    ON_DEMAND = "onDemand"
    MONTHLY = "monthly"
    SPOT = "spot"


GONE = frozenset({Status.TO_REMOVE, Status.REMOVING, Status.REMOVED})
"""Statuses of a deleted instance; a spot reclaim changes neither these nor `exited`."""


@dataclass(frozen=True, slots=True)
class StatusError:
    """Why an instance failed; both fields are empty if it did not."""

    state: str = ""
    message: str = ""


NO_ERROR = StatusError()


@dataclass(frozen=True, slots=True)
class Step:
    """From virtual time `at` on, the instance is in `status`."""

    at: float
    status: Status
    error: StatusError = NO_ERROR


@dataclass(frozen=True, slots=True)
class SpotPlan:
    """The reclaim of a spot instance; all times are virtual."""

    notified_at: float
    reclaim_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class Port:
    """A port of the container and its protocol, `http` or `tcp`."""

    port: int
    type: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool inside the container, such as Jupyter."""

    name: str
    port: int
    type: str


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume mounted into the container; `type` is `network` or `local`."""

    type: str
    size: int
    id: str
    mount_path: str


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance with all its properties and its timeline.

    Attributes:
        steps: The timeline, oldest first; never empty.
        price: For the whole instance, in 1/100000 USD per hour, at the time of purchase.
        starts: How many runs it has had, a pending one included; part of its addresses.
        booted_at: When the services of the current run begin to answer; NEVER if they do not.
        held: A status that overrides the timeline.
        service_status: The HTTP status that its HTTP ports return once booted.
        created_by, deleted_by: The label of the API key, or `control`.
        account: The account that owns it.
        told_created_at: A creation time that the API shows instead of the true one.
    """

    id: str
    name: str
    product_id: str
    product_name: str
    cluster_id: str
    cluster_name: str
    kind: str
    billing_mode: BillingMode
    gpu_num: int
    cpu_num: int
    memory: int
    rootfs_size: int
    image_url: str
    created_at: float
    created_by: str
    steps: tuple[Step, ...]
    booted_at: float
    account: str = ""
    image_auth_id: str = ""
    command: str = ""
    entrypoint: str = ""
    envs: tuple[tuple[str, str], ...] = ()
    ports: tuple[Port, ...] = ()
    tools: tuple[Tool, ...] = ()
    volumes: tuple[Volume, ...] = ()
    network_id: str = ""
    end_time: int = -1
    auto_renew: bool = False
    auto_renew_month: int = 0
    auto_migrate: bool = False
    price: int = 0
    max_rootfs_size: int = 6144
    starts: int = 1
    spot: SpotPlan | None = None
    held: Status | None = None
    service_status: int = 200
    deleted_at: float = NEVER
    deleted_by: str = ""
    told_created_at: float | None = None

    @property
    def shown_created_at(self) -> float:
        """The creation time that the API shows."""
        return self.created_at if self.told_created_at is None else self.told_created_at

    @property
    def removed_at(self) -> float:
        """When it became, or will become, `removed`; NEVER if no delete is in progress."""
        last = self.steps[-1]
        return last.at if last.status is Status.REMOVED else NEVER

    @property
    def has_tcp(self) -> bool:
        """Whether the instance has a TCP port."""
        return any(port.type == "tcp" for port in self.ports)


@dataclass(frozen=True, slots=True)
class Phase:
    """The state of an instance at a given time, and when it next changes."""

    status: Status
    error: StatusError
    since: float
    spot: SpotStatus
    booted: bool
    until: float


def phase(instance: Instance, now: float) -> Phase:
    """Return the state of the instance at virtual time `now`."""
    steps = instance.steps
    index = len(steps) - 1
    while index > 0 and steps[index].at > now:
        index -= 1
    step = steps[index]
    until = steps[index + 1].at if index + 1 < len(steps) else NEVER
    status, since = step.status, step.at
    spot_status = SpotStatus.NONE
    if instance.billing_mode is BillingMode.SPOT:
        spot_status, change = _spot_status(instance.spot, now)
        until = min(until, change)
        plan = instance.spot
        if plan is not None and now >= plan.reclaim_at and _can_be_reclaimed(status):
            ended = now >= plan.ended_at
            status = Status.EXITED if ended else Status.STOPPING
            since = plan.ended_at if ended else plan.reclaim_at
    if instance.held is not None:
        status = instance.held
    booted = status is Status.RUNNING and now >= instance.booted_at
    if now < instance.booted_at:
        until = min(until, instance.booted_at)
    return Phase(status, step.error, since, spot_status, booted, until)


def secret(instance: Instance, purpose: str, length: int = 16) -> str:
    """Return a random-looking string that is unique to this run of the instance."""
    text = f"{instance.id}:{instance.starts}:{instance.created_at}:{purpose}"
    return hashlib.blake2b(text.encode(), digest_size=length // 2).hexdigest()


def _spot_status(plan: SpotPlan | None, now: float) -> tuple[SpotStatus, float]:
    if plan is None:
        return SpotStatus.RUNNING, NEVER
    if now < plan.notified_at:
        return SpotStatus.RUNNING, plan.notified_at
    if now < plan.reclaim_at:
        return SpotStatus.NOTIFIED, plan.reclaim_at
    if now < plan.ended_at:
        return SpotStatus.RECLAIMING, plan.ended_at
    return SpotStatus.TERMINATED, NEVER


def _can_be_reclaimed(status: Status) -> bool:
    return status is not Status.EXITED and status not in GONE
