# SPDX-License-Identifier: Apache-2.0
"""The pictures of the documentation: `UI_PICTURES=1 make test-ui` writes them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Page, Route, expect

from clients.tests.generators import ROOT
from tests.blackbox.harness import Server
from ui.tests.browser import WAIT, Visitor, answer, many_instances

PICTURES: Final = ROOT / "docs/images"
LARGEST: Final = 150_000
ALL_AT_MOST: Final = 4_500_000
WIDE: Final = (1100, 720)
NARROW: Final = (360, 740)
_LISTS: Final = re.compile(r"/api/instances\?")


@dataclass(frozen=True)
class Picture:
    """One picture: of a path, in a colour scheme, at a size, in a state."""

    path: str
    colours: str = "light"
    size: tuple[int, int] = WIDE
    state: str = "filled"


PAGES: Final = {
    "overview": "/",
    "instances": "/instances?tag=team:vision",
    "instance": "/instances/{renting}",
    "new": "/new?name=trainer&product=gpu-basic&template=tmpl-12345&region=any",
    "costs": "/costs",
    "events": "/events",
    "budgets": "/budgets",
    "webhooks": "/webhooks",
    "deliveries": "/deliveries",
    "unmanaged": "/unmanaged",
    "catalogue": "/catalogue",
    "keys": "/keys",
    "system": "/system",
}
SHOWN: Final = {
    **{name: Picture(path) for name, path in PAGES.items()},
    **{f"{name}-dark": Picture(path, colours="dark") for name, path in PAGES.items()},
    **{f"{name}-narrow": Picture(path, size=NARROW) for name, path in PAGES.items()},
    **{
        f"instances-{state}": Picture("/instances", state=state)
        for state in ("full", "empty", "loading", "error")
    },
}


@pytest.fixture(scope="module")
def renting(server: Server) -> str:
    """Rent some instances, and return the ID of one."""
    server.http.post("/api/budgets", json={"name": "vision", "amount": 50, "period": "month"})
    server.http.post("/api/webhooks", json={"url": "https://pager.example/hook"})
    ids = [
        server.create(
            name=name, region="any", tags={"team": "vision"}, limits={"maxRunMinutes": 480}
        )
        for name in ("evaluation", "fine-tuning", "trainer")
    ]
    server.until_running(ids, 60)
    return ids[-1]


def prepare(page: Page, state: str) -> None:
    """Answer the list of instances as the state needs it."""
    if state == "full":
        many_instances(page)
    elif state == "empty":
        page.route(_LISTS, lambda route: answer(route, {"instances": [], "total": 0}))
    elif state == "loading":
        page.route(_LISTS, lambda _route: None)
    elif state == "error":
        page.route(_LISTS, refuse)


def refuse(route: Route) -> None:
    """Answer with an error."""
    error = {"code": "STORE_CORRUPT", "message": "The file is damaged", "requestId": "req_1"}
    route.fulfill(status=500, json={"error": error})


@pytest.mark.parametrize("name", SHOWN)
def test_pictures(visit: Callable[..., Visitor], renting: str, tmp_path: Path, name: str) -> None:
    """Each picture shows a page in its state, is small, and nothing on it is cut off."""
    shown = SHOWN[name]
    visitor = visit(color_scheme=shown.colours, reduced_motion="reduce")
    page = visitor.page
    width, height = shown.size
    page.set_viewport_size({"width": width, "height": height})
    prepare(page, shown.state)
    page.goto(shown.path.format(renting=renting))
    if shown.state == "full":
        page.get_by_text("10,000 instances").wait_for()
    if shown.state in ("filled", "full"):
        visitor.live()
        expect(page.locator(".skeleton")).to_have_count(0)
    else:
        state = {"loading": ".skeleton", "error": "[role=alert]", "empty": ".empty"}[shown.state]
        page.locator(state).first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    folder = PICTURES if os.environ.get("UI_PICTURES") == "1" else tmp_path
    folder.mkdir(exist_ok=True)
    picture = page.screenshot(path=folder / f"dashboard-{name}.png", timeout=WAIT)
    assert len(picture) < LARGEST


def test_the_documentation_has_these_pictures() -> None:
    """Each is in the repository and on a page of the documentation, and all are small together."""
    files = {path.stem: path.stat().st_size for path in PICTURES.glob("dashboard-*.png")}
    assert files.keys() == {f"dashboard-{name}" for name in SHOWN}
    assert sum(files.values()) < ALL_AT_MOST
    text = (ROOT / "docs/reference/dashboard.md").read_text()
    assert [name for name in files if f"/{name}.png" not in text] == []
