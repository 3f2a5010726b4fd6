# SPDX-License-Identifier: Apache-2.0
"""Instances: views, connections, limits, credentials and use."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from novitai_client.wire import Model, Open
from novitai_client.words import (
    AutoStopState,
    BillingMode,
    IdleSignal,
    InstanceStatus,
    LimitAction,
    OperationKind,
    StopReason,
)


class PortMapping(Model):
    """A port that Novita publishes."""

    port: int
    endpoint: str
    type: str


class ConnectionDetails(Model):
    """How to reach the instance."""

    ssh: str | None = None
    jupyter: str | None = None
    web_terminal: str | None = None


class CreatedBy(Model):
    """The API key that created an instance, and the name it had."""

    key_id: str
    name: str


class RunningOperation(Model):
    """The operation that is running on the instance."""

    id: str
    kind: Open[OperationKind]
    phase: str


class InstanceError(Model):
    """Why the instance failed, its last start or stop was refused, or it was reclaimed."""

    code: str
    message: str
    at: datetime


class Limits(Model):
    """The limits of an instance."""

    max_spend: float | None = None
    max_run_minutes: int | None = None
    stop_at: datetime | None = None
    on_limit: Open[LimitAction]
    delete_after_stopped_minutes: int | None = None


class AutoStop(Model):
    """The auto-stop setting of an instance, and its state.

    Attributes:
        stops_at: When it acts if the instance is not used until then.
    """

    idle_minutes: int
    signals: list[Open[IdleSignal]]
    gpu_below_percent: float
    action: Open[LimitAction]
    warn_minutes: int
    state: Open[AutoStopState]
    stops_at: datetime | None = None


class Protection(Model):
    """Why the instance must not be deleted."""

    reason: str


class Cost(Model):
    """The costs of an instance, GPUs and disk, as of `as_of`. The bill lies between the bounds.

    `hourly_price`, `accrued` and `accrued_at_most` are absent if a price is unknown.

    Attributes:
        hourly_price: USD per hour for the whole instance while it runs.
        accrued: USD that are certainly billed, rounded down.
        accrued_at_most: USD that may be billed, rounded up.
        as_of: When the last listing that showed the instance began; the amounts are those
            up to then.
        cost_since: When the instance was adopted; costs count from then.
        unknown: Whether a price is unknown.
    """

    currency: str
    hourly_price: float | None = None
    accrued: float | None = None
    accrued_at_most: float | None = None
    as_of: datetime
    cost_since: datetime | None = None
    unknown: bool | None = None


class Instance(Model):
    """An instance. Fields that are unknown or do not apply are None.

    Attributes:
        etag: The version of the view, for `update(if_match=...)`; only from `get` and `update`.
        template_id: Absent for an adopted instance if it is not known.
        rootfs_size: GB; absent for an adopted instance if it is not known.
        hourly_price: USD for the whole instance: what Novita charges now or, if Novita does
            not say, the price at which it was bought.
        created_by: Absent for adopted instances.
        spot_reclaim_at: When Novita reclaims or reclaimed this spot instance, once
            announced.
        origin: Only for an adopted instance.
        stops_at: When a limit stops the instance, or deletes a stopped one.
        stop_reason: The limit of `stops_at`, or the one that stopped the instance.
        unenforced: True while a limit is due and has no effect.
    """

    id: str
    name: str
    status: Open[InstanceStatus]
    gpu_num: int
    region: str
    port_mappings: list[PortMapping]
    connection_details: ConnectionDetails | None = None
    created_at: datetime
    ready_at: datetime | None = None
    product_name: str
    product_id: str | None = None
    template_id: str | None = None
    rootfs_size: int | None = None
    billing_mode: Open[BillingMode]
    hourly_price: float | None = None
    tags: dict[str, str]
    created_by: CreatedBy | None = None
    webhook_url: str | None = None
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    last_used_at: datetime | None = None
    spot_reclaim_at: datetime | None = None
    upstream_id: str | None = None
    upstream_status: str | None = None
    origin: str | None = None
    limits: Limits | None = None
    auto_stop: AutoStop | None = None
    protected: Protection | None = None
    stops_at: datetime | None = None
    stop_reason: Open[StopReason] | None = None
    unenforced: bool | None = None
    operation: RunningOperation | None = None
    error: InstanceError | None = None
    observed_at: datetime | None = None
    cost: Cost | None = None
    etag: str | None = Field(default=None, exclude=True)


class ActionResult(Model):
    """An accepted action on an instance. `operation_id` is None if there was nothing to do."""

    instance_id: str
    status: Open[InstanceStatus]
    operation_id: str | None = None
    message: str | None = None


class CreatedInstance(Model):
    """An accepted request. The instance is bought after this response."""

    instance_id: str
    status: str
    message: str
    estimated_ready_time: datetime


class StopBegun(Model):
    """An instance that is being stopped."""

    instance_id: str
    operation_id: str


class LeftAlone(Model):
    """An instance that is not being stopped, and why: an error code, or `ALREADY_STOPPED`."""

    instance_id: str
    reason: str


class StopAllResult(Model):
    """The result for each live instance."""

    operations: list[StopBegun]
    skipped: list[LeftAlone]


class SyncStarted(Model):
    """An accepted listing of the account."""

    operation_id: str


class SecretEndpoint(Model):
    """A published port whose endpoint, as Novita reports it, has user info or a query."""

    port: int
    endpoint: str


class Credentials(Model):
    """The passwords of an instance as Novita last reported them; others are absent.

    `jupyter`, `web_terminal` and `endpoints` are complete URLs, present if they have user info
    or a query such as `?token=`, which the view of the instance leaves out.
    """

    instance_id: str
    ssh_password: str | None = Field(default=None, repr=False)
    web_terminal_username: str | None = None
    web_terminal_password: str | None = Field(default=None, repr=False)
    jupyter: str | None = Field(default=None, repr=False)
    web_terminal: str | None = Field(default=None, repr=False)
    endpoints: list[SecretEndpoint] | None = Field(default=None, repr=False)


class UtilizationValue(Model):
    """A value in percent, as Novita measured it."""

    at: datetime
    percent: float


class Utilization(Model):
    """The series of an instance, oldest value first; times without a value are left out.

    Attributes:
        gpu: The average of its GPUs.
        gpu_memory: The average of its GPUs.
        disk: The root filesystem.
    """

    gpu: list[UtilizationValue]
    gpu_memory: list[UtilizationValue]
    cpu: list[UtilizationValue]
    memory: list[UtilizationValue]
    disk: list[UtilizationValue]


class UnmanagedInstance(Model):
    """An instance in the account that belongs to no record; `status` is Novita's.

    `orphan`: it has this installation's marker. `hourly_price` is in USD for the whole
    instance.
    """

    upstream_id: str
    name: str
    status: str
    orphan: bool
    dismissed: bool | None = None
    hourly_price: float | None = None
    created_at: datetime | None = None
    region: str | None = None
