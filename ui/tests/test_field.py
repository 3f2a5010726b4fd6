# SPDX-License-Identifier: Apache-2.0
"""The text filter, on a page of its own that lets its value follow late."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from clients.tests.generators import run
from ui.tests.browser import UI, Visitor

ORIGIN = "http://late.test"


@pytest.fixture(scope="module")
def built(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the page."""
    folder = tmp_path_factory.mktemp("late")
    run("npm", "exec", "vite", "--", "build", "tests/late", "--outDir", folder, folder=UI)
    return folder


@pytest.fixture
def late(browser: Browser, built: Path) -> Iterator[Page]:
    """Open the page."""
    visitor = Visitor(browser, ORIGIN)

    def serve(route: Route) -> None:
        name = route.request.url.removeprefix(ORIGIN).lstrip("/") or "index.html"
        route.fulfill(path=built / name)

    visitor.page.route(f"{ORIGIN}/**", serve)
    visitor.page.goto("/")
    yield visitor.page
    visitor.close()


@pytest.mark.parametrize("pause", [40, 160, 220])
def test_no_letter_is_lost(late: Page, pause: int) -> None:
    """Letters typed while older ones come back from the address stay."""
    field = late.get_by_label("Filter ( / )")
    field.focus()
    late.keyboard.type("letters-of-a-name", delay=pause)
    expect(late.locator("output")).to_have_text("letters-of-a-name")
    expect(field).to_have_value("letters-of-a-name")
    late.keyboard.press("Backspace")
    expect(late.locator("output")).to_have_text("letters-of-a-nam")
    expect(field).to_have_value("letters-of-a-nam")


def test_another_value_replaces_the_text(late: Page) -> None:
    """A change that the field did not tell, such as the way back, is shown."""
    field = late.get_by_label("Filter ( / )")
    field.fill("mine")
    expect(late.locator("output")).to_have_text("mine")
    late.get_by_role("button", name="Elsewhere").click()
    expect(field).to_have_value("from elsewhere")
    field.fill("mine")
    expect(late.locator("output")).to_have_text("mine")
    expect(field).to_have_value("mine")
