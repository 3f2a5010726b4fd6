# SPDX-License-Identifier: Apache-2.0
"""Changes instances outside the API: seeds, edits, copies, holds, stops, reclaims, deletes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, model_validator

from novitai.emulator import lifecycle
from novitai.emulator.calling import JsonObject
from novitai.emulator.config import NOTICE_SECONDS
from novitai.emulator.control.accounts import AccountName
from novitai.emulator.control.endpoint import Context, ControlError, Endpoint, Given, endpoint
from novitai.emulator.control.observing import instance_view
from novitai.emulator.errors import Refusal
from novitai.emulator.instances import (
    GONE,
    NEVER,
    BillingMode,
    Instance,
    Port,
    SpotPlan,
    Status,
    StatusError,
    Step,
    phase,
)
from novitai.emulator.routes.creating import parse_ports
from novitai.emulator.state import CONTROL, Emulator

Seconds = Annotated[float, Field(ge=0, le=10 * 366 * 86_400)]
UnixTime = Annotated[float, Field(ge=0, le=2**40)]


class Seed(Given):
    """The instances to add, given by number or by name."""

    count: Annotated[int, Field(ge=1, le=100_000)] | None = None
    name_prefix: Annotated[str, Field(max_length=240)] = "seed-"
    names: Annotated[list[str], Field(min_length=1, max_length=100_000)] | None = None
    status: Status = Status.RUNNING
    product_id: str = "gpu-basic.8c32g"
    cluster_id: str | None = None
    billing_mode: BillingMode = BillingMode.ON_DEMAND
    gpu_num: Annotated[int, Field(ge=1, le=8)] = 1
    rootfs_size: Annotated[int, Field(ge=10, le=6144)] = 60
    image_url: Annotated[str, Field(min_length=1, max_length=500)] = "ubuntu:24.04"
    ports: str = ""
    age_seconds: Seconds = 7200
    created_by: Annotated[str, Field(min_length=1, max_length=64)] = CONTROL
    account: AccountName | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Seed:
        if (self.count is None) == (self.names is None):
            raise ValueError("give either count or names")
        return self


def seed(context: Context, given: Seed) -> JsonObject:
    """Add instances without the API."""
    emulator = context.emulator
    names = given.names or [f"{given.name_prefix}{n}" for n in range(1, (given.count or 0) + 1)]
    pattern = _seedling(emulator, given)
    ids = []
    for name in names:
        instance = replace(pattern, id=emulator.hex_id(), name=name)
        emulator.add(instance)
        ids.append(instance.id)
    return {"created": len(ids), "ids": ids if len(ids) <= 1000 else ids[:1000]}


def _seedling(emulator: Emulator, given: Seed) -> Instance:
    product = emulator.products.get(given.product_id)
    if product is None:
        raise ControlError(f"productId: unknown product {given.product_id!r}")
    cluster_id = given.cluster_id or product.offers[0].cluster_id
    cluster = emulator.clusters.get(cluster_id)
    if cluster is None:
        raise ControlError(f"clusterId: unknown cluster {cluster_id!r}")
    ports = _ports(given.ports)
    now = emulator.clock.now()
    created_at = now - given.age_seconds
    spot = given.billing_mode is BillingMode.SPOT
    return Instance(
        id="",
        name="",
        product_id=product.id,
        product_name=product.name,
        cluster_id=cluster.id,
        cluster_name=cluster.name,
        kind="gpu",
        billing_mode=given.billing_mode,
        gpu_num=given.gpu_num,
        cpu_num=product.cpu * given.gpu_num,
        memory=product.memory * given.gpu_num,
        rootfs_size=given.rootfs_size,
        image_url=given.image_url,
        created_at=created_at,
        created_by=given.created_by,
        steps=(Step(created_at, given.status),),
        booted_at=created_at if given.status is Status.RUNNING else NEVER,
        account=emulator.account_of(given.account or given.created_by),
        ports=ports,
        price=given.gpu_num * ((product.spot_price or 0) if spot else product.price),
        max_rootfs_size=product.max_rootfs,
    )


def _ports(value: str) -> tuple[Port, ...]:
    try:
        return parse_ports(value)
    except Refusal as refusal:
        raise ControlError(refusal.message) from None


class Change(Given):
    """The fields to change."""

    name: Annotated[str, Field(max_length=255)] | None = None
    status: Status | None = None
    error_state: str = ""
    error_message: str = ""
    service_status: Annotated[int, Field(ge=200, le=599)] | None = None
    account: AccountName | None = None
    created_at: UnixTime | None = None
    image_url: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    product_id: str | None = None
    gpu_num: Annotated[int, Field(ge=1, le=8)] | None = None
    instance_price: Annotated[int, Field(ge=0)] | None = None


def change(context: Context, given: Change) -> JsonObject:
    """Change an instance outside the API: its status, and the fields that the API shows."""
    instance = context.instance()
    changes: dict[str, Any] = {
        "name": given.name,
        "service_status": given.service_status,
        "told_created_at": given.created_at,
        "image_url": given.image_url,
        "price": given.instance_price,
    }
    instance = replace(instance, **{k: v for k, v in changes.items() if v is not None})
    if given.product_id is not None or given.gpu_num is not None:
        instance = _equipped(context.emulator, instance, given.product_id, given.gpu_num)
    if given.account is not None:
        instance = replace(instance, account=context.emulator.account_of(given.account))
    if given.status is not None:
        error = StatusError(given.error_state, given.error_message)
        instance = lifecycle.jump(instance, context.emulator.clock.now(), given.status, error)
    elif given.error_state or given.error_message:
        raise ControlError("errorState and errorMessage require status")
    return _stored(context, instance)


def _equipped(
    emulator: Emulator, instance: Instance, product_id: str | None, gpu_num: int | None
) -> Instance:
    """Return the instance with another product or number of GPUs; its price does not change."""
    wanted = instance.product_id if product_id is None else product_id
    product = emulator.products.get(wanted)
    if product is None:
        raise ControlError(f"productId: unknown product {wanted!r}")
    gpus = instance.gpu_num if gpu_num is None else gpu_num
    return replace(
        instance,
        product_id=product.id,
        product_name=product.name,
        gpu_num=gpus,
        cpu_num=product.cpu * gpus,
        memory=product.memory * gpus,
    )


class Copy(Given):
    """The fields in which the copy differs."""

    name: Annotated[str, Field(max_length=255)] | None = None
    created_at: UnixTime | None = None
    status: Status | None = None


def copy(context: Context, given: Copy) -> JsonObject:
    """Create a live copy of an instance; the copy of a removed instance is running.

    The copy of an instance that is held in a status is not held.
    """
    emulator, source = context.emulator, replace(context.instance(), held=None)
    now = emulator.clock.now()
    status = phase(source, now).status
    if given.status is not None or status in GONE:
        ahead: tuple[Step, ...] = ()
        status = given.status or Status.RUNNING
        booted_at = now if status is Status.RUNNING else NEVER
    else:
        ahead = tuple(step for step in source.steps if step.at > now)
        booted_at = max(now, source.booted_at)
    copied = replace(
        source,
        id=emulator.hex_id(),
        name=source.name if given.name is None else given.name,
        created_at=now,
        told_created_at=given.created_at,
        created_by=CONTROL,
        steps=(Step(now, status), *ahead),
        booted_at=booted_at,
        deleted_at=NEVER,
        deleted_by="",
    )
    return _stored(context, copied)


class HoldBody(Given):
    """The status to hold an instance in; null ends the hold."""

    status: Status | None


def hold(context: Context, given: HoldBody) -> JsonObject:
    """Hold an instance in a status until the hold ends or the instance is deleted."""
    return _stored(context, replace(context.instance(), held=given.status))


class PaceBody(Given):
    """Whether the change happens at once or through the intermediate statuses."""

    gradually: bool = False


def stop(context: Context, given: PaceBody) -> JsonObject:
    """Stop an instance outside the API."""
    emulator, instance = context.emulator, _present(context)
    now = emulator.clock.now()
    if not given.gradually:
        return _stored(context, lifecycle.jump(instance, now, Status.EXITED))
    return _stored(context, _allowed(lambda: lifecycle.stop(instance, now, emulator.pace)))


def delete(context: Context, given: PaceBody) -> JsonObject:
    """Delete an instance outside the API."""
    emulator, instance = context.emulator, _present(context)
    now = emulator.clock.now()
    if given.gradually:
        gone = _allowed(lambda: lifecycle.remove(instance, now, emulator.pace, CONTROL))
    else:
        gone = lifecycle.jump(instance, now, Status.REMOVED)
        gone = replace(gone, deleted_at=now, deleted_by=CONTROL)
    return _stored(context, gone)


class Notice(Given):
    """When a reclaim is announced."""

    notice_seconds: Seconds = NOTICE_SECONDS
    protect: bool = False


def notice(context: Context, given: Notice) -> JsonObject:
    """Announce the reclaim of a spot instance; `protect` delays it to the end of the first hour."""
    emulator, instance = context.emulator, _spot(context)
    planned = lifecycle.schedule_reclaim(
        instance,
        emulator.clock.now(),
        emulator.pace,
        notice=given.notice_seconds,
        protect=given.protect,
    )
    return _stored(context, planned)


class Reclaim(Given):
    """Whether a reclaim ends at once."""

    immediately: bool = False


def reclaim(context: Context, given: Reclaim) -> JsonObject:
    """Reclaim a spot instance now: first reclaiming, then exited and terminated."""
    emulator, instance = context.emulator, _spot(context)
    now = emulator.clock.now()
    lasts = 0.0 if given.immediately else emulator.settings.delays.draw(emulator.rng, "reclaiming")
    announced = min(now, instance.spot.notified_at) if instance.spot else now
    return _stored(context, replace(instance, spot=SpotPlan(announced, now, now + lasts)))


def _present(context: Context) -> Instance:
    instance = context.instance()
    if phase(instance, context.emulator.clock.now()).status is Status.REMOVED:
        raise ControlError(f"instance {instance.id} is removed")
    return instance


def _spot(context: Context) -> Instance:
    instance = _present(context)
    if instance.billing_mode is not BillingMode.SPOT:
        raise ControlError(f"instance {instance.id} is not a spot instance")
    return instance


def _allowed(operation: Callable[[], Instance]) -> Instance:
    try:
        return operation()
    except Refusal as refusal:
        raise ControlError(refusal.message) from None


def _stored(context: Context, instance: Instance) -> JsonObject:
    now = context.emulator.clock.now()
    context.emulator.put(instance, now)
    return instance_view(instance, now)


ENDPOINTS: list[Endpoint] = [
    endpoint("POST", "/seed", Seed, seed),
    endpoint("PATCH", "/instances/{id}", Change, change),
    endpoint("POST", "/instances/{id}/copy", Copy, copy),
    endpoint("POST", "/instances/{id}/hold", HoldBody, hold),
    endpoint("POST", "/instances/{id}/stop", PaceBody, stop),
    endpoint("POST", "/instances/{id}/delete", PaceBody, delete),
    endpoint("POST", "/instances/{id}/notice", Notice, notice),
    endpoint("POST", "/instances/{id}/reclaim", Reclaim, reclaim),
]
