# SPDX-License-Identifier: Apache-2.0
"""Read the pages of `docs/`: sections, tables and pieces of code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
Row = list[str]


def page(name: str) -> str:
    """Read a page by its path below `docs/`."""
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """Return the text under a heading, up to the next one of its level or above."""
    match = re.search(rf"^(#+) {re.escape(heading)}\n", text, re.MULTILINE)
    assert match is not None, f"no heading {heading!r}"
    rest = text[match.end() :]
    end = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> list[Row]:
    """Read the rows of all tables in a text, without the column headings."""
    found: list[Row] = []
    for line in text.split("\n"):
        if not line.startswith("|"):
            continue
        if re.fullmatch(r"[|\s:-]+", line):
            found.pop()  # the row before the separator has the column headings
            continue
        found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def code(cell: str) -> str:
    """Return the code of a cell that contains nothing else."""
    match = re.fullmatch(r"`([^`]+)`", cell)
    assert match is not None, f"not one piece of code: {cell!r}"
    return match[1]


def codes(cell: str) -> list[str]:
    """Return all pieces of code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def first_column(text: str) -> list[str]:
    """Return the code in the first cell of every row."""
    return [code(row[0]) for row in rows(text)]
