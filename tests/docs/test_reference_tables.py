# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/reference have exactly the entries that the code has."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from novitai.api.openapi.events import EVENTS
from novitai.domain import webhook
from novitai.domain.account import HoldReason
from novitai.domain.billing import GPU_RULES
from novitai.domain.event import EventType
from novitai.domain.instance import TRANSITIONS, InstanceStatus
from novitai.domain.operation import AttemptState, OperationKind, Outcome
from novitai.domain.status import Observation, read_word
from novitai.domain.webhook import DeliveryStatus, OffReason
from novitai.errors import ApiError, Category
from novitai.settings import Settings, environment_name, known_names
from tests.docs.pages import ROOT, code, codes, first_column, page, rows, section
from tests.live import live

SOURCE = ROOT / "src/novitai"
_CODE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
_ELSEWHERE = re.compile(r"(NOVITA|NOVITAI|PG|SC|CLOCK|SSL)_?[A-Z_]+|NO_COLOR")
"""Names from the environment and the system, which are not error codes."""
_LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}


@cache
def modules() -> list[tuple[Path, ast.Module]]:
    """Parse every module of the server; the emulator, which has Novita's names, is left out."""
    return [
        (path, ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted(SOURCE.rglob("*.py"))
        if "emulator" not in path.parts
    ]


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    """Walk through the syntax trees of all modules."""
    for path, module in modules():
        for node in ast.walk(module):
            yield path, node


def error_classes(parent: type[ApiError] = ApiError) -> Iterator[type[ApiError]]:
    """List the error classes that are rendered to clients."""
    yield parent
    for child in parent.__subclasses__():
        if child.__module__.startswith("novitai."):
            yield from error_classes(child)


def error_codes() -> set[str]:
    """Collect every error code: constants in capitals, and the one-word codes of classes."""
    found = {"GONE"} | {one.code for one in error_classes()}
    for _, node in nodes():
        word = node.value if isinstance(node, ast.Constant) else None
        if isinstance(word, str) and _CODE.fullmatch(word) and not _ELSEWHERE.fullmatch(word):
            found.add(word)
    of_novita = set(re.findall(r"`([A-Z_]+)`", page("reference/upstream.md")))
    ours = found - (of_novita - set(first_column(page("reference/errors.md"))))
    kinds = {one.value for one in Category} - {one.code for one in error_classes()}
    return ours - kinds


def test_every_error_code_is_listed() -> None:
    """docs/reference/errors.md has exactly the error codes of the source."""
    assert set(first_column(page("reference/errors.md"))) == error_codes()


def test_errors_of_requests_have_their_status() -> None:
    """The table has the status, category and retryability of each error class."""
    listed = {
        code(row[0]): (row[1], code(row[2]), row[3])
        for row in rows(section(page("reference/errors.md"), "Errors of requests"))
    }
    for one in error_classes():
        if one is ApiError or one.code == "INVALID_STATE":
            continue
        error = one("", code=one.code)
        retryable = "yes" if error.retryable else "no"
        assert listed[one.code] == (str(one.status), one.category.value, retryable), one


def test_every_event_type_is_listed() -> None:
    """docs/reference/events.md has each event type, and whether webhooks receive it."""
    listed = {code(row[0]): row[1] for row in rows(page("reference/events.md"))}
    assert listed == {
        one.value: "yes" if one in webhook.WEBHOOK_EVENTS else "no" for one in EventType
    }


def test_events_are_described_as_in_the_document() -> None:
    """The table says when each event is written and which facts it has, as the source does."""
    assert list(EVENTS) == list(EventType)
    for row in rows(page("reference/events.md")):
        info = EVENTS[EventType(code(row[0]))]
        assert row[2] == info.written
        if info.data is not None:
            assert row[3].startswith("an object of its own")
            continue
        names = re.findall(r"(\*?)`(\w+)`\*?", re.sub(r" \([^)]*\)", "", row[3]))
        told = {name: not italic for italic, name in names}
        schema = TypeAdapter(info.facts).json_schema() if info.facts else {"properties": {}}
        assert told == {
            name: name in schema.get("required", ()) for name in schema["properties"]
        }, row[0]


def test_every_setting_is_listed() -> None:
    """docs/reference/settings.md has each setting, with its default if that is a plain value."""
    table = {
        code(row[0]): row[1] for row in rows(section(page("reference/settings.md"), "All settings"))
    }
    assert list(table) == known_names()
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = table[environment_name(name)].strip("`")
        if isinstance(default, StrEnum):
            assert shown == default.value
        elif isinstance(default, bool):
            assert shown == str(default).lower()
        elif isinstance(default, int | float):
            assert float(shown) == default, name
        elif isinstance(default, str):
            assert shown == default


def test_every_metric_is_listed(tmp_path: Path) -> None:
    """docs/reference/metrics.md has each metric family of a server, with its type."""
    with live(f"sqlite:///{tmp_path}/novitai.db", tmp_path) as server:
        server.run(server.app.fleet_count.once())
        text = server.http.get("/metrics", headers={"Accept": "text/plain"}).text
    told = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    # The library adds a family with the creation time of each series.
    told = {name: kind for name, kind in told.items() if not name.endswith("_created")}
    assert {code(row[0]): row[1] for row in rows(page("reference/metrics.md"))} == told


def test_every_status_is_listed() -> None:
    """The table has every status of an instance, and the statuses that may follow it."""
    table = rows(section(page("reference/statuses.md"), "Instance"))
    assert {code(row[0]): set(codes(row[2])) for row in table} == {
        one.value: {following.value for following in TRANSITIONS[one]} for one in InstanceStatus
    }


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Operation kinds", OperationKind),
        ("Outcomes of operations", Outcome),
        ("States of attempts", AttemptState),
        ("Statuses of deliveries", DeliveryStatus),
        ("Why a webhook is off", OffReason),
        ("Why an account is held", HoldReason),
    ],
)
def test_every_word_of_a_closed_set_is_listed(heading: str, kind: type[StrEnum]) -> None:
    """Each table has the values of its enumeration, in order."""
    assert first_column(section(page("reference/statuses.md"), heading)) == [
        one.value for one in kind
    ]


