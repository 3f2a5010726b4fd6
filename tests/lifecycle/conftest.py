# SPDX-License-Identifier: Apache-2.0
"""Checks of every test of lives: no defect was logged, and each event is as the docs say.

Loops retry after a defect, so that only the log shows it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from sqlalchemy import Connection

from novitai.lifecycle.events import recorder
from novitai.store.engine.errors import StoreError
from novitai.store.queries import events
from tests.lifecycle.event_facts import errors_of


@pytest.fixture(autouse=True)
def logged_defects() -> Iterator[list[str]]:
    """The events logged with a traceback; a test that causes one removes it from the list."""
    found: list[str] = []

    def note(_logger: Any, _name: str, event: structlog.typing.EventDict) -> Any:
        # A process that a test kills loses its database in the middle of steps.
        if event.get("exc_info") and not isinstance(sys.exception(), StoreError):
            found.append(event["event"])
        return event

    render = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    before = structlog.get_config()
    structlog.configure(processors=[note, structlog.processors.add_log_level, render])
    yield found
    structlog.configure(**before)
    assert not found, f"logged with a traceback: {found}"


@pytest.fixture(autouse=True)
def undocumented_events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The recorder's events that are not as `novitai.api.openapi.events` and the docs say."""
    found: list[str] = []

    def checked(connection: Connection, **fields: Any) -> None:
        errors = errors_of(fields["event_type"], fields["data"])
        found.extend(f"{fields['event_type'].value}: {one}" for one in errors)
        events.append(connection, **fields)

    # Tests that put an event into the log themselves need not make a whole one.
    monkeypatch.setattr(recorder, "events", SimpleNamespace(**{**vars(events), "append": checked}))
    yield found
    assert not found, "events with other data than is documented"
