# SPDX-License-Identifier: Apache-2.0
"""Every suppressed check, broad `except` and skipped test has a reason on its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("src", "clients", "tests", "ui/tests", "benchmarks", "tools", "deploy")
    for path in (ROOT / folder).rglob("*.py")
)
WITHOUT_REASON = re.compile(
    r"# type: ignore\[[a-z, -]+\]\s*$"
    r"|# noqa: [A-Z0-9, ]+$"
    r"|# noqa\s*$"
    r"|except (?:Base)?Exception(?: as \w+)?:\s*$"
    r"|\bsuppress\([^)#]*\b(?:Base)?Exception\b[^)#]*\):\s*$"
    r"|pytest\.skip\(\s*\)"
    r"|mark\.(?:skip|skipif|xfail)\b(?!\(.*\breason=)"
    r"|importorskip\((?!.*\breason=)"
)


def unexplained(text: str) -> list[int]:
    """List the numbers of the lines that suppress a check without a reason."""
    lines = enumerate(text.splitlines(), start=1)
    return [number for number, line in lines if WITHOUT_REASON.search(line)]


def test_what_is_switched_off_says_why() -> None:
    """A suppressed check, an `except` for every error, and a skip have a reason on their line."""
    assert SOURCES
    found = {str(path.relative_to(ROOT)): unexplained(path.read_text()) for path in SOURCES}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("x = y  # type: " + "ignore[arg-type]", [1]),
        ("x = y  # type: " + "ignore[arg-type]  # text is meant", []),
        ("open(x)  # " + "noqa: S1, PTH123", [1]),
        ("open(x)  # " + "noqa: S1 - a device", []),
        ("open(x)  # " + "noqa", [1]),
        ("except " + "Exception:", [1]),
        ("except " + "Exception as error:", [1]),
        ("except " + "Exception:  # any error of the plug-in", []),
        ("except OSError:", []),
        ("with suppress(" + "Exception):", [1]),
        ("with contextlib.suppress(" + "Exception, CancelledError):", [1]),
        ("with suppress(" + "Exception):  # any error of the peer", []),
        ("with suppress(OSError):", []),
        ("pytest.skip" + "()", [1]),
        ("pytest.skip" + "(reason)", []),
        ("@pytest.mark." + "skip", [1]),
        ("@pytest.mark." + "skipif(not LINUX)", [1]),
        ("@pytest.mark." + 'skipif(not LINUX, reason="only Linux has it")', []),
        ("importorskip" + '("redis")', [1]),
    ],
)
def test_a_reason_is_seen(line: str, told: list[int]) -> None:
    """The rule finds each form without a reason, and accepts it with one."""
    assert unexplained(line) == told
