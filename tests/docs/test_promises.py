# SPDX-License-Identifier: Apache-2.0
"""docs/explanation/promises.md names tests and crash points that exist."""

from __future__ import annotations

import ast

from novitai.crash_points import CrashPoint
from tests.docs.pages import ROOT, code, codes, page, rows, section


def test_each_promise_names_a_test() -> None:
    """Each promise is stated by a test function of the named module."""
    table = rows(section(page("explanation/promises.md"), "What is promised"))
    assert len(table) > 15
    for row in table:
        module, _, name = code(row[1]).partition("::")
        tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
        functions = {
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in functions, row


def test_every_crash_point_is_listed() -> None:
    """The table has every crash point, in the order of the source."""
    table = rows(section(page("explanation/promises.md"), "Crash points"))
    assert [name for row in table for name in codes(row[0])] == [one.value for one in CrashPoint]
