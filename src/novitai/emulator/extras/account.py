# SPDX-License-Identifier: Apache-2.0
"""Metrics, balance and bills; these endpoints have other base paths (upstream.md §14)."""

from __future__ import annotations

import hashlib

from novitai.emulator.calling import Call, JsonObject, Reply, ok, one_of
from novitai.emulator.errors import invalid
from novitai.emulator.gate import RouteTable
from novitai.emulator.instances import Instance, Status
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator
from novitai.emulator.wire import unix, user_of

METRICS_LAG_SECONDS = 60
METRICS_INTERVAL_SECONDS = 15
MOST_POINTS = 2000

_FREE = frozenset(
    {
        Status.PENDING,
        Status.TO_CREATE,
        Status.CREATING,
        Status.EXITED,
        Status.TO_START,
        Status.STARTING,
        Status.REMOVED,
    }
)

_CYCLES = ("Hour", "Day", "Week", "Month")
_CATEGORIES = (
    "summary",
    "gpu",
    "llm",
    "serverless",
    "cloud_storage",
    "gen_api",
    "cloud_sandbox",
    "llm_dedicated_endpoint",
    "web_search",
    "bare_metal",
)


def metrics(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`GET /openapi/v1/metrics/gpu/instance`; invalid values fall back to the defaults."""
    if not call.param("instanceId"):
        raise invalid("instanceId is required")
    instance = emulator.instance(call.param("instanceId"), call.now, call.caller)
    end = min(_number(call, "endTime", int(call.now)), int(call.now) - METRICS_LAG_SECONDS)
    begin = _number(call, "startTime", end - 60)
    interval = _number(call, "interval", METRICS_INTERVAL_SECONDS)
    if interval < METRICS_INTERVAL_SECONDS or begin > end:
        interval = METRICS_INTERVAL_SECONDS
        begin = min(begin, end - 60)
    begin = max(begin, end - interval * MOST_POINTS)
    times = [at for at in range(begin, end + 1, interval) if _ran(instance, at)]
    gpus = [f"GPU-{instance.id}-{number}" for number in range(instance.gpu_num)]
    return ok(
        {
            "cpuUtilization": _series(instance, "cpu", times),
            "memUtilization": _series(instance, "mem", times),
            "rootDiskUtilization": _series(instance, "disk", times),
            "gpuUtilization": _gpu_series(instance, "gpu", gpus, times),
            "gpuMemUtilization": _gpu_series(instance, "gpu-mem", gpus, times),
        }
    )


def balance(emulator: Emulator, _rows: Rows, _call: Call) -> Reply:
    """`GET /openapi/v1/billing/balance/detail`; amounts are strings in 1/10000 USD."""
    amount = str(emulator.settings.balance)
    return ok(
        {
            "availableBalance": amount,
            "cashBalance": amount,
            "creditLimit": "0",
            "pendingCharges": "0",
            "outstandingInvoices": "0",
        }
    )


def bills(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`GET /openapi/v1/billing/bill/list`: one bill per instance that was billed in the period."""
    one_of(call.param("cycleType") or "Day", _CYCLES, "cycleType")
    category = one_of(call.param("productCategory") or "gpu", _CATEGORIES, "productCategory")
    begin = call.number("startTime", default=int(call.now) - 86_400)
    end = min(call.number("endTime", default=int(call.now)), int(call.now))
    if end - begin > 31 * 86_400:
        raise invalid("startTime and endTime must be at most 31 days apart")
    rows = []
    user = user_of(emulator.owner(call.caller))
    if category in {"gpu", "summary"}:
        for instance in emulator.ever():
            if not emulator.owns(call.caller, instance):
                continue
            seconds = billed_seconds(instance, begin, end)
            if seconds > 0:
                rows.append(_bill(user, instance, begin, end, seconds))
    return ok({"bills": rows})


def billed_seconds(instance: Instance, begin: float, end: float) -> float:
    """Return the billed time in seconds: from `pulling` until stopped (upstream.md §8)."""
    total = 0.0
    ends = [*(step.at for step in instance.steps[1:]), end]
    for step, until in zip(instance.steps, ends, strict=True):
        if step.status not in _FREE:
            total += max(0.0, min(until, end) - max(step.at, begin))
    return total


def _bill(user: str, instance: Instance, begin: float, end: float, seconds: float) -> JsonObject:
    amount = str(round(instance.price * seconds / 3600))
    return {
        "userId": user,
        "startTime": unix(begin),
        "endTime": unix(end),
        "billingMethod": instance.billing_mode,
        "productName": instance.product_name,
        "category": "gpu",
        "ownerID": instance.id,
        "billNum0": str(round(seconds)),
        "billNum1": "0",
        "basePrice0": str(instance.price),
        "basePrice1": "0",
        "discountPrice0": str(instance.price),
        "discountPrice1": "0",
        "amount": amount,
        "voucherAmount": "0",
        "payAmount": amount,
        "payAmountDisplay": amount,
        "pricePrecision": "100000",
        "productId": instance.product_id,
    }


def _number(call: Call, name: str, default: int) -> int:
    value = call.param(name)
    return int(value) if value.isascii() and value.isdigit() and len(value) < 12 else default


def _ran(instance: Instance, at: float) -> bool:
    status = None
    for step in instance.steps:
        if step.at > at:
            break
        status = step.status
    return status is Status.RUNNING


def _series(instance: Instance, what: str, times: list[int]) -> list[JsonObject]:
    return [{"timestamp": str(at), "value": _value(instance, what, at)} for at in times]


def _gpu_series(instance: Instance, what: str, gpus: list[str], times: list[int]) -> JsonObject:
    return {
        "avg": _series(instance, what, times),
        "gpuIds": [
            {"gpuId": gpu, "items": _series(instance, f"{what}-{gpu}", times)} for gpu in gpus
        ],
    }


def _value(instance: Instance, what: str, at: int) -> float:
    """Return a plausible percentage that depends only on the arguments."""
    digest = hashlib.blake2b(f"{instance.id}:{what}:{at}".encode(), digest_size=2).digest()
    return round(20 + int.from_bytes(digest, "big") / 65535 * 60, 2)


ROUTES: RouteTable = {
    ("GET", "/openapi/v1/metrics/gpu/instance"): metrics,
    ("GET", "/openapi/v1/billing/balance/detail"): balance,
    ("GET", "/openapi/v1/billing/bill/list"): bills,
}