def test_every_job_type_is_listed() -> None:
    """The table has the job type of each kind of operation."""
    table = rows(section(page("reference/statuses.md"), "Operation kinds"))
    assert {code(row[0]): code(row[1]) for row in table} == {
        one.value: one.job for one in OperationKind
    }


def test_novitas_words_are_those_that_are_read() -> None:
    """The code reads each word of the table, which matches docs/reference/upstream.md."""
    listed = first_column(section(page("reference/statuses.md"), "Novita's status words"))
    assert not [word for word in listed if read_word(word) is Observation.UNKNOWN]
    known = section(page("reference/upstream.md"), "7. Status words").partition("All but")[0]
    assert {word for word in codes(known) if word != "freezing"} == set(listed)


def test_every_phase_is_one_of_the_code() -> None:
    """Each phase of the table is a constant in lifecycle/."""
    words = {
        node.value
        for path, node in nodes()
        if "lifecycle" in path.parts and isinstance(node, ast.Constant)
    }
    assert set(first_column(section(page("reference/statuses.md"), "Phases"))) <= words


def log_events() -> set[str]:
    """Collect the names of log events; all of them are constants."""
    found: set[str] = set()
    for _, node in nodes():
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        log = ast.unparse(node.func.value).lower()
        if (node.func.attr not in _LEVELS or "log" not in log) and ast.unparse(
            node.func
        ) != "logs.write":
            continue
        first = node.args[1 if node.func.attr == "log" else 0]
        assert isinstance(first, ast.Constant), f"not a plain name: {ast.unparse(node)}"
        found.add(str(first.value))
    return found


def test_every_log_event_is_listed() -> None:
    """docs/reference/log-events.md has exactly the names of log events."""
    assert set(first_column(page("reference/log-events.md"))) == log_events()


def test_log_events_are_spelled_alike() -> None:
    """The name of a log event is in snake case."""
    assert not {name for name in log_events() if not re.fullmatch(r"[a-z][a-z0-9_]*", name)}


def test_event_types_are_spelled_alike() -> None:
    """An event type is a subject, a dot, and a name in snake case."""
    form: Callable[[str], object] = re.compile(r"[a-z]+\.[a-z]+(_[a-z]+)*").fullmatch
    assert all(form(one.value) for one in EventType)


def test_what_bills_is_as_in_the_code() -> None:
    """docs/explanation/costs.md has the table of the code: what is billed, and how we know."""
    told = rows(section(page("explanation/costs.md"), "What bills"))
    assert [(code(row[0]), row[1], row[2]) for row in told] == [
        (word, rule.billing.value, rule.basis.value) for word, rule in GPU_RULES.items()
    ]
