# SPDX-License-Identifier: Apache-2.0
"""One meaning per name: no two classes of the server have one name, and none of the emulator.

The emulator is another program that shares no code with the server and names what Novita names, so
the two are not compared with each other.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import novitai

SOURCE = Path(novitai.__file__).parent
KNOWN = frozenset(
    {
        # Named twice by api/ or lifecycle/commands, which are being rewritten.
        "Operation",
        "RateLimited",
        "Shown",
        "CreateInstance",
        "Wire",
        # Used by name in lifecycle/operations, which is being rewritten.
        "Looked",
        "Port",
        "Refused",
        "Tool",
    }
)
"""Names with two meanings that are still to be renamed; this list only becomes shorter."""


def duplicates(*, emulator: bool) -> dict[str, list[str]]:
    """Find the classes whose name another class of the same program has."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(SOURCE.rglob("*.py")):
        place = path.relative_to(SOURCE)
        if (place.parts[0] == "emulator") is emulator:
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ClassDef):
                    found[node.name].append(f"{place}:{node.lineno}")
    assert len(found) > 50
    return {name: places for name, places in found.items() if len(places) > 1}


@pytest.mark.parametrize("emulator", [False, True])
def test_no_two_classes_have_one_name(emulator: bool) -> None:
    """Whoever reads a name, or searches for it, finds one thing."""
    found = duplicates(emulator=emulator)
    assert {name: places for name, places in found.items() if name not in KNOWN} == {}


def test_the_list_of_exceptions_holds_no_name_too_many() -> None:
    """A name that has one meaning again is taken off the list."""
    assert KNOWN - duplicates(emulator=False).keys() == set()
