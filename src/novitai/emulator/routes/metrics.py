# SPDX-License-Identifier: Apache-2.0
"""Metrics of an instance; the endpoint has another base path (upstream.md §14)."""

from __future__ import annotations

from collections.abc import Callable

from novitai.emulator.calling import Call, JsonObject, Reply, ok
from novitai.emulator.errors import invalid
from novitai.emulator.gate import RouteTable
from novitai.emulator.instances import Instance, Status, phase
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator
from novitai.emulator.utilization import Metric, Utilization

INTERVAL_SECONDS = 15
DEFAULT_SECONDS = 60
MOST_POINTS = 2000

_Value = Callable[[int], float | None]


def metrics(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`GET /openapi/v1/metrics/gpu/instance`; invalid values fall back to the defaults."""
    if not call.param("instanceId"):
        raise invalid("instanceId is required")
    instance = emulator.instance(call.param("instanceId"), call.now, call.caller)
    newest = int(call.now - emulator.settings.metrics_lag_seconds)
    end = min(_number(call, "endTime", int(call.now)), newest)
    begin = _number(call, "startTime", end - DEFAULT_SECONDS)
    interval = _number(call, "interval", INTERVAL_SECONDS)
    if interval < INTERVAL_SECONDS or begin > end:
        interval = INTERVAL_SECONDS
        begin = min(begin, end - DEFAULT_SECONDS)
    begin = max(begin, end - interval * MOST_POINTS)
    times = [
        at
        for at in range(begin, end + 1, interval)
        if at >= instance.created_at and phase(instance, at).status is Status.RUNNING
    ]
    levels = emulator.utilizations.get(instance.id, Utilization())
    return ok(
        {
            "cpuUtilization": _series(times, _value(levels, instance, "cpu")),
            "memUtilization": _series(times, _value(levels, instance, "memory")),
            "rootDiskUtilization": _series(times, _value(levels, instance, "disk")),
            "gpuUtilization": _gpu_series(times, levels, instance, "gpu"),
            "gpuMemUtilization": _gpu_series(times, levels, instance, "gpuMemory"),
        }
    )


def _number(call: Call, name: str, default: int) -> int:
    value = call.param(name)
    return int(value) if value.isascii() and value.isdigit() and len(value) < 12 else default


def _value(levels: Utilization, instance: Instance, metric: Metric, gpu: int = 0) -> _Value:
    return lambda at: levels.value(instance.id, metric, gpu, at)


def _series(times: list[int], value: _Value) -> list[JsonObject]:
    points = ((at, value(at)) for at in times)
    return [{"timestamp": str(at), "value": shown} for at, shown in points if shown is not None]


def _gpu_series(
    times: list[int], levels: Utilization, instance: Instance, metric: Metric
) -> JsonObject:
    """Return the series of each GPU, and of their average."""
    gpus = [_value(levels, instance, metric, number) for number in range(instance.gpu_num)]

    def average(at: int) -> float | None:
        shown = [each for each in (value(at) for value in gpus) if each is not None]
        return round(sum(shown) / len(shown), 2) if shown else None

    return {
        "avg": _series(times, average),
        "gpuIds": [
            {"gpuId": f"GPU-{instance.id}-{number}", "items": _series(times, value)}
            for number, value in enumerate(gpus)
        ],
    }


ROUTES: RouteTable = {("GET", "/openapi/v1/metrics/gpu/instance"): metrics}
