# SPDX-License-Identifier: Apache-2.0
"""Sets how busy an instance is, and gaps in its metrics."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from novitai.emulator.calling import JsonObject
from novitai.emulator.control.endpoint import (
    Context,
    ControlError,
    Endpoint,
    Given,
    Nothing,
    endpoint,
)
from novitai.emulator.utilization import METRICS, Level, Metric, Utilization

Percent = Annotated[float, Field(ge=0, le=100)]
PerGpu = Percent | Annotated[tuple[Percent, ...], Field(min_length=1, max_length=8)]


class Levels(Given):
    """Percentages from a time on, by default now; null is a gap. GPU levels may be one per GPU."""

    at: Annotated[float, Field(ge=0, le=2**40)] | None = None
    gpu: PerGpu | None = None
    gpu_memory: PerGpu | None = None
    cpu: Percent | None = None
    memory: Percent | None = None
    disk: Percent | None = None
    gap: bool = False

    @model_validator(mode="after")
    def _something(self) -> Levels:
        named = self.model_fields_set - {"at", "gap"}
        if not named and not self.gap:
            raise ValueError("give at least one of gpu, gpuMemory, cpu, memory, disk, gap")
        if named and self.gap:
            raise ValueError("gap is a gap in all metrics; give null for a gap in one of them")
        return self

    def changes(self) -> dict[Metric, Level]:
        """Return the levels that were given."""
        if self.gap:
            return dict.fromkeys(METRICS)
        given: dict[Metric, float | tuple[float, ...] | None] = {
            "gpu": self.gpu,
            "gpuMemory": self.gpu_memory,
            "cpu": self.cpu,
            "memory": self.memory,
            "disk": self.disk,
        }
        names = {"gpuMemory": "gpu_memory"}
        return {
            metric: (level,) if isinstance(level, int | float) else level
            for metric, level in given.items()
            if names.get(metric, metric) in self.model_fields_set
        }


def show(context: Context, _given: Nothing) -> JsonObject:
    """Show the levels that were set for an instance."""
    instance_id = context.instance().id
    levels = context.emulator.utilizations.get(instance_id, Utilization())
    return {
        "levels": [{"at": at, **each} for at, each in zip(levels.times, levels.levels, strict=True)]
    }


def change(context: Context, given: Levels) -> JsonObject:
    """Set levels of an instance from a time on; levels set for later times are dropped."""
    emulator, instance = context.emulator, context.instance()
    changes = given.changes()
    for metric, level in changes.items():
        if level is not None and len(level) not in {1, instance.gpu_num}:
            raise ControlError(f"{metric}: the instance has {instance.gpu_num} GPUs")
    at = emulator.clock.now() if given.at is None else given.at
    levels = emulator.utilizations.get(instance.id, Utilization())
    emulator.utilizations[instance.id] = levels.set(at, changes)
    return show(context, Nothing())


ENDPOINTS: list[Endpoint] = [
    endpoint("GET", "/instances/{id}/utilization", Nothing, show),
    endpoint("POST", "/instances/{id}/utilization", Levels, change),
]
