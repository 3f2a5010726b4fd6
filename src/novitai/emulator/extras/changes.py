# SPDX-License-Identifier: Apache-2.0
"""Changes of an instance: edit, migrate, upgrade, and the calls for monthly instances."""

from __future__ import annotations

from dataclasses import replace

from novitai.emulator import lifecycle
from novitai.emulator.calling import Call, Reply, flag, integer, objects, ok, one_of, strings, text
from novitai.emulator.errors import Refusal, invalid, invalid_state_change, not_found
from novitai.emulator.gate import RouteTable
from novitai.emulator.instances import NEVER, BillingMode, Instance, Status, Volume, phase
from novitai.emulator.lifecycle import CREATE, PULL_FAILURE, SUCCESS
from novitai.emulator.resources import Job
from novitai.emulator.routes.creating import (
    MONTH_SECONDS,
    MOST_PORTS,
    can_pull,
    checked_port,
    parse_envs,
)
from novitai.emulator.routes.operations import done, wanted
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator


def edit(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /gpu/instance/edit`: replace the ports, and grow the disk by `expandRootDisk`."""
    instance = _idle(emulator, call)
    more = integer(call.body, "expandRootDisk", default=0)
    ports = instance.ports
    if call.body.get("ports") is not None:
        ports = tuple(
            checked_port(integer(each, "port", least=1, most=65535), text(each, "type"))
            for each in objects(call.body, "ports", most=MOST_PORTS)
        )
    if len(ports) + len(instance.tools) > MOST_PORTS:
        raise invalid(f"ports and tools must not be more than {MOST_PORTS}")
    size = instance.rootfs_size + more
    if size > instance.max_rootfs_size:
        raise invalid(f"rootfsSize must be at most {instance.max_rootfs_size}")
    emulator.put(replace(instance, ports=ports, rootfs_size=size), call.now)
    return done(emulator, instance, call.now)


def migrate(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /gpu/instance/migrate`: start a migration job; the status becomes `migrating`."""
    instance = _idle(emulator, call)
    emulator.charge("EXPIRED_OR_BALANCE_NOT_ENOUGH")
    lifecycle.migrate(instance, call.now, emulator.pace)
    if not emulator.capacity("migrate", instance):
        raise Refusal(400, "MIGRATE_INSUFFICIENT_RESOURCE", "insufficient resource to migrate")
    outcome = emulator.outcome("migrate", instance)
    moved = lifecycle.migrate(instance, call.now, emulator.pace, outcome)
    last = moved.steps[-1]
    emulator.put(moved, call.now)
    job = Job(
        emulator.job_id(),
        "instanceMigrate",
        instance.id,
        call.now,
        running_at=call.now,
        ends_at=NEVER if last.status is Status.MIGRATING else last.at,
        error=last.error.message,
    )
    emulator.add_job(job)
    return ok({"jobId": job.id})


def upgrade(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /gpu/instance/upgrade`: replace image, variables and mounts, through `resetting`."""
    instance = _idle(emulator, call)
    body = call.body
    image_url = text(body, "imageUrl", least=1, most=500)
    auth_id = text(body, "imageAuthId")
    if auth_id and auth_id not in emulator.auths:
        raise Refusal(400, "IMAGE_URL_OR_AUTH_ERROR", "image auth not found")
    flag(body, "save")
    changed = replace(
        instance,
        image_url=image_url,
        image_auth_id=auth_id,
        envs=parse_envs(body),
        command=text(body, "command", most=2047),
        entrypoint=text(body, "entrypoint", most=2047),
        volumes=_volumes(emulator, call, instance),
    )
    outcome = emulator.outcome("upgrade", instance)
    if outcome is SUCCESS and not can_pull(body, image_url, auth_id):
        outcome = PULL_FAILURE
    emulator.put(lifecycle.reset(changed, call.now, emulator.pace, outcome), call.now)
    return done(emulator, instance, call.now)


def renew(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /gpu/instance/renewInstance`; monthly instances only."""
    instance = wanted(emulator, call)
    month = integer(call.body, "month", least=1, most=120)
    if instance.billing_mode is not BillingMode.MONTHLY:
        raise Refusal(400, "UNSUPPORTED_BILLING_MODE", "only a monthly instance can be renewed")
    if phase(instance, call.now).status in CREATE:
        raise Refusal(
            400, "CREATING_INSTANCE_NOT_SUPPORT_RENEWAL", "instance is still being created"
        )
    emulator.charge("BALANCE_NOT_ENOUGH")
    end_time = max(instance.end_time, int(call.now)) + month * MONTH_SECONDS
    emulator.put(replace(instance, end_time=end_time), call.now)
    return done(emulator, instance, call.now)


def to_monthly(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /gpu/instance/transToMonthlyInstance`; on-demand only, not if pending or stopped."""
    instance = wanted(emulator, call)
    month = integer(call.body, "month", least=1, most=120)
    product = emulator.products.get(instance.product_id)
    if instance.billing_mode is not BillingMode.ON_DEMAND or (
        product is not None and BillingMode.MONTHLY not in product.modes
    ):
        raise Refusal(400, "UNSUPPORTED_BILLING_MODE", "cannot be made monthly")
    if phase(instance, call.now).status in {
        Status.EXITED,
        Status.PENDING,
        Status.STOPPING,
        Status.TO_STOP,
    }:
        raise invalid_state_change()
    emulator.charge("BALANCE_NOT_ENOUGH")
    emulator.put(
        replace(
            instance,
            billing_mode=BillingMode.MONTHLY,
            end_time=int(call.now) + month * MONTH_SECONDS,
        ),
        call.now,
    )
    return done(emulator, instance, call.now)


def set_auto_renew(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /gpu/instance/setAutoRenew`: for several instances, all or none."""
    renewing = flag(call.body, "autoRenew")
    month = integer(call.body, "autoRenewMonth", default=1, least=1, most=12)
    found = [
        emulator.instance(one, call.now, call.caller) for one in strings(call.body, "instanceIds")
    ]
    if any(each.billing_mode is not BillingMode.MONTHLY for each in found):
        raise Refusal(400, "UNSUPPORTED_BILLING_MODE", "only a monthly instance can be renewed")
    for each in found:
        emulator.put(replace(each, auto_renew=renewing, auto_renew_month=month), call.now)
    return ok({})


def set_auto_migrate(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /gpu/instance/setAutoMigrate`."""
    instance = wanted(emulator, call)
    flag(call.body, "autoMigrateSystemDisk")
    emulator.put(replace(instance, auto_migrate=flag(call.body, "autoMigrateOpen")), call.now)
    return ok({})


def _idle(emulator: Emulator, call: Call) -> Instance:
    """Return the instance if it is running or exited and has no unfinished job."""
    instance = wanted(emulator, call)
    lifecycle.require(instance, call.now, Status.RUNNING, Status.EXITED)
    if emulator.on_job(instance.id, call.now):
        raise invalid_state_change()
    return instance


def _volumes(emulator: Emulator, call: Call, instance: Instance) -> tuple[Volume, ...]:
    volume = call.body.get("networkVolume")
    mounts = objects(volume, "volumeMounts", most=30) if isinstance(volume, dict) else []
    volumes = []
    for each in mounts:
        one_of(text(each, "type") or "network", ("network",), "volume type")
        storage = emulator.storages.get(text(each, "id", least=1))
        if storage is None or storage.cluster_id != instance.cluster_id:
            raise not_found("network storage", "NETWORK_STORAGE_NOT_FOUND")
        path = text(each, "mountPath", least=1, most=4095)
        volumes.append(Volume("network", storage.size, storage.id, path))
    return tuple(volumes)


ROUTES: RouteTable = {
    ("POST", "/gpu/instance/edit"): edit,
    ("POST", "/gpu/instance/migrate"): migrate,
    ("POST", "/gpu/instance/upgrade"): upgrade,
    ("POST", "/gpu/instance/renewInstance"): renew,
    ("POST", "/gpu/instance/transToMonthlyInstance"): to_monthly,
    ("POST", "/gpu/instance/setAutoRenew"): set_auto_renew,
    ("POST", "/gpu/instance/setAutoMigrate"): set_auto_migrate,
}
