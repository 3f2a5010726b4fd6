# SPDX-License-Identifier: Apache-2.0
"""The pictures of the documentation: `UI_PICTURES=1 make test-ui` writes them.

Those of pages that are empty, loading or in error are made by the tests of these states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx2
import pytest
from playwright.sync_api import Browser, expect

from clients.tests.generators import ROOT
from tests.blackbox.harness import UPSTREAM_KEY, Emulator, Sandbox, Server, until
from ui.tests.browser import NARROW, PAGES, PICTURES, WAIT, WIDE, Visitor, many_instances

ALL_AT_MOST: Final = 6_000_000
SHOWN: Final = {
    **{name: path for name, (path, _) in PAGES.items()},
    "instances": "/instances?tag=team:vision",
    "instance": "/instances/{renting}",
    "new": "/new?name=trainer&product=gpu-basic&template=tmpl-12345&region=any",
}
FORMS: Final = {
    "": {"color_scheme": "light", "viewport": WIDE},
    "-dark": {"color_scheme": "dark", "viewport": WIDE},
    "-narrow": {"color_scheme": "light", "viewport": NARROW},
}
FULL: Final = {name: path for name, (path, _) in PAGES.items() if name != "new"}
NAMES: Final = {
    *(f"{name}{form}" for name in SHOWN for form in FORMS),
    *(f"{name}-{state}" for name in SHOWN for state in ("loading", "error")),
    *(f"{name}-empty" for name in PAGES),
    *(f"{name}-full" for name in FULL),
}
ROWS: Final = 40


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


@pytest.fixture(scope="module")
def full(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a server with many rows of each kind; yield its URL and the cookie of a session."""
    sandbox = Sandbox(tmp_path_factory.mktemp("full"))
    try:
        emulator = sandbox.emulator()
        server = sandbox.server()
        fill(server, emulator)
        visitor = Visitor(browser, server.url)
        visitor.log_in()
        yield server.url, visitor.context.storage_state()
        visitor.close()
    finally:
        sandbox.close()


def fill(server: Server, emulator: Emulator) -> None:
    """Make many rows of each kind."""

    def make(path: str, **body: object) -> None:
        response = server.http.post(path, json=body)
        assert response.status_code == 201, response.text

    for number in range(ROWS):
        make("/api/budgets", name=f"team-{number:02}", amount=10 + number, period="month")
        make("/api/keys", name=f"pipeline-{number:02}", scopes=["read", "write"])
    for number in range(10):
        make("/api/webhooks", url=f"https://pager-{number}.example/hook")
    ids = [
        server.create(name=f"worker-{number:02}", region="any", tags={"team": f"team-{number:02}"})
        for number in range(ROWS)
    ]
    server.until_running(ids, 120)
    with httpx2.Client(
        base_url=f"{emulator.url}/gpu-instance/openapi/v1",
        headers={"Authorization": f"Bearer {UPSTREAM_KEY}"},
        trust_env=False,
    ) as novita:
        product = novita.get("/products").json()["data"][0]["id"]
        for number in range(ROWS):
            created = novita.post(
                "/gpu/instance/create",
                json={
                    "name": f"by-hand-{number:02}",
                    "productId": product,
                    "gpuNum": 1,
                    "imageUrl": "pytorch:latest",
                    "kind": "gpu",
                    "billingMode": "onDemand",
                    "rootfsSize": 60,
                },
            )
            assert created.status_code == 200, created.text

    def seen() -> bool:
        listed = server.http.get("/api/instances/unmanaged").json()["instances"]
        return len(listed) == ROWS

    until(seen, 60, "the instances without a record are listed")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SHOWN)
def test_pictures(visit: Callable[..., Visitor], renting: str, name: str, form: str) -> None:
    """Each page is shown in both colour schemes and on a telephone, and nothing is cut off."""
    visitor = visit(reduced_motion="reduce", **FORMS[form])
    visitor.page.goto(SHOWN[name].format(renting=renting))
    visitor.live()
    expect(visitor.page.locator(".skeleton")).to_have_count(0, timeout=WAIT)
    visitor.picture(f"{name}{form}")


@pytest.mark.parametrize("name", FULL)
def test_full_pages(browser: Browser, full: Any, name: str) -> None:
    """With dozens of rows, and 10,000 instances in their list, nothing is cut off."""
    url, cookie = full
    visitor = Visitor(browser, url, storage_state=cookie, viewport=WIDE)
    page = visitor.page
    if name == "instances":
        many_instances(page)
    page.goto(FULL[name])
    if name == "instances":
        page.get_by_text("10,000 instances").wait_for()
    visitor.live()
    expect(page.locator(".skeleton")).to_have_count(0, timeout=WAIT)
    assert visitor.axe() == []
    visitor.picture(f"{name}-full")
    visitor.close()


def test_the_documentation_has_these_pictures() -> None:
    """Each is in the repository and on a page of the documentation, and all are small together."""
    files = {path.stem: path.stat().st_size for path in PICTURES.glob("dashboard-*.png")}
    assert files.keys() == {f"dashboard-{name}" for name in NAMES}
    assert sum(files.values()) < ALL_AT_MOST
    text = (ROOT / "docs/reference/dashboard.md").read_text()
    assert [name for name in files if f"/{name}.png" not in text] == []
