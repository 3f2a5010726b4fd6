# SPDX-License-Identifier: Apache-2.0
"""One meaning per name: no two classes of the server, or of the emulator, share a name.

The emulator is another program, shares no code with the server and uses Novita's names, so the two
are not compared with each other.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import novitai

SOURCE = Path(novitai.__file__).parent


def duplicates(*, emulator: bool) -> dict[str, list[str]]:
    """Find the class names that occur more than once in one program."""
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
    """A search for a class name finds one class."""
    assert duplicates(emulator=emulator) == {}
