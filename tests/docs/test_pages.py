# SPDX-License-Identifier: Apache-2.0
"""The pages are consistent: links and paths exist, and every status is explained."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest

from novitai.domain.instance import TRANSITIONS, InstanceStatus
from tests.docs.pages import DOCS, ROOT, codes, first_column, page, rows, section

PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("clients/*/*.md")])
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_KINDS = {"tutorial", "how-to", "reference", "explanation"}


def links(path: Path) -> Iterator[str]:
    """List the link targets of a page, outside code."""
    text = re.sub(
        r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    for match in _LINK.finditer(re.sub(r"`[^`\n]*`", "", text)):
        yield match[1] or match[2]


def anchors(path: Path) -> set[str]:
    """List the anchors of a page in GitHub's form."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """The target of a relative link is an existing file and heading of the repository."""
    for link in links(path):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / unquote(name)).resolve() if name else path
        assert target.exists(), f"{path.name} leads to {link}"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(target), f"{path.name} leads to {link}"


def test_every_page_is_in_the_index() -> None:
    """docs/README.md links to every page, and every page is of one of the four kinds."""
    listed = {(DOCS / link.partition("#")[0]).resolve() for link in links(DOCS / "README.md")}
    pages = {path for path in DOCS.rglob("*.md") if path != DOCS / "README.md"}
    assert pages <= listed
    assert {path.relative_to(DOCS).parts[0] for path in pages} == _KINDS


def test_the_map_names_files_that_exist() -> None:
    """Each path in docs/explanation/source-map.md exists."""
    named = [path for row in rows(page("explanation/source-map.md")) for path in codes(row[1])]
    assert len(named) > 50
    assert [path for path in named if not (ROOT / "src/novitai" / path).exists()] == []


def test_every_status_and_phase_may_hang() -> None:
    """docs/explanation/my-instance-hangs.md covers each status and each phase."""
    text = page("explanation/my-instance-hangs.md")
    assert first_column(section(text, "By status")) == [one.value for one in InstanceStatus]
    phases = first_column(section(page("reference/statuses.md"), "Phases"))
    assert first_column(section(text, "By phase of the operation")) == phases


def test_errors_that_operations_wait_with_are_explained() -> None:
    """Errors explained for operations are in the table of errors of instances and operations."""
    known = first_column(section(page("reference/errors.md"), "Errors of instances and operations"))
    text = page("explanation/my-instance-hangs.md")
    assert set(first_column(section(text, "By error of the operation"))) <= set(known)


def test_the_diagram_has_every_transition() -> None:
    """The state diagram has the transitions of the code, except those common to all statuses."""
    drawn = set(
        re.findall(r"^ +(\w+) --> (\w+):", page("explanation/statuses.md"), re.MULTILINE)
    ) - {("terminating", "terminated")}
    ends = {InstanceStatus.TERMINATING, InstanceStatus.TERMINATED, InstanceStatus.RELEASED}
    assert drawn == {
        (before.value, after.value)
        for before, following in TRANSITIONS.items()
        for after in following - ends
    }


def test_a_term_has_one_meaning() -> None:
    """The glossary is sorted, and each term occurs once."""
    terms = [row[0] for row in rows(page("explanation/glossary.md"))]
    assert terms == sorted(set(terms), key=str.lower)


def test_contributing_names_files_that_exist() -> None:
    """Each file that CONTRIBUTING.md names exists in the repository or below src/novitai/."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/.]+/|[\w/]+\.(?:py|md|toml))`", text))
    assert len(named) > 40
    bases = (ROOT, ROOT / "src/novitai", ROOT / "src/novitai/api", ROOT / "src/novitai/store")
    assert [one for one in named if not any((base / one).exists() for base in bases)] == []


@pytest.mark.parametrize("folder", [".", "clients/python"])
def test_a_package_index_shows_a_page_whose_links_work(folder: str) -> None:
    """The README of the package metadata has no relative links."""
    file = ROOT / folder / "pyproject.toml"
    metadata = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    shown = file.parent / metadata["readme"]
    assert [link for link in links(shown) if "://" not in link] == []
    assert "has not been run against the live Novita service" in shown.read_text(encoding="utf-8")
    assert (file.parent / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    for url in metadata.get("urls", {}).values():
        assert "example" not in url


def test_the_picture_shows_the_demo() -> None:
    """docs/demo.svg is well-formed, and shows `starting` while Novita reports `running`."""
    root = ET.parse(DOCS / "demo.svg").getroot()  # noqa: S314 - drawn by tools.picture
    text = "\n".join("".join(each.itertext()) for each in root.iter())
    for part in ("creating", "starting   (at Novita: running)", "Price:", "Webhooks received"):
        assert part in text


def test_diagrams_can_be_drawn() -> None:
    """Sequence diagrams declare their participants, and have no `;`, which ends a statement."""
    diagrams = re.findall(
        r"^```mermaid\nsequenceDiagram\n(.*?)^```",
        page("explanation/statuses.md"),
        re.MULTILINE | re.DOTALL,
    )
    assert len(diagrams) == 3
    for diagram in diagrams:
        assert ";" not in diagram
        named = set(re.findall(r"^ +participant (\w+) as ", diagram, re.MULTILINE))
        used = re.findall(r"^ +(\w+)-{1,2}>?>?\)?(\w+):", diagram, re.MULTILINE)
        assert {one for pair in used for one in pair} == named
