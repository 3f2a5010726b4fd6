# SPDX-License-Identifier: Apache-2.0
"""What holds on every page: accessibility, silence, text that is never markup."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.blackbox.harness import Sandbox, Server
from ui.tests.browser import PAGES, WAIT, WIDE, Visitor, many_instances

Visit = Callable[..., Visitor]

READS: Final = re.compile(r"/(api/(?!session|events/stream)|health|metrics)")


@pytest.fixture(scope="module")
def filled(server: Server) -> str:
    """Fill the pages, and return the ID of an instance."""
    server.http.post("/api/budgets", json={"name": "team", "amount": 50, "period": "month"})
    server.http.post("/api/keys", json={"name": "ci", "scopes": ["read"]})
    instance_id = server.create(name="filled", tags={"team": "vision"})
    server.until_running([instance_id], 60)
    return instance_id


def settle(visitor: Visitor) -> None:
    """Wait until no skeleton is left and nothing is being read."""
    expect(visitor.page.locator(".skeleton")).to_have_count(0, timeout=WAIT)


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize(("path", "title"), PAGES.values(), ids=PAGES)
def test_each_page_is_accessible(
    visit: Visit, filled: str, path: str, title: str, colours: str
) -> None:
    """Axe finds nothing on a filled page, in both colour schemes, also on a narrow screen."""
    visitor = visit(color_scheme=colours)
    page = visitor.page
    page.goto(path)
    expect(page.get_by_role("heading", level=1)).to_have_text(title)
    visitor.live()
    settle(visitor)
    assert visitor.axe() == []
    assert visitor.narrow() <= 0
    assert visitor.axe() == []


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_page_of_an_instance_is_accessible(visit: Visit, filled: str, colours: str) -> None:
    """The same for the largest page."""
    visitor = visit(color_scheme=colours)
    page = visitor.page
    page.goto(f"/instances/{filled}")
    visitor.live()
    settle(visitor)
    assert visitor.axe() == []
    assert visitor.narrow() <= 0


def test_empty_pages_are_accessible(browser: Browser, tmp_path: Path) -> None:
    """On a new server each page says that there is nothing, and axe finds nothing."""
    sandbox = Sandbox(tmp_path)
    try:
        sandbox.emulator()
        visitor = Visitor(browser, sandbox.server().url)
        page = visitor.log_in()
        page.set_viewport_size(WIDE)
        for name, (path, title) in PAGES.items():
            page.goto(path)
            expect(page.get_by_role("heading", level=1)).to_have_text(title)
            visitor.live()
            settle(visitor)
            for colours in ("dark", "light"):
                page.emulate_media(color_scheme=colours)
                assert visitor.axe() == [], path
            visitor.picture(f"{name}-empty")
        visitor.close()
    finally:
        sandbox.close()


# The page of an instance has no name before it is read.
WITH_INSTANCE: Final = {**PAGES, "instance": ("/instances/inst_1", "Instance")}


@pytest.mark.parametrize("name", WITH_INSTANCE)
def test_while_it_loads_a_page_shows_skeletons(visit: Visit, name: str) -> None:
    """Without an answer, no page claims that there is nothing."""
    path, title = WITH_INSTANCE[name]
    visitor = visit(reduced_motion="reduce")
    page = visitor.page
    page.set_viewport_size(WIDE)
    page.route(READS, lambda _route: None)
    page.goto(path)
    expect(page.get_by_role("heading", level=1)).to_have_text(title)
    expect(page.locator(".skeleton").first).to_be_visible()
    expect(page.locator(".is-live")).to_have_count(0)
    assert not re.search(
        r"No instances|no budget|log is empty|None yet|Nothing\.|No key|no standing",
        page.inner_text("main"),
    )
    for colours in ("dark", "light"):
        page.emulate_media(color_scheme=colours)
        assert visitor.axe() == [], colours
    visitor.picture(f"{name}-loading")


@pytest.mark.parametrize("name", WITH_INSTANCE)
def test_an_error_is_at_the_top_of_its_part(visit: Visit, name: str) -> None:
    """A refused read is shown with its code, and axe finds nothing."""
    path, title = WITH_INSTANCE[name]
    visitor = visit()
    page = visitor.page
    page.set_viewport_size(WIDE)
    error = {
        "error": {"code": "STORE_CORRUPT", "message": "The file is damaged", "requestId": "req_1"}
    }
    page.route(READS, lambda route: route.fulfill(status=500, json=error))
    page.goto(path)
    expect(page.get_by_role("heading", level=1)).to_have_text(title)
    settle(visitor)
    # One part after the other fails, and none of them scrolls the page.
    expect(page.get_by_role("alert").first).to_be_in_viewport()
    assert page.evaluate("scrollY") == 0
    for colours in ("dark", "light"):
        page.emulate_media(color_scheme=colours)
        assert visitor.axe() == [], colours
    visitor.picture(f"{name}-error")


def test_the_log_in_page_is_accessible(stranger: Visitor) -> None:
    """Axe finds nothing on the log-in page."""
    stranger.page.goto("/")
    stranger.page.get_by_label("API key").wait_for()
    assert stranger.axe() == []


@pytest.mark.parametrize("path", ["/", "/instances", "/events"])
def test_an_idle_page_sends_nothing(visit: Visit, filled: str, path: str) -> None:
    """In ten minutes of the page's clock without an event, only the stream is open."""
    visitor = visit()
    page = visitor.page
    page.clock.install()
    page.goto(path)
    visitor.live()
    settle(visitor)
    page.wait_for_load_state("load")
    page.clock.run_for(2_000)
    streams = [one for one in visitor.requests if "/api/events/stream" in one]
    assert len(streams) == 1
    visitor.requests.clear()
    page.clock.run_for(600_000)
    assert visitor.requests == []


