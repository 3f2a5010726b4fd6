# SPDX-License-Identifier: Apache-2.0
"""Chromium with a page of the dashboard, which notes what a page must never do."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Request, Route, ViewportSize, expect, sync_playwright

from clients.tests.generators import ROOT
from tests.blackbox.harness import ADMIN_KEY
from tests.services import unavailable

UI: Final = Path(__file__).parents[1]
PAGES: Final = {
    "overview": ("/", "Overview"),
    "instances": ("/instances", "Instances"),
    "new": ("/new?product=gpu-basic&template=tmpl-12345", "New instance"),
    "costs": ("/costs", "Costs"),
    "events": ("/events", "Events"),
    "budgets": ("/budgets", "Budgets"),
    "webhooks": ("/webhooks", "Webhooks"),
    "deliveries": ("/deliveries", "Deliveries"),
    "unmanaged": ("/unmanaged", "Unmanaged"),
    "catalogue": ("/catalogue", "Catalogue"),
    "keys": ("/keys", "Keys"),
    "system": ("/system", "System"),
}
"""The path and the title of each page but that of an instance, by its name in pictures."""
PICTURES: Final = ROOT / "docs/images"
LARGEST: Final = 150_000
"""Bytes of a picture."""
WIDE: Final[ViewportSize] = {"width": 1100, "height": 720}
NARROW: Final[ViewportSize] = {"width": 360, "height": 740}
WAIT: Final = 60_000
"""Milliseconds; far above what is promised, because the machine may be busy."""
_REPORT: Final = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`CSP report: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""
_AXE: Final = """axe.run().then((found) => found.violations.map(
  (one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 200)).join(" | ")}`))"""


class Visitor:
    """A browser of its own, with one page, and everything that it must not do."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.url = url
        self.context = browser.new_context(
            **{"base_url": url, "viewport": {"width": 1280, "height": 900}, **options}
        )
        self.context.set_default_timeout(WAIT)
        self.context.add_init_script(_REPORT)
        self.page: Page = self.context.new_page()
        self.requests: list[str] = []
        self.wrong: list[str] = []
        self.page.on("request", self._note)
        self.page.on("console", lambda message: self._say(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))

    def _note(self, request: Request) -> None:
        self.requests.append(request.url)
        target = urlsplit(request.url)
        if target.scheme not in ("data", "blob") and target.netloc != urlsplit(self.url).netloc:
            self.wrong.append(f"request to another host: {request.url}")

    def _say(self, text: str) -> None:
        if "CSP report" in text or "Content Security Policy" in text or "Trusted" in text:
            self.wrong.append(text)

    def log_in(self, key: str = ADMIN_KEY, path: str = "/") -> Page:
        """Log in by keyboard alone, and wait until the page is live."""
        self.page.goto(path)
        self.page.get_by_label("API key").wait_for()
        self.page.keyboard.type(key)
        self.page.keyboard.press("Enter")
        self.live()
        return self.page

    def live(self) -> None:
        """Wait until the event stream is open."""
        self.page.get_by_role("status").get_by_text("Live", exact=True).wait_for()

    def narrow(self) -> int:
        """Make the window as narrow as that of a phone; return by how much the page is wider."""
        self.page.set_viewport_size({"width": 360, "height": 740})
        beyond: int = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return beyond

    def picture(self, name: str) -> None:
        """Check that the page is not cut off; write its picture if UI_PICTURES is 1."""
        assert self.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        if os.environ.get("UI_PICTURES") == "1":
            self.page.evaluate("scrollTo(0, 0)")
            path = PICTURES / f"dashboard-{name}.png"
            assert len(self.page.screenshot(path=path, timeout=WAIT)) < LARGEST

    def heap(self) -> float:
        """Return the megabytes that the scripts of the page hold."""
        session = self.context.new_cdp_session(self.page)
        session.send("HeapProfiler.collectGarbage")
        used: float = session.send("Runtime.getHeapUsage")["usedSize"]
        session.detach()
        return used / 1e6

    def axe(self) -> list[str]:
        """Return the violations that axe finds on the page as it is."""
        session = self.context.new_cdp_session(self.page)
        # Through the debugger, because the policy of the page lets no script in.
        session.send(
            "Runtime.evaluate",
            {"expression": (UI / "node_modules/axe-core/axe.min.js").read_text()},
        )
        found = session.send(
            "Runtime.evaluate", {"expression": _AXE, "awaitPromise": True, "returnByValue": True}
        )
        session.detach()
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        violations: list[str] = found["result"]["value"]
        return violations

    def close(self) -> None:
        """Close the browser window, and check what it has noted."""
        self.page.unroute_all(behavior="ignoreErrors")
        self.context.close()
        assert not self.wrong, self.wrong


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the Chromium of the machine; skip the test if there is none."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        unavailable("Chromium is not on the PATH (Debian's package: chromium)")
    with sync_playwright() as playwright:
        # The sandbox of Chromium does not work in containers or for root; it loads our pages only.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        expect.set_options(timeout=WAIT)
        yield browser
        browser.close()


def answer(route: Route, body: object) -> None:
    """Answer a request of a page in place of the server."""
    route.fulfill(json=body, headers={"Event-Cursor": "cur_0"})


def many_instances(page: Page, count: int = 10_000) -> None:
    """Answer the list of instances of a page with this many, in pages."""
    rows = [
        {
            "id": f"inst_{number}",
            "name": f"row-{number:05}",
            "status": "running",
            "gpuNum": 1,
            "region": "CN-HK-01",
            "portMappings": [],
            "createdAt": "2026-01-01T00:00:00.000Z",
            "productName": "gpu-basic",
            "billingMode": "onDemand",
            "hourlyPrice": 0.26,
            "tags": {},
        }
        for number in range(count)
    ]

    def page_of(route: Route) -> None:
        query = dict(re.findall(r"[?&](\w+)=(\w+)", route.request.url))
        begin, size = int(query.get("cursor", 0)), int(query["limit"])
        more = {"nextCursor": str(begin + size)} if begin + size < count else {}
        answer(route, {"instances": rows[begin : begin + size], "total": count, **more})

    page.route(re.compile(r"/api/instances\?"), page_of)
