# SPDX-License-Identifier: Apache-2.0
"""The built site has every page, its links hold, and it asks no other host for anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

from tests.docs.pages import DOCS
from tools.docs_site import SITE

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
POLICY = "default-src 'self'; script-src 'self' 'unsafe-inline'; "


class Page(HTMLParser):
    """The references of a page.

    Attributes:
        loaded: Addresses that a browser requests to show the page.
        links: Addresses of links.
        ids: The targets within the page.
        policy: The content security policies.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.policy: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the references of an element."""
        given = dict(attrs)
        if (address := given.get(LOADED.get(tag, ""))) is not None:
            self.loaded.append(address)
        if tag == "a" and (address := given.get("href")) is not None:
            self.links.append(address)
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy.append(given.get("content") or "")
        self.ids.add(given.get("id") or "")


PAGES = {path: Page(path) for path in sorted(SITE.rglob("*.html"))}


def outside(address: str) -> bool:
    """Whether an address leads to another host."""
    return re.match(r"[a-z][a-z+.-]*:|//", address) is not None and not address.startswith("data:")


def targets(page: Page) -> Iterator[tuple[str, Path, str]]:
    """Return the links of a page within the site: as written, the file, and the place in it."""
    for link in page.links:
        if outside(link):
            continue
        name, place = urldefrag(link)
        start = SITE if name.startswith("/") else page.path.parent
        target = (start / unquote(name).lstrip("/")).resolve() if name else page.path
        yield link, target / "index.html" if target.is_dir() else target, unquote(place)


def test_every_page_of_the_documentation_is_there() -> None:
    """Each Markdown file has its page."""
    expected = {
        SITE / path.relative_to(DOCS).with_suffix("") / "index.html"
        for path in DOCS.rglob("*.md")
        if path.name != "README.md"
    }
    assert len(expected) > 40
    assert not expected - set(PAGES)
    assert SITE / "index.html" in PAGES


def test_no_page_loads_anything_from_another_host() -> None:
    """Scripts, styles, fonts and pictures are files of the site, and the browser insists on it."""
    assert not {
        (path.name, one) for path, page in PAGES.items() for one in page.loaded if outside(one)
    }
    for path, page in PAGES.items():
        assert len(page.policy) == 1, path
        assert page.policy[0].startswith(POLICY)
    for style in SITE.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        addresses = re.findall(r"url\(['\"]?([^'\")]+)", text)
        assert not [one for one in addresses if outside(one)], style
        assert "@import" not in text


def test_the_diagrams_have_their_script() -> None:
    """Mermaid is a file of the site, and a page with a diagram loads it."""
    page = PAGES[SITE / "explanation/statuses/index.html"]
    assert 'class="mermaid"' in page.path.read_text(encoding="utf-8")
    assert any(one.endswith("assets/mermaid.min.js") for one in page.loaded)
    assert (SITE / "assets/mermaid.min.js").stat().st_size > 500_000


def test_every_link_holds() -> None:
    """A link within the site leads to a file, and to a place in it."""
    for path, page in PAGES.items():
        if path.name == "404.html":
            continue
        for link, target, place in targets(page):
            assert target.exists(), f"{path.relative_to(SITE)} leads to {link}"
            if place and target in PAGES:
                assert place in PAGES[target].ids, f"{path.relative_to(SITE)} leads to {link}"


def test_the_four_kinds_are_the_navigation() -> None:
    """The front page leads to a section for each kind of documentation."""
    text = (SITE / "index.html").read_text(encoding="utf-8")
    for kind in ("Tutorial", "How-to guides", "Reference", "Explanation"):
        assert re.search(rf">\s*{kind}\s*<", text), kind