HOSTILE: Final = [
    "<img src=x onerror=alert(1)>",
    "</title><script>alert(1)</script>",
    "\u202egnp.evil\u2066 to the right",
    "w" * 255,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_text_is_never_markup(visit: Visit, filled: str, name: str) -> None:
    """Names of instances appear letter by letter, also in the title, and break no page."""
    visitor = visit()
    page = visitor.page
    page.on("dialog", lambda dialog: visitor.wrong.append(f"dialog: {dialog.message}"))

    def rename(route: Route) -> None:
        fetched = route.fetch()
        body: dict[str, Any] = fetched.json()
        for one in body.get("instances", [body]):
            one["name"] = name
            one["tags"] = {"team": name}
            one["upstreamStatus"] = name
        route.fulfill(response=fetched, json=body)

    page.route(re.compile(r"/api/instances(\?.*|/inst_\w+)$"), rename)
    page.goto("/instances")
    expect(page.get_by_role("link", name=name, exact=True).first).to_be_visible()
    assert page.locator("main img, main script").count() == 0
    assert visitor.narrow() <= 0
    page.goto(f"/instances/{filled}")
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    assert page.title() == " ".join(f"{name} – novitai".split())


TEXTS: Final = {
    *("name", "description", "message", "reason", "disabledReason", "upstreamStatus"),
    *("productName", "region", "image", "channel", "team"),
}


def replaced(part: Any, text: str) -> Any:
    """Return a part of an answer with a text in place of each that people or Novita wrote."""
    if isinstance(part, list):
        return [replaced(one, text) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        name: text if name in TEXTS and isinstance(value, str) else replaced(value, text)
        for name, value in part.items()
    }


@pytest.mark.parametrize("text", [HOSTILE[0] + HOSTILE[2], HOSTILE[3]])
def test_no_text_of_any_page_is_markup(visit: Visit, filled: str, text: str) -> None:
    """A hostile or very long text in every field of every answer breaks no page."""
    visitor = visit()
    page = visitor.page
    page.on("dialog", lambda dialog: visitor.wrong.append(f"dialog: {dialog.message}"))

    def change(route: Route) -> None:
        fetched = route.fetch()
        if "json" not in fetched.headers.get("content-type", ""):
            route.fulfill(response=fetched)
        else:
            route.fulfill(response=fetched, json=replaced(fetched.json(), text))

    page.route(READS, change)
    for path in [*(path for path, _ in PAGES.values()), f"/instances/{filled}"]:
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(path)
        page.get_by_role("heading", level=1).wait_for()
        settle(visitor)
        assert page.locator("main img, main script").count() == 0, path
        for width in (1280, 360):
            page.set_viewport_size({"width": width, "height": 900})
            beyond = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert beyond <= 0, (path, width)


@pytest.mark.parametrize("path", ["/", "/instances", "/new?product=gpu-basic", "/budgets"])
def test_forced_colours_and_reduced_motion(visit: Visit, filled: str, path: str) -> None:
    """With the system's colours nothing is lost, and nothing moves, also while it loads."""
    visitor = visit(forced_colors="active", reduced_motion="reduce")
    page = visitor.page
    held: list[Route] = []
    hold: Callable[[Route], object] = held.append

    def wait(route: Route) -> None:
        hold(route)

    page.route(READS, wait)
    page.goto(path)
    moving = """document.getAnimations().filter((one) =>
        one.playState === "running" && one.effect.getComputedTiming().duration > 1).length"""
    # A skeleton is made of backgrounds, which forced colours replace; its outline stays.
    assert page.evaluate(_WITHOUT_LINE, ".skeleton") == []
    assert page.evaluate(moving) == 0
    hold = Route.continue_
    for route in held:
        route.continue_()
    visitor.live()
    settle(visitor)
    assert page.evaluate("matchMedia('(forced-colors: active)').matches")
    assert page.evaluate(moving) == 0
    assert visitor.axe() == []
    assert page.evaluate(_WITHOUT_LINE, ".badge, .button, .panel") == []


# One script finds and measures, because a page may replace its nodes between two.
_WITHOUT_LINE: Final = """async (selector) => {
  const find = () => [...document.querySelectorAll(selector)];
  while (find().length === 0) await new Promise(requestAnimationFrame);
  return find().filter((node) => {
    const style = getComputedStyle(node);
    return !(parseFloat(style.borderTopWidth) > 0 || parseFloat(style.outlineWidth) > 0);
  }).map((node) => node.outerHTML);
}"""


def test_an_address_that_is_harmful_in_a_shell_is_no_ssh_line(visit: Visit, filled: str) -> None:
    """An SSH address with characters of a shell is shown, and not offered as a command."""
    visitor = visit()
    page = visitor.page
    hostile = "ssh://root@host;touch${IFS}x:22"

    def change(route: Route) -> None:
        fetched = route.fetch()
        body: dict[str, Any] = fetched.json()
        body["connectionDetails"] = {"ssh": hostile, "jupyter": "javascript:alert(1)"}
        route.fulfill(response=fetched, json=body)

    page.route(re.compile(r"/api/instances/inst_\w+$"), change)
    page.goto(f"/instances/{filled}")
    expect(page.get_by_text(hostile, exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Copy the ssh line")).to_have_count(0)
    assert page.locator("a[href^=javascript]").count() == 0


def test_ten_thousand_rows(visit: Visit, capsys: pytest.CaptureFixture[str]) -> None:
    """The list renders a screen of 10,000 instances, and the keys reach those below it."""
    visitor = visit()
    page = visitor.page
    many_instances(page)
    page.goto("/instances")
    page.get_by_role("link", name="row-00000").wait_for()
    first = page.evaluate("performance.now()")
    expect(page.get_by_text("10,000 instances")).to_be_visible(timeout=WAIT)
    every = page.evaluate("performance.now()")
    with capsys.disabled():
        sys.stdout.write(f"\n10,000 instances: first rows {first:.0f} ms, all {every:.0f} ms\n")
    assert page.locator("tbody tr").count() < 100
    for _ in range(120):
        page.keyboard.press("j")
    expect(page.get_by_role("link", name="row-00119")).to_be_focused()
    page.get_by_label("Filter ( / )").fill("row-09999")
    expect(page.get_by_role("link", name="row-09999")).to_be_visible()


def test_ten_thousand_events_leave_the_memory_flat(
    visit: Visit, filled: str, server: Server
) -> None:
    """The tab forgets old events: another 10,000 of them take less than 8 MB more."""
    snapshot = server.http.get(f"/api/instances/{filled}").json()
    held: list[Route] = []

    def hold(route: Route) -> None:
        """Leave a connection without an answer for now."""
        held.append(route)

    def batch(number: int) -> str:
        """Write 10,000 messages of the stream; their minutes tell them apart."""
        message = {"type": "instance.kept", "at": "2026-01-01T00:00:00.000Z"}
        return "retry: 20\n\n" + "".join(
            f"id: evt_{number}_{one}\nevent: instance.kept\ndata: "
            + json.dumps(
                {
                    **message,
                    "id": f"evt_{number}_{one}",
                    "data": {**snapshot, "minutes": number * 10_000 + one},
                }
            )
            + "\n\n"
            for one in range(1, 10_001)
        )

    visitor = visit()
    page = visitor.page
    page.route(re.compile(r"/api/events/stream"), hold)
    page.goto("/events")
    used: list[float] = []
    for number in range(3):
        deadline = time.monotonic() + 60
        while len(held) <= number:
            assert time.monotonic() < deadline, "the page does not connect again"
            page.wait_for_timeout(20)
        held[number].fulfill(body=batch(number), content_type="text/event-stream")
        expect(page.get_by_text(f"minutes: {number * 10_000 + 10_000}", exact=True)).to_be_visible(
            timeout=WAIT
        )
        used.append(visitor.heap())
    assert used[2] - used[1] < 8, used


def test_a_change_appears_by_itself(
    visit: Visit, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new instance is in an open list without a reload; how soon is printed."""
    visitor = visit()
    page = visitor.page
    page.goto("/instances")
    visitor.live()
    begun = time.monotonic()
    server.create(name="appears")
    page.get_by_role("link", name="appears").wait_for()
    took = time.monotonic() - begun
    with capsys.disabled():
        sys.stdout.write(f"\na new instance is on the screen {took * 1000:.0f} ms after the call\n")


@pytest.mark.parametrize("path", ["/", "/events"])
def test_events_begin_with_the_newest(visit: Visit, server: Server, path: str) -> None:
    """Events from before the page was opened are on it, and later ones are above."""
    server.until_running([server.create(name="before-the-page")], 60)
    visitor = visit()
    page = visitor.page
    page.goto(path)
    visitor.live()
    table = page.get_by_role("table", name="Events")
    expect(table.get_by_role("link", name="before-the-page").first).to_be_visible()
    shown = table.locator("tbody time").evaluate_all("all => all.map((one) => one.dateTime)")
    assert shown == sorted(shown, reverse=True)
    if path == "/":
        assert len(shown) <= 20
    server.create(name="after-the-page")
    expect(table.locator("tbody tr").first).to_contain_text("after-the-page")


def test_more_of_the_log_is_read_on_request(visit: Visit, server: Server) -> None:
    """`Read more` goes on where the rows end, until the log does; no event is there twice."""
    server.until_running(server.create_many(3), 60)
    every = [
        one["id"] for one in server.http.get("/api/events?order=desc&limit=500").json()["events"]
    ]
    visitor = visit()
    page = visitor.page

    def smaller(route: Route) -> None:
        route.continue_(url=route.request.url.replace("limit=200", "limit=3"))

    page.route(re.compile(r"/api/events\?"), smaller)
    page.goto("/events")
    visitor.live()
    more = page.get_by_role("button", name="Read more")
    told = page.get_by_text(re.compile(r"[\d,]+ events, newest first"))

    def shown() -> int:
        return int(told.inner_text().split()[0].replace(",", ""))

    told.wait_for()
    # Events of other tests may arrive meanwhile, and are counted too.
    assert 3 <= shown() < len(every)
    while more.is_visible():
        before = shown()
        more.click()
        expect(told).not_to_contain_text(f"{before:,} events, newest first")
        expect(page.locator("[aria-busy=true]")).to_have_count(0)
    again = server.http.get("/api/events?order=desc&limit=500").json()["events"]
    expect(told).to_contain_text(f"{len(again):,} events, newest first")
    assert {one["id"] for one in again} >= set(every)


def test_a_lost_connection_is_told_and_mended(browser: Browser, tmp_path: Path) -> None:
    """While the server is away the page says since when, and goes on by itself afterwards."""
    sandbox = Sandbox(tmp_path)
    try:
        sandbox.emulator()
        server = sandbox.server()
        visitor = Visitor(browser, server.url)
        page = visitor.log_in(path="/instances")
        server.process.send(signal.SIGTERM)
        server.process.wait()
        expect(page.get_by_text(re.compile(r"As of \d\d:\d\d, reconnecting"))).to_be_visible(
            timeout=WAIT
        )
        port = server.url.rsplit(":", 1)[1]
        again = sandbox.ready(sandbox.run("serve", "--port", port))
        visitor.live()
        again.create(name="after-the-break")
        expect(page.get_by_role("link", name="after-the-break")).to_be_visible(timeout=WAIT)
        visitor.close()
    finally:
        sandbox.close()
