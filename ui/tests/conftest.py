# SPDX-License-Identifier: Apache-2.0
"""Chromium and a live server with the emulator, for `make test-ui`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from clients.tests.generators import install_npm
from tests.blackbox.harness import Sandbox, Server
from ui.tests.browser import UI, Visitor, chromium


@pytest.fixture(scope="session", autouse=True)
def packages() -> None:
    """Install the packages of the dashboard, whose files are what some tests compare with."""
    install_npm(UI)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start Chromium."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start an emulator and a server."""
    sandbox = Sandbox(tmp_path_factory.mktemp("ui"))
    try:
        sandbox.emulator()
        yield sandbox.server()
    finally:
        sandbox.close()


@pytest.fixture(scope="session")
def logged_in(browser: Browser, server: Server) -> Any:
    """Log in once, and return the cookie."""
    visitor = Visitor(browser, server.url)
    visitor.log_in()
    state = visitor.context.storage_state()
    visitor.close()
    return state


@pytest.fixture
def stranger(browser: Browser, server: Server) -> Iterator[Visitor]:
    """Open a page that is not logged in."""
    visitor = Visitor(browser, server.url)
    yield visitor
    visitor.close()


@pytest.fixture
def visit(browser: Browser, server: Server, logged_in: Any) -> Iterator[Callable[..., Visitor]]:
    """Open pages that are logged in with an admin key."""
    opened: list[Visitor] = []

    def one(**options: Any) -> Visitor:
        visitor = Visitor(browser, server.url, storage_state=logged_in, **options)
        opened.append(visitor)
        return visitor

    yield one
    for visitor in opened:
        visitor.close()
