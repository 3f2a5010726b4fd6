# SPDX-License-Identifier: Apache-2.0
"""Which modules of the tests may import one another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def imported(path: Path, tree: ast.Module) -> Iterator[str]:
    """Yield every module that a module imports, also inside functions."""
    package = ".".join(path.parent.relative_to(HERE.parent).parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
            module = f"{base}.{node.module or ''}".rstrip(".") if node.level else node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def belongs_to_pytest(module: str) -> bool:
    """Whether a module holds tests or fixtures, which only pytest collects."""
    parts = module.split(".")
    return parts[0] == "tests" and any(
        part.startswith("test_") or part == "conftest" for part in parts
    )


def foreign_imports(path: Path, source: str) -> list[str]:
    """List what a module imports from test modules and conftest modules."""
    return sorted(filter(belongs_to_pytest, set(imported(path, ast.parse(source)))))


def helpers(source: str) -> list[str]:
    """List the statements of a conftest module that are neither imports, fixtures nor hooks."""
    return [ast.unparse(node) for node in ast.parse(source).body if not _allowed(node)]


def _allowed(node: ast.stmt) -> bool:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        fixture = any("pytest.fixture" in ast.unparse(one) for one in node.decorator_list)
        return fixture or node.name.startswith("pytest_")
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)


def test_tests_share_helper_modules_and_fixtures_only() -> None:
    """No module imports a test or conftest module; helpers are in ordinary modules."""
    found = {
        str(path.relative_to(HERE)): names
        for path in sorted(HERE.rglob("*.py"))
        if (names := foreign_imports(path, path.read_text()))
    }
    assert found == {}


def test_conftest_modules_hold_fixtures_only() -> None:
    """A conftest module holds imports, fixtures and hooks of pytest, and nothing else."""
    found = {
        str(path.relative_to(HERE)): statements
        for path in sorted(HERE.rglob("conftest.py"))
        if (statements := helpers(path.read_text()))
    }
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "from tests.lifecycle.test_account import ask",
        "from tests.lifecycle.conftest import World",
        "from tests.lifecycle import conftest",
        "from .conftest import World",
        "from . import test_account",
        "from ..api.test_live import LIVE",
        "import tests.lifecycle.test_account as account",
        "def late() -> None:\n    from tests.conftest import STORES",
    ],
)
def test_every_form_of_import_is_noticed(line: str) -> None:
    """Absolute and relative imports, of a module or from it, at the top or inside a function."""
    assert foreign_imports(HERE / "lifecycle" / "test_one.py", line) != []


@pytest.mark.parametrize("line", ["LIMIT = 3", "class World: ...", "def make() -> None: ..."])
def test_every_kind_of_helper_is_noticed(line: str) -> None:
    """Constants, classes and plain functions are not allowed in a conftest module."""
    assert helpers(line) != []
