# SPDX-License-Identifier: Apache-2.0
"""Someone rents, uses, keeps, stops and deletes an instance with the keyboard alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, Route, expect

from tests.blackbox.harness import ADMIN_KEY, Server, until
from ui.tests.browser import WAIT, Visitor, answer

Visit = Callable[..., Visitor]


def press(page: Page, name: str) -> None:
    """Press the button with this name in the open dialog, or else on the page."""
    page.get_by_role("button", name=name, exact=True).last.focus()
    page.keyboard.press("Enter")


def shown(page: Page, status: str) -> None:
    """Wait until the instance of the page has a status, without a reload."""
    expect(page.locator("#main .badge").first).to_have_text(status, timeout=WAIT)


def stops_at(server: Server, instance_id: str) -> Any:
    """Return when a limit stops an instance, as the API says."""
    return server.http.get(f"/api/instances/{instance_id}").json()["stopsAt"]


def test_a_whole_life_by_keyboard(stranger: Visitor, server: Server) -> None:
    """From the log-in to the deletion, no pointer is needed, and each status appears live."""
    stranger.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = stranger.log_in()
    page.keyboard.press("n")
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    page.keyboard.type("by-keyboard")
    page.get_by_label("Product").get_by_text("gpu-basic").wait_for(state="attached")
    page.keyboard.press("Tab")
    page.keyboard.type("gpu-basic")
    page.keyboard.press("Tab")
    page.keyboard.type("PyTorch")
    create = page.get_by_role("button", name=re.compile(r"Create for \$\d"))
    create.wait_for()
    create.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/instances/inst_*")
    instance_id = page.url.rsplit("/", 1)[1]
    shown(page, "running")

    page.get_by_role("button", name="Copy the ssh line").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").get_by_text("Copied")).to_be_attached()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(r"ssh -p \d+ root@[\w.-]+", copied), copied

    before = stops_at(server, instance_id)
    press(page, "1 h more")
    until(lambda: stops_at(server, instance_id) > before, 10, "the stop is put off")

    press(page, "Stop")
    expect(page.get_by_role("alertdialog")).to_contain_text("Saves $0.26/h")
    press(page, "Stop")
    shown(page, "stopped")
    press(page, "Delete")
    expect(page.get_by_role("alertdialog")).to_contain_text("gone for good")
    press(page, "Delete")
    shown(page, "terminated")


def test_a_list_by_keyboard(visit: Visit, server: Server) -> None:
    """`g i`, `/`, `j` and Enter lead to an instance; a reload keeps the filter."""
    server.create(name="found-by-filter")
    server.create(name="not-that-one")
    visitor = visit()
    page = visitor.page
    page.goto("/")
    visitor.live()
    page.keyboard.press("g")
    page.keyboard.press("i")
    # The overview has such a link too.
    expect(page.get_by_role("heading", level=1)).to_have_text("Instances")
    page.get_by_role("link", name="not-that-one").first.wait_for()
    page.keyboard.press("/")
    page.keyboard.type("found-by")
    expect(page.get_by_role("link", name="not-that-one")).to_have_count(0)
    page.wait_for_url("**q=found-by")
    page.reload()
    expect(page.get_by_role("link", name="found-by-filter")).to_be_visible()
    expect(page.get_by_role("link", name="not-that-one")).to_have_count(0)
    page.keyboard.press("j")
    expect(page.get_by_role("link", name="found-by-filter")).to_be_focused()
    page.keyboard.press("x")
    expect(page.get_by_role("checkbox", name="Select found-by-filter")).to_be_checked()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("found-by-filter")


def test_the_overview_shows_the_budgets_most_used(visit: Visit, server: Server) -> None:
    """Six of nine, the one of which the largest part is used first, with the way to the others."""
    made = server.http.post(
        "/api/budgets", json={"name": "template", "amount": 100, "period": "month"}
    )
    assert made.status_code == 201, made.text
    rows = [
        {**made.json(), "id": f"bud_{used}", "name": f"used-{used}", "amount": 100, "spent": used}
        for used in (10, 20, 90, 30, 40, 80, 50, 60, 70)
    ]
    server.http.delete(f"/api/budgets/{made.json()['id']}")
    visitor = visit()
    page = visitor.page
    page.route(re.compile(r"/api/budgets\?"), lambda route: answer(route, {"budgets": rows}))
    page.goto("/")
    bars = page.locator(".budget strong")
    expect(bars).to_have_text([f"used-{used}" for used in (90, 80, 70, 60, 50, 40)])
    page.get_by_role("link", name="All 9 budgets").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Budgets")


def test_a_filter_typed_before_its_page_is_there_is_kept(visit: Visit) -> None:
    """`/` and letters pressed while the page loads are for its filter, and no shortcuts."""
    visitor = visit()
    page = visitor.page
    page.goto("/")
    visitor.live()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(re.compile(r"/assets/InstancesPage.*js"), hold)
    page.keyboard.press("g")
    page.keyboard.press("i")
    page.wait_for_url("**/instances")
    page.keyboard.press("/")
    page.keyboard.type("none")
    for route in held:
        route.continue_()
    expect(page.get_by_label("Filter ( / )")).to_have_value("none")
    page.keyboard.type(" yet")
    page.wait_for_url(re.compile(r"/instances\?q=none"))
    expect(page.get_by_label("Filter ( / )")).to_have_value("none yet")


def test_a_filter_does_not_hold_back_a_link(visit: Visit, server: Server) -> None:
    """A link right after a letter leads to its page, and the way back to the text."""
    visitor = visit()
    page = visitor.page
    page.goto("/instances")
    visitor.live()

    def late(route: Route) -> None:
        page.wait_for_timeout(500)
        route.continue_()

    page.route(re.compile(r"/assets/CostsPage.*js"), late)
    page.get_by_label("Filter ( / )").focus()
    page.keyboard.type("left")
    page.get_by_role("link", name="Costs").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Costs")
    page.go_back()
    expect(page.get_by_label("Filter ( / )")).to_have_value("left")


def test_the_palette_goes_anywhere(visit: Visit) -> None:
    """Ctrl-K, a part of a name and Enter open a page; `?` lists the keys."""
    visitor = visit()
    page = visitor.page
    page.goto("/")
    visitor.live()
    page.keyboard.press("Control+k")
    expect(page.get_by_label("Page or instance")).to_be_focused()
    page.keyboard.type("budg")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Budgets")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("g i")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_stopping_several_says_what_it_saves(visit: Visit, server: Server) -> None:
    """A selection is stopped at once, after a question with the saving."""
    ids = [server.create(name=f"several-{number}") for number in range(2)]
    server.until_running(ids, 60)
    visitor = visit()
    page = visitor.page
    page.goto("/instances?q=several-")
    page.get_by_role("checkbox", name="Select all rows").check()
    press(page, "Stop")
    expect(page.get_by_role("alertdialog")).to_contain_text("Saves $")
    press(page, "Stop 2")
    expect(page.locator("tbody .badge", has_text="stopped")).to_have_count(2)


def test_a_read_only_key_sees_why_it_may_not_act(stranger: Visitor, server: Server) -> None:
    """Verbs are shown, disabled, with the missing scope as their description."""
    instance_id = server.create(name="read-only")
    key = server.http.post("/api/keys", json={"name": "looker", "scopes": ["read"]}).json()["key"]
    page = stranger.log_in(key, f"/instances/{instance_id}")
    delete = page.get_by_role("button", name="Delete", exact=True)
    expect(delete).to_have_attribute("aria-disabled", "true")
    expect(delete).to_have_accessible_description("The key “looker” lacks the scope write")
    delete.click(force=True)
    expect(page.get_by_role("alertdialog")).to_have_count(0)


def test_a_one_time_code_logs_in_and_leaves_the_address(stranger: Visitor, server: Server) -> None:
    """The code in the fragment is exchanged, and is in no address afterwards."""
    code = server.http.post("/api/session/codes").json()["code"]
    page = stranger.page
    page.goto(f"/#code={code}")
    stranger.live()
    assert "#" not in page.url
    kept = page.evaluate("JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
    assert code not in kept
    assert page.evaluate("document.cookie") == ""


def test_the_key_is_kept_nowhere(stranger: Visitor) -> None:
    """After a log-in, no storage that scripts can read has the key."""
    page = stranger.log_in()
    kept = "JSON.stringify(localStorage) + JSON.stringify(sessionStorage) + document.cookie"
    assert ADMIN_KEY not in page.evaluate(kept)
    assert page.evaluate("document.cookie") == ""


def test_a_page_whose_files_are_gone_offers_a_reload(visit: Visit) -> None:
    """After an upgrade of the server, a page that was not loaded yet says what to do."""
    visitor = visit()
    page = visitor.page
    page.goto("/")
    visitor.live()
    page.route(re.compile(r"/assets/CostsPage"), lambda route: route.fulfill(status=404))
    page.get_by_role("link", name="Costs").click()
    expect(page.get_by_role("button", name="Reload")).to_be_visible()
    assert visitor.axe() == []


def test_the_way_back_leads_to_the_same_row(visit: Visit, server: Server) -> None:
    """An opened instance is shown from its top, and the list where it was left."""
    for number in range(40):
        server.create(name=f"far-{number}")
    visitor = visit()
    page = visitor.page
    page.goto("/instances")
    visitor.live()
    page.get_by_role("link", name="far-0", exact=True).scroll_into_view_if_needed()
    left = page.evaluate("scrollY")
    assert left > 0
    page.get_by_role("link", name="far-0", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("far-0")
    assert page.evaluate("scrollY") == 0
    page.go_back()
    expect(page.get_by_role("link", name="far-0", exact=True)).to_be_in_viewport()


def test_a_wrong_key_is_told_above_the_form(stranger: Visitor) -> None:
    """The log-in page says that the server does not accept the key."""
    page = stranger.page
    page.goto("/")
    page.get_by_label("API key").fill("nvt_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("does not accept this key")


def test_logging_out_ends_the_session(stranger: Visitor) -> None:
    """After a log-out, a reload shows the form."""
    page = stranger.log_in()
    press(page, "Log out")
    page.get_by_label("API key").wait_for()
    page.reload()
    page.get_by_label("API key").wait_for()
