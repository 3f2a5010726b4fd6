# SPDX-License-Identifier: Apache-2.0
"""How busy an instance is: levels in percent that a test sets, each from a time on.

Without a level, a metric has plausible values that depend only on the instance and the time.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Metric = Literal["gpu", "gpuMemory", "cpu", "memory", "disk"]

METRICS: tuple[Metric, ...] = ("gpu", "gpuMemory", "cpu", "memory", "disk")

Level = tuple[float, ...] | None
"""Percent, for each GPU or one value for all; None is a gap, in which there are no points."""


@dataclass(frozen=True, slots=True)
class Utilization:
    """The levels of an instance: at each time, in order, those of all metrics that were set."""

    times: tuple[float, ...] = ()
    levels: tuple[Mapping[Metric, Level], ...] = field(default=())

    def set(self, at: float, changes: Mapping[Metric, Level]) -> Utilization:
        """Set levels from a time on; levels that were set for later times are dropped."""
        kept = bisect_right(self.times, at)
        before = self.levels[kept - 1] if kept else {}
        return replace(
            self,
            times=(*self.times[:kept], at),
            levels=(*self.levels[:kept], {**before, **changes}),
        )

    def value(self, seed: str, metric: Metric, gpu: int, at: float) -> float | None:
        """Return the percentage of a metric, for a GPU if it is per GPU; None in a gap."""
        index = bisect_right(self.times, at)
        if index and metric in self.levels[index - 1]:
            level = self.levels[index - 1][metric]
            if level is None:
                return None
            return level[gpu] if gpu < len(level) else level[-1]
        return _plausible(f"{seed}:{metric}:{gpu}:{int(at)}")


def _plausible(text: str) -> float:
    digest = hashlib.blake2b(text.encode(), digest_size=2).digest()
    return round(20 + int.from_bytes(digest, "big") / 65535 * 60, 2)
