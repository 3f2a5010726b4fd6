# SPDX-License-Identifier: Apache-2.0
"""What a benchmark reports: a figure, and the yardstick that was measured beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """One figure and the yardstick it is to be read against, in the same unit."""

    name: str
    value: float
    yardstick: float
    unit: str

    @property
    def ratio(self) -> float:
        """The figure as a multiple of its yardstick."""
        return self.value / self.yardstick


def show(results: Iterable[Result]) -> None:
    """Print results, a line each."""
    for result in results:
        print(
            f"{result.name:48} {result.value:10.1f} {result.unit:9}"
            f" yardstick {result.yardstick:10.1f}   ratio {result.ratio:.2f}",
            flush=True,
        )
