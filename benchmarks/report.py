# SPDX-License-Identifier: Apache-2.0
"""The result of a benchmark: a figure, and the yardstick measured with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """A figure and its yardstick, in the same unit."""

    name: str
    value: float
    yardstick: float
    unit: str

    @property
    def ratio(self) -> float:
        """The figure divided by its yardstick."""
        return self.value / self.yardstick


def show(results: Iterable[Result]) -> None:
    """Print one line per result."""
    for result in results:
        print(
            f"{result.name:48} {result.value:10.1f} {result.unit:9}"
            f" yardstick {result.yardstick:10.1f}   ratio {result.ratio:.2f}",
            flush=True,
        )
