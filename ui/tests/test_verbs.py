# SPDX-License-Identifier: Apache-2.0
"""The verbs on the pages of instances, webhooks, deliveries and the system."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.blackbox.harness import Server, until
from ui.tests.browser import Visitor, answer

Visit = Callable[..., Visitor]
URL = "https://receiver.example/hook"


@pytest.fixture
def webhook(server: Server) -> str:
    """Create a webhook, and return its ID."""
    made = server.http.post("/api/webhooks", json={"url": URL}).json()
    return str(made["id"])


def read(server: Server, path: str) -> dict[str, Any]:
    """Return what the API says."""
    body: dict[str, Any] = server.http.get(path).json()
    return body


def test_tags_are_changed(visit: Visit, server: Server) -> None:
    """Lines of tags replace the tags: one is changed, one is added, and one is removed."""
    instance_id = server.create(name="tagged", tags={"team": "vision", "old": "yes"})
    visitor = visit()
    page = visitor.page
    page.goto(f"/instances/{instance_id}")
    page.get_by_role("button", name="Change tags").click()
    field = page.get_by_label("Tags, name=value on each line")
    expect(field).to_have_value("old=yes\nteam=vision")
    field.fill("team=audio\nnew=1")
    assert visitor.axe() == []
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(
        page.get_by_text("new:1, team:audio").or_(page.get_by_text("team:audio, new:1"))
    ).to_be_visible()
    assert read(server, f"/api/instances/{instance_id}")["tags"] == {"team": "audio", "new": "1"}


def test_an_instance_is_released(visit: Visit, server: Server) -> None:
    """The question says that it goes on costing; afterwards no verb is possible."""
    instance_id = server.create(name="let-go")
    server.until_running([instance_id], 60)
    page = visit().page
    page.goto(f"/instances/{instance_id}")
    page.get_by_role("button", name="Release", exact=True).click()
    expect(page.get_by_role("alertdialog")).to_contain_text("goes on costing there")
    page.get_by_role("alertdialog").get_by_role("button", name="Release").click()
    expect(page.locator("#main .badge").first).to_have_text("released")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_have_accessible_description(
        "Released: novitai no longer manages it"
    )


def test_a_webhook_is_changed(visit: Visit, server: Server, webhook: str) -> None:
    """Its event types and description can be changed, and its address stays."""
    visitor = visit()
    page = visitor.page
    page.goto("/webhooks")
    panel = page.get_by_role("listitem").filter(has_text=URL).first
    panel.get_by_role("button", name="Change").click()
    page.get_by_label("Description").fill("Pager")
    page.get_by_label("All", exact=True).uncheck()
    page.get_by_label("instance.failed").check()
    page.get_by_label("instance.stopped").check()
    assert visitor.axe() == []
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Pager · 2 event types")).to_be_visible()
    changed = [one for one in read(server, "/api/webhooks")["webhooks"] if one.get("description")]
    assert [(one["url"], sorted(one["eventTypes"])) for one in changed] == [
        (URL, ["instance.failed", "instance.stopped"])
    ]
    server.http.delete(f"/api/webhooks/{changed[0]['id']}")


def test_a_new_webhook_may_have_some_events(visit: Visit, server: Server) -> None:
    """The form of a new webhook has the event types too, and shows the secret once."""
    page = visit().page
    page.goto("/webhooks")
    page.get_by_role("button", name="New webhook").click()
    page.get_by_label("Address").fill("https://some.example/events")
    page.get_by_label("All", exact=True).uncheck()
    page.get_by_label("instance.running").check()
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("button", name="Copy the secret")).to_be_visible()
    made = [one for one in read(server, "/api/webhooks")["webhooks"] if "some." in one["url"]]
    assert [one["eventTypes"] for one in made] == [["instance.running"]]
    server.http.delete(f"/api/webhooks/{made[0]['id']}")


def test_a_secret_is_rotated(visit: Visit, server: Server, webhook: str) -> None:
    """The new secret is shown once, and the page says until when the old one signs."""
    page = visit().page
    page.goto("/webhooks")
    page.get_by_role("button", name="New secret").first.click()
    expect(page.get_by_role("alertdialog")).to_contain_text("for 24 hours")
    page.get_by_role("button", name="Make a new secret").click()
    secret = page.get_by_role("dialog").locator("code")
    expect(secret).to_have_text(re.compile(r"whsec_\w+"))
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_text("signs too until")).to_be_visible()
    expect(page.locator("text=whsec_")).to_have_count(0)
    server.http.delete(f"/api/webhooks/{webhook}")


def test_events_are_replayed(visit: Visit, server: Server, webhook: str) -> None:
    """All events since a time are sent again, and the page says how many."""
    server.until_running([server.create(name="replayed")], 60)
    page = visit().page
    page.goto("/webhooks")
    page.get_by_role("button", name="Replay events").first.click()
    page.get_by_label("Since").fill("2020-01-01T00:00")
    page.get_by_role("dialog").get_by_role("button", name="Replay").click()
    expect(page.get_by_role("dialog").get_by_role("status")).to_have_text(
        re.compile(r"[\d,]+ messages will be sent")
    )
    server.http.delete(f"/api/webhooks/{webhook}")


def test_caches_are_cleared(visit: Visit, server: Server) -> None:
    """One cache or all of them are cleared, and the page says how many entries are gone."""
    page = visit().page
    server.http.get("/api/products")
    page.goto("/system")
    page.get_by_role("button", name=re.compile("^Clear (?!all)")).first.click()
    expect(page.get_by_role("status").filter(has_text="leared")).to_be_visible()
    page.get_by_role("button", name="Clear all").click()
    until(
        lambda: read(server, "/api/cache/stats")["summary"]["totalEntries"] == 0,
        10,
        "all are empty",
    )
    page.get_by_role("button", name="Compare with Novita now").click()
    expect(page.get_by_role("button", name="Comparing")).to_be_visible()


def test_a_read_only_key_sees_why(stranger: Visitor, server: Server, webhook: str) -> None:
    """Each verb of these pages is there, disabled, with the scope that it needs."""
    instance_id = server.create(name="only-looked-at")
    made = server.http.post("/api/keys", json={"name": "reader", "scopes": ["read"]}).json()
    page = stranger.log_in(made["key"], "/webhooks")
    pages = {
        "/webhooks": {
            "New webhook": "write",
            "Change": "write",
            "Replay events": "write",
            "New secret": "write",
            "Send a test": "write",
            "Delete": "write",
        },
        "/system": {
            "Clear all": "admin",
            "Remove expired entries": "admin",
            "Compare with Novita now": "write",
        },
        f"/instances/{instance_id}": {
            "Change tags": "write",
            "Release": "write",
            "Show passwords": "write",
            "Change limits": "write",
        },
    }
    for path, verbs in pages.items():
        page.goto(path)
        for name, scope in verbs.items():
            if name == "Show passwords":
                server.until_running([instance_id], 60)
            button = page.get_by_role("button", name=name, exact=True).first
            expect(button).to_have_attribute("aria-disabled", "true")
            expect(button).to_have_accessible_description(
                f"The key “reader” lacks the scope {scope}"
            )
    server.http.delete(f"/api/webhooks/{webhook}")


DELIVERY_PAGES = re.compile(r"/api/deliveries\?limit=200(&cursor=\d+)?$")


def many_deliveries() -> list[dict[str, object]]:
    """Deliveries of three pages, newest first."""
    return [
        {
            "id": f"dlv_{number}",
            "eventId": f"evt_{number}",
            "type": "instance.running",
            "status": "delivered",
            "url": f"https://receiver.example/{number}",
            "attempts": [],
            "createdAt": "2026-01-01T00:00:00.000Z",
        }
        for number in range(450)
    ]


def test_more_deliveries_are_read_on_request(visit: Visit) -> None:
    """All deliveries can be reached; the page renders those on the screen."""
    rows = many_deliveries()

    def page_of(route: Route) -> None:
        found = re.search(r"cursor=(\d+)", route.request.url)
        begin = int(found[1]) if found else 0
        more = {"nextCursor": str(begin + 200)} if begin + 200 < len(rows) else {}
        answer(route, {"deliveries": rows[begin : begin + 200], **more})

    visitor = visit()
    page = visitor.page
    page.route(DELIVERY_PAGES, page_of)
    page.goto("/deliveries")
    for count in (200, 400):
        expect(page.get_by_text(f"The newest {count} are here.")).to_be_visible()
        page.get_by_role("button", name="Read more").click()
    expect(page.get_by_role("button", name="Read more")).to_have_count(0)
    expect(page.get_by_role("table")).to_have_attribute("aria-rowcount", "451")
    assert page.locator("tbody tr").count() < 100
    page.keyboard.press("End")
    expect(page.get_by_text("https://receiver.example/449")).to_be_visible()


def test_an_event_does_not_end_the_reading_of_the_next_page(visit: Visit, server: Server) -> None:
    """The list is read again, and then the next page."""
    rows, held = many_deliveries(), list[Route]()

    def page_of(route: Route) -> None:
        found = re.search(r"cursor=(\d+)", route.request.url)
        begin = int(found[1]) if found else 0
        if begin and not held:
            held.append(route)  # not answered before the event
            return
        answer(route, {"deliveries": rows[begin : begin + 200], "nextCursor": str(begin + 200)})

    page = visit().page
    page.route(DELIVERY_PAGES, page_of)
    page.goto("/deliveries")
    with page.expect_request(re.compile("cursor=200")):
        page.get_by_role("button", name="Read more").click()
    server.create(name="while-reading")
    expect(page.get_by_text("The newest 400 are here.")).to_be_visible()
    assert held


def test_a_code_pasted_into_an_open_tab_leaves_the_address(
    stranger: Visitor, visit: Visit, server: Server
) -> None:
    """It logs in as one in a new tab does, and is in no address afterwards."""
    page = stranger.page
    page.goto("/")
    page.get_by_label("API key").wait_for()
    code = server.http.post("/api/session/codes").json()["code"]
    page.evaluate("(code) => { location.hash = `code=${code}`; }", code)
    stranger.live()
    assert code not in page.url
    page = visit().page
    page.goto("/costs")
    page.get_by_role("heading", name="Costs", level=1).wait_for()
    page.evaluate("location.hash = 'code=used'")
    page.wait_for_url(re.compile(r"/costs$"))
    expect(page.get_by_role("heading", name="Costs", level=1)).to_be_visible()
