# SPDX-License-Identifier: Apache-2.0
"""Lines of results, and how they are shown: as a table, as JSON and in a page of the docs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import orjson

_COLUMNS: Final = (
    ("measure", 46),
    ("store", 14),
    ("figure", 16),
    ("yardstick", 16),
    ("ratio", 6),
    ("CPU", 16),
    ("CPU ratio", 9),
    ("goal", 8),
    ("verdict", 7),
)
NONE: Final = "–"


@dataclass(frozen=True, slots=True)
class Goal:
    """The least or greatest value of a ratio or, without a yardstick, of a figure."""

    bound: float
    at_least: bool

    def met_by(self, value: float) -> bool:
        """Whether a value meets the goal."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


def at_least(bound: float) -> Goal:
    """Return the goal of at least this value."""
    return Goal(bound, at_least=True)


def at_most(bound: float) -> Goal:
    """Return the goal of at most this value."""
    return Goal(bound, at_least=False)


@dataclass(frozen=True, slots=True)
class Line:
    """One result.

    Attributes:
        group: The name of the group that measured it.
        measure: The name of the measure.
        store: `SQLite`, `PostgreSQL`, or `PostgreSQL × 2` for two API processes; empty if no
            store takes part.
        figure: The median.
        unit: The unit of `figure` and `yardstick`.
        yardstick: The median of the yardstick; None if the figure is judged by itself.
        ratio: The median, over the rounds, of the figure divided by the yardstick.
        cpu: CPU time of the server processes per request, in microseconds.
        yardstick_cpu: The same of the yardstick's server.
        cpu_ratio: The median, over the rounds, of the yardstick's CPU time divided by ours.
        goal: The goal; None if there is none.
        rounds: The number of measurements behind the figure.
    """

    group: str
    measure: str
    store: str
    figure: float
    unit: str
    yardstick: float | None = None
    ratio: float | None = None
    cpu: float | None = None
    yardstick_cpu: float | None = None
    cpu_ratio: float | None = None
    goal: Goal | None = None
    rounds: int = 1

    @property
    def verdict(self) -> str:
        """`met` or `missed`; the lower of the two ratios decides. Empty without a goal."""
        if self.goal is None:
            return ""
        values = [ratio for ratio in (self.ratio, self.cpu_ratio) if ratio is not None]
        met = all(self.goal.met_by(value) for value in values or [self.figure])
        return "met" if met else "missed"

    def cells(self) -> tuple[str, ...]:
        """Return its text in each column of the table."""
        return (
            self.measure,
            self.store or NONE,
            f"{_number(self.figure)} {self.unit}",
            NONE if self.yardstick is None else f"{_number(self.yardstick)} {self.unit}",
            NONE if self.ratio is None else _ratio(self.ratio),
            NONE if self.cpu is None else _cpu(self.cpu, self.yardstick_cpu),
            NONE if self.cpu_ratio is None else _ratio(self.cpu_ratio),
            NONE if self.goal is None else str(self.goal),
            self.verdict or NONE,
        )


def against(
    group: str,
    measure: str,
    store: str,
    figure: float,
    yardstick: float,
    unit: str,
    goal: Goal | None = None,
    rounds: int = 1,
) -> Line:
    """Return a line whose ratio is that of the figure to the yardstick."""
    ratio = figure / yardstick
    return Line(group, measure, store, figure, unit, yardstick, ratio, goal=goal, rounds=rounds)


def heading() -> str:
    """Return the headings of the table."""
    return _row([name for name, _ in _COLUMNS])


def row(line: Line) -> str:
    """Return a line as a row of the table."""
    return _row(line.cells())


def to_json(machine: Mapping[str, object], lines: Sequence[Line], notes: Sequence[str]) -> bytes:
    """Return a whole run as JSON."""
    rows = [{**asdict(line), "goal": _told(line), "verdict": line.verdict} for line in lines]
    body = {"machine": machine, "lines": rows, "notes": list(notes)}
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def rewrite(page: Path, machine: Mapping[str, object], lines: Sequence[Line]) -> list[str]:
    """Replace the tables of a page for each group that has lines; return the groups replaced.

    The table of a group is between the comments `<!-- begin GROUP -->` and `<!-- end GROUP -->`.
    """
    text = page.read_text(encoding="utf-8")
    done = []
    for group in dict.fromkeys(line.group for line in lines):
        block = re.compile(rf"(<!-- begin {group} -->\n).*?(<!-- end {group} -->)", re.DOTALL)
        if block.search(text) is None:
            continue
        table = markdown(machine, [line for line in lines if line.group == group])
        text = block.sub(lambda found, table=table: found[1] + table + found[2], text)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        done.append(group)
    page.write_text(text, encoding="utf-8")
    return done


def markdown(machine: Mapping[str, object], lines: Sequence[Line]) -> str:
    """Return lines as a Markdown table, with one sentence about the machine above it."""
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    rows = [f"| {' | '.join(line.cells())} |" for line in lines]
    head = [f"| {' | '.join(name for name, _ in _COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    return "\n".join([f"{facts[0].upper()}{facts[1:]}.", "", *head, *rows, ""])


def _told(line: Line) -> str | None:
    return None if line.goal is None else str(line.goal)


def _row(cells: Sequence[str]) -> str:
    widths = [width for _, width in _COLUMNS]
    padded = [
        cell.ljust(width) if number in {0, 1, 8} else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _number(value: float) -> str:
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 or value == 0 else f"{value:.{1 if size >= 10 else 2}f}"


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _cpu(ours: float, yardstick: float | None) -> str:
    return f"{_number(ours)} µs" if yardstick is None else f"{ours:,.0f} / {yardstick:,.0f} µs"
