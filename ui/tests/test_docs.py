# SPDX-License-Identifier: Apache-2.0
"""The page of the API at `/docs`."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

from novitai.web import BUILT, LIBRARY
from tests.blackbox.harness import Server
from ui.tests.browser import UI, WAIT, Visitor

Visit = Callable[..., Visitor]
_TRY = """new Promise((done) => {
  document.addEventListener("securitypolicyviolation", (event) => done(event.violatedDirective));
  fetch("/api/session").then(() => done("answered"), () => undefined);
})"""
METHODS = {"get", "post", "put", "patch", "delete"}


def test_the_page_shows_every_operation(visit: Visit, server: Server) -> None:
    """Each operation and webhook is on it, and one opens; the visitor counts violations."""
    document = server.http.get("/openapi.json").json()
    operations = [
        (method.upper(), path)
        for part in ("paths", "webhooks")
        for path, methods in document[part].items()
        for method in methods
        if method in METHODS
    ]
    visitor = visit()
    page = visitor.page
    page.goto("/system")
    page.get_by_role("link", name="The API").click()
    blocks = page.locator(".opblock")
    expect(blocks).to_have_count(len(operations), timeout=WAIT)
    methods = page.locator(".opblock-summary-method").all_inner_texts()
    paths = page.locator(".opblock-summary-path").all_text_contents()
    found = [
        (method, path.replace("\u200b", "")) for method, path in zip(methods, paths, strict=True)
    ]
    assert sorted(found) == sorted(operations)
    page.locator(".opblock-summary-control").first.click()
    page.locator(".opblock.is-open").get_by_text("Responses", exact=True).first.wait_for()
    expect(page.locator(".try-out")).to_have_count(0)


def test_the_page_has_no_part_in_the_session(visit: Visit) -> None:
    """Its origin is opaque, and none of its requests has the cookie."""
    visitor = visit()
    page = visitor.page
    page.goto("/")
    visitor.live()
    sent: list[tuple[str, bool]] = []
    page.on(
        "request",
        lambda request: sent.append((request.url, "cookie" in request.all_headers())),
    )
    page.goto("/docs")
    page.locator(".opblock").first.wait_for()
    assert page.evaluate("self.origin") == "null"
    files = [cookie for url, cookie in sent if "/docs/" in url]
    assert files == [False, False], sent
    refused = page.evaluate(_TRY)
    assert refused == "connect-src"
    expect(page.locator(".opblock").first).to_be_visible()
    assert all("/api/session" in one for one in visitor.wrong), visitor.wrong
    visitor.wrong.clear()


def test_the_library_is_shipped_as_it_was_built() -> None:
    """Its files are those of its package on npm, with its licence."""
    package = UI / "node_modules/swagger-ui-dist"
    shipped = {path.name: path.read_bytes() for path in (BUILT / LIBRARY).iterdir()}
    assert (package / "swagger-ui-bundle.js").read_bytes() in shipped.values()
    assert (package / "swagger-ui.css").read_bytes() in shipped.values()
    assert shipped["LICENSE"] == (package / "LICENSE").read_bytes()
