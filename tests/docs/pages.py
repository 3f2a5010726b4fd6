# SPDX-License-Identifier: Apache-2.0
"""Reading the pages of `docs/`: tables under headings, links, fenced blocks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
Row = list[str]


def page(name: str) -> str:
    """Read a page, named by its path below `docs/`."""
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """Take what stands under a heading, up to the next one of its level or above."""
    match = re.search(rf"^(#+) {re.escape(heading)}\n", text, re.MULTILINE)
    assert match is not None, f"no heading {heading!r}"
    rest = text[match.end() :]
    end = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> list[Row]:
    """Read the rows of every table in a text, without the headings of the columns."""
    found: list[Row] = []
    for line in text.split("\n"):
        if not line.startswith("|"):
            continue
        if re.fullmatch(r"[|\s:-]+", line):
            found.pop()  # what stood before it were the headings
            continue
        found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def code(cell: str) -> str:
    """Take the code of a cell that holds nothing else."""
    match = re.fullmatch(r"`([^`]+)`", cell)
    assert match is not None, f"not one piece of code: {cell!r}"
    return match[1]


def codes(cell: str) -> list[str]:
    """Take every piece of code of a cell."""
    return re.findall(r"`([^`]+)`", cell)


def first_column(text: str) -> list[str]:
    """Take the code in the first cell of every row."""
    return [code(row[0]) for row in rows(text)]
