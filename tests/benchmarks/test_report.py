# SPDX-License-Identifier: Apache-2.0
"""Lines of benchmarks: verdicts, the table, JSON, and the tables of a page."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import orjson
import pytest

from benchmarks import report
from benchmarks.report import Goal, Line, against, at_least, at_most

MACHINE: Final[dict[str, object]] = {"load": "0.1 0.2 0.3", "processors": 2}


def line(goal: Goal | None, ratio: float | None, cpu_ratio: float | None = None) -> Line:
    """Return a line with these ratios."""
    return Line("reads", "one", "SQLite", 5.0, "/s", ratio=ratio, cpu_ratio=cpu_ratio, goal=goal)


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (line(at_least(0.5), 0.5), "met"),
        (line(at_least(0.5), 0.49), "missed"),
        (line(at_least(0.5), 0.6, 0.49), "missed"),
        (line(at_least(0.5), 0.49, 0.6), "missed"),
        (line(at_least(0.5), 0.6, 0.5), "met"),
        (line(at_most(2), 2.1), "missed"),
        (line(at_most(2), 1.9), "met"),
        (line(at_most(5), None), "met"),
        (line(at_most(4), None), "missed"),
        (line(None, 0.1), ""),
    ],
)
def test_the_worse_ratio_decides(one: Line, verdict: str) -> None:
    """The goal holds for both ratios or, without a yardstick, for the figure."""
    assert one.verdict == verdict


def test_a_ratio_is_that_of_the_figure_to_the_yardstick() -> None:
    """A line without rounds of pairs computes its ratio."""
    assert against("creates", "all", "", 30.0, 20.0, "s").ratio == 1.5


def test_a_row_has_every_column() -> None:
    """The heading and a row have the same columns, and absent values are dashes."""
    shown = report.row(line(at_least(0.5), 0.049))
    assert report.heading().split() == [
        *("measure", "store", "figure", "yardstick", "ratio", "CPU", "CPU", "ratio"),
        *("goal", "verdict"),
    ]
    assert shown.split() == [
        "one",
        "SQLite",
        "5.00",
        "/s",
        "–",
        "0.049",
        "–",
        "–",
        *("≥", "0.5", "missed"),
    ]


def test_the_json_has_the_machine_and_the_verdicts() -> None:
    """The JSON has the load, every line with its goal as text and its verdict, and the notes."""
    read = orjson.loads(report.to_json(MACHINE, [line(at_most(5), None)], ["x skipped"]))
    assert read["machine"]["load"] == "0.1 0.2 0.3"
    assert [(one["goal"], one["verdict"]) for one in read["lines"]] == [("≤ 5", "met")]
    assert read["notes"] == ["x skipped"]


def test_only_the_tables_of_groups_that_ran_are_replaced(tmp_path: Path) -> None:
    """A page keeps its text and the tables of other groups."""
    page = tmp_path / "page.md"
    block = "<!-- begin {0} -->\nold {0}\n<!-- end {0} -->\n"
    page.write_text(f"Text.\n{block.format('reads')}More.\n{block.format('creates')}End.\n")
    assert report.rewrite(page, MACHINE, [line(None, None)]) == ["reads"]
    written = page.read_text()
    assert "old reads" not in written
    assert "Load 0.1 0.2 0.3, processors 2.\n\n| measure | store |" in written
    assert "| one | SQLite | 5.00 /s |" in written
    assert written.startswith("Text.\n<!-- begin reads -->\n")
    assert written.endswith(f"<!-- end reads -->\nMore.\n{block.format('creates')}End.\n")
