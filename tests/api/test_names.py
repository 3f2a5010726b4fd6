# SPDX-License-Identifier: Apache-2.0
"""One meaning per name: no class of the API is called like one of another package."""

from __future__ import annotations

import ast
from pathlib import Path

import novitai

SOURCES = Path(novitai.__file__).parent


def classes(folder: Path) -> set[str]:
    """Name the classes of all modules below a folder."""
    return {
        node.name
        for file in folder.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    }


def test_a_class_of_the_api_has_a_name_of_its_own() -> None:
    """Whoever searches for a name finds one thing."""
    others = set()
    for folder in SOURCES.iterdir():
        if folder.is_dir() and folder.name != "api":
            others |= classes(folder)
    assert classes(SOURCES / "api") & others == set()
