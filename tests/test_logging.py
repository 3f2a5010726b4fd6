# SPDX-License-Identifier: Apache-2.0
"""How the sources log: one kind of logger, and events that a machine can search for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import novitai

SOURCE = Path(novitai.__file__).parent
METHODS = frozenset({"debug", "info", "warning", "error", "critical", "exception", "log"})
EVENT = re.compile(r"[a-z]+(_[a-z0-9]+)*")


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Find every call in the sources, with its file and line."""
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{name}:{node.lineno}", node


def is_logger(value: ast.expr) -> bool:
    """Whether an expression is a logger, judged by its name."""
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).endswith("get_logger")
    return ast.unparse(value).endswith("_log")


def events() -> Iterator[tuple[str, ast.expr]]:
    """Find the event of every log call, with its file and line."""
    for place, call in calls():
        method = call.func
        if isinstance(method, ast.Attribute) and method.attr in METHODS and is_logger(method.value):
            yield place, call.args[1 if method.attr == "log" else 0]


def test_events_are_snake_case() -> None:
    """An event is one constant snake_case name, so that alerts can search for it."""
    found = dict(events())
    assert len(found) > 30
    wrong = {
        place: ast.unparse(event)
        for place, event in found.items()
        if not (isinstance(event, ast.Constant) and EVENT.fullmatch(str(event.value)))
    }
    # The recorder logs an instance's event under its type, which is from a closed set too.
    assert [place for place in wrong if not place.startswith("lifecycle/events/recorder.py")] == []


def test_a_logger_is_named_after_its_module() -> None:
    """Every logger is made with `structlog.get_logger(__name__)`."""
    made = [
        (place, call) for place, call in calls() if ast.unparse(call.func).endswith("get_logger")
    ]
    assert len(made) > 10
    assert [
        place for place, call in made if ast.unparse(call) != "structlog.get_logger(__name__)"
    ] == []
