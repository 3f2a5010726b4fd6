# SPDX-License-Identifier: Apache-2.0
"""Many open tabs cost the database nothing, and do not use up the connections of a browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack

import httpx2
from playwright.sync_api import Page

from tests.blackbox.harness import ADMIN_KEY, Server, until
from ui.tests.browser import Visitor

TABS = 10
"""As many streams as a key may have."""
CHANGES = 30


def statements(server: Server) -> int:
    """Return the number of transactions that the server has run."""
    text = server.http.get("/metrics", headers={"Accept": "text/plain"}).text
    counts = re.findall(r"^novitai_database_seconds_count(?:{[^}]*})? (\S+)", text, re.MULTILINE)
    assert counts
    return round(sum(float(count) for count in counts))


def cost_of_changes(server: Server, instance_id: str, tabs: int) -> int:
    """Change an instance while tabs follow it; return how many transactions that took."""
    with ExitStack() as stack:
        browser = stack.enter_context(httpx2.Client(base_url=server.url, timeout=30))
        assert browser.post("/api/session", json={"key": ADMIN_KEY}).status_code == 204
        streams = [
            stack.enter_context(browser.stream("GET", "/api/events/stream")) for _ in range(tabs)
        ]
        lines = [stream.iter_lines() for stream in streams]
        for one in lines:
            while not next(one).startswith("id:"):
                pass
        before = statements(server)
        for number in range(CHANGES):
            tags = {"change": f"{tabs}-{number}"}
            server.http.patch(f"/api/instances/{instance_id}", json={"tags": tags})
        for one in lines:
            while f'"{tabs}-{CHANGES - 1}"' not in next(one):
                pass
        return statements(server) - before


def test_more_tabs_cause_no_more_queries(server: Server) -> None:
    """Each tab gets each event, and the database has no work for a tab and an event."""
    instance_id = server.create(name="followed-by-many")
    server.until_running([instance_id], 60)
    one = cost_of_changes(server, instance_id, 1)
    many = cost_of_changes(server, instance_id, TABS)
    # A query for each tab and event would be 270 more; some loops run meanwhile.
    assert many - one < CHANGES * (TABS - 1) / 2, (one, many)


def streams(server: Server) -> int:
    """Return the number of open event streams."""
    text = server.http.get("/metrics", headers={"Accept": "text/plain"}).text
    found = re.search(r"^novitai_event_streams(?:{[^}]*})? (\S+)", text, re.MULTILINE)
    assert found
    return round(float(found[1]))


def see(page: Page, state: str) -> None:
    """Have a page believe that its tab is hidden or visible; without a window it is visible."""
    page.evaluate(
        """state => {
            Object.defineProperty(document, "visibilityState", {value: state, configurable: true});
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        state,
    )


def test_a_hidden_tab_makes_room(visit: Callable[..., Visitor], server: Server) -> None:
    """Twenty tabs, opened and left quickly, hold one stream; the first one goes on when shown."""
    until(lambda: streams(server) == 0, 30, "no stream of another test is open")
    visitor = visit()
    pages = [visitor.page]
    visitor.page.goto("/system")
    visitor.live()
    for _ in range(19):
        see(pages[-1], "hidden")
        page = visitor.context.new_page()
        page.goto("/system")
        page.get_by_role("status").get_by_text("Live", exact=True).wait_for()
        pages.append(page)
    until(lambda: streams(server) == 1, 20, "only the shown tab has a stream")
    see(pages[-1], "hidden")
    see(pages[0], "visible")
    visitor.live()
    until(lambda: streams(server) == 1, 20, "the stream has moved to the first tab")
