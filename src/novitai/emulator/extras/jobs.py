# SPDX-License-Identifier: Apache-2.0
"""Jobs and image prewarming (upstream.md §12)."""

from __future__ import annotations

from dataclasses import replace

from novitai.emulator import lifecycle, wire
from novitai.emulator.calling import Call, JsonObject, Reply, ok, strings, text
from novitai.emulator.errors import Refusal, invalid_state_change, not_found
from novitai.emulator.gate import RouteTable
from novitai.emulator.instances import Status
from novitai.emulator.resources import Job, Prewarm
from novitai.emulator.routes.operations import wanted
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator

PREWARM_LIMIT = 20
PREWARM_IMAGE_GB = 100


def list_jobs(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`GET /jobs`: newest first."""
    offset, size = call.page()
    job_id, state, kind = call.param("jobId"), call.param("state"), call.param("type")
    since, until = call.number("startTime"), call.number("endTime", default=2**62)
    matching = [
        job
        for job in reversed(emulator.jobs.values())
        if _owns(emulator, call, job)
        and (not job_id or job.id == job_id)
        and (not state or job.state(call.now) == state)
        and (not kind or job.type == kind)
        and since <= job.created_at <= until
    ]
    return ok(
        {
            "jobs": [wire.job(job, call.now) for job in matching[offset : offset + size]],
            "total": len(matching),
        }
    )


def save_image(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /job/save/image`; the instance must be running or exited."""
    instance = wanted(emulator, call)
    text(call.body, "image", least=1, most=4095)
    auth_id = text(call.body, "registryAuthId")
    if auth_id and auth_id not in emulator.auths:
        raise Refusal(400, "IMAGE_URL_OR_AUTH_ERROR", "image auth not found")
    lifecycle.require(instance, call.now, Status.RUNNING, Status.EXITED)
    if emulator.on_job(instance.id, call.now):
        raise invalid_state_change()
    running_at = call.now + 1
    job = Job(
        emulator.job_id(),
        "saveImage",
        instance.id,
        call.now,
        running_at,
        running_at + emulator.settings.delays.draw(emulator.rng, "saving"),
    )
    emulator.add_job(job)
    return ok({"jobId": job.id})


def break_job(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /job/break`; a migration cannot be cancelled."""
    job = emulator.jobs.get(text(call.body, "jobId", least=1))
    if job is None or not _owns(emulator, call, job):
        raise not_found("job", "JOB_NOT_FOUND")
    if job.type != "saveImage":
        raise Refusal(400, "MIGRATION_JOB_NOT_BREAKABLE", "migration job is not breakable")
    if job.state(call.now) not in {"pulling", "running"}:
        raise invalid_state_change()
    emulator.add_job(replace(job, broken_at=call.now))
    return ok({"jobId": job.id})


def prewarm_quota(emulator: Emulator, _rows: Rows, _call: Call) -> Reply:
    """`GET /image/prewarm/quota`."""
    return ok(
        {
            "total": len(emulator.prewarms),
            "limit": PREWARM_LIMIT,
            "perImageSize": PREWARM_IMAGE_GB,
        }
    )


def list_prewarms(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`GET /image/prewarm`."""
    offset, size = call.page("page", default_size=10)
    state, cluster_id, name = call.param("state"), call.param("clusterId"), call.param("name")
    matching = [
        each
        for each in emulator.prewarms.values()
        if (not state or each.state(call.now) == state)
        and (not cluster_id or each.cluster_id == cluster_id)
        and name in each.image_url
    ]
    rows = [_prewarm_row(emulator, each, call.now) for each in matching[offset : offset + size]]
    return ok({"data": rows, "total": len(matching)})


def create_prewarm(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /image/prewarm`."""
    if len(emulator.prewarms) >= PREWARM_LIMIT:
        raise Refusal(400, "IMAGE_PREWARM_NUM_LIMIT", "too many prewarmed images")
    products: list[str] = []
    if call.body.get("productIds"):
        products = strings(call.body, "productIds")
    if any(product not in emulator.products for product in products):
        raise not_found("product")
    cluster = emulator.cluster(text(call.body, "clusterId", least=1))
    running_at = call.now + 5
    task = Prewarm(
        f"prewarm-{emulator.hex_id(8)}",
        text(call.body, "imageUrl", least=1, most=500),
        text(call.body, "repositoryAuth"),
        cluster.id,
        tuple(products),
        text(call.body, "note"),
        call.now,
        running_at,
        running_at + emulator.settings.delays.draw(emulator.rng, "pulling"),
    )
    emulator.prewarms[task.id] = task
    return ok({"id": task.id})


def edit_prewarm(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /image/prewarm/edit`: change the note."""
    task = _prewarm(emulator, text(call.body, "id", least=1))
    emulator.prewarms[task.id] = replace(task, note=text(call.body, "note"))
    return ok({})


def delete_prewarms(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /image/prewarm/delete`: for several tasks, all or none."""
    tasks = [_prewarm(emulator, each) for each in strings(call.body, "ids")]
    for task in tasks:
        emulator.prewarms.pop(task.id, None)
    return ok({})


def _owns(emulator: Emulator, call: Call, job: Job) -> bool:
    """Whether the job's instance belongs to the caller's account."""
    instance = emulator.instance_or_none(job.instance_id)
    return instance is None or emulator.owns(call.caller, instance)


def _prewarm(emulator: Emulator, task_id: str) -> Prewarm:
    task = emulator.prewarms.get(task_id)
    if task is None:
        raise not_found("prewarm task")
    return task


def _prewarm_row(emulator: Emulator, task: Prewarm, now: float) -> JsonObject:
    cluster = emulator.clusters.get(task.cluster_id)
    products = [
        (each, emulator.products[each].name)
        for each in task.product_ids
        if each in emulator.products
    ]
    return wire.prewarm(task, now, cluster.name if cluster else "", products)


ROUTES: RouteTable = {
    ("GET", "/jobs"): list_jobs,
    ("POST", "/job/save/image"): save_image,
    ("POST", "/job/break"): break_job,
    ("GET", "/image/prewarm/quota"): prewarm_quota,
    ("GET", "/image/prewarm"): list_prewarms,
    ("POST", "/image/prewarm"): create_prewarm,
    ("POST", "/image/prewarm/edit"): edit_prewarm,
    ("POST", "/image/prewarm/delete"): delete_prewarms,
}
