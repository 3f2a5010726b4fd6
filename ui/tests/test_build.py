# SPDX-License-Identifier: Apache-2.0
"""The committed build is that of the sources, small, and without anything inline."""

from __future__ import annotations

import gzip
import re
import zipfile
from pathlib import Path
from typing import Final

from clients.tests.generators import ROOT, run
from novitai.web import BUILT
from ui.tests.browser import UI

FIRST_LOAD: Final = 250_000


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_committed_build_is_that_of_the_sources(tmp_path: Path) -> None:
    """`make ui` changes nothing."""
    (UI / "generated").mkdir(exist_ok=True)
    python = ROOT / ".venv/bin/python"
    run(python, "-m", "tools.openapi", UI / "generated/openapi.json", folder=ROOT)
    run("npm", "run", "types", folder=UI)
    run("npm", "run", "check", folder=UI)
    run("npm", "run", "build", "--", "--outDir", tmp_path / "static", folder=UI)
    built, committed = files_of(tmp_path / "static"), files_of(BUILT)
    assert built.keys() == committed.keys()
    assert [name for name in built if built[name] != committed[name]] == []


def test_the_first_load_is_small() -> None:
    """The page, and all that it and the overview load, are at most 250 kB with gzip."""
    files = files_of(BUILT)
    seen: set[str] = set()
    waiting = ["index.html", *(name for name in files if "OverviewPage" in name)]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        text = files[name].decode(errors="replace")
        # Static imports and the page's references; what is loaded later is in `import(...)`.
        found = re.findall(r'(?:from|import)\s*["`]\./([\w.-]+)["`]', text)
        found += re.findall(r'(?:src|href)="/assets/([\w.-]+)"', text)
        waiting += [f"assets/{one}" for one in found]
    assert len(seen) > 3
    assert sum(len(gzip.compress(files[name], 6)) for name in seen) <= FIRST_LOAD


def test_nothing_of_the_page_is_inline() -> None:
    """The policy allows neither inline scripts nor inline styles."""
    page = (BUILT / "index.html").read_text()
    assert re.search(r"<script(?![^>]*\bsrc=)", page) is None
    assert re.search(r"<style|\sstyle=|\son\w+=", page) is None


def test_the_licences_of_bundled_packages_are_shipped() -> None:
    """A file beside the build names each package that the sources depend on."""
    text = (BUILT / "licenses.md").read_text()
    for name in ("react", "react-dom", "@base-ui/react", "@tanstack/react-query", "uplot"):
        assert re.search(rf"^## {re.escape(name)} - ", text, re.MULTILINE), name


def test_the_wheel_has_the_files(tmp_path: Path) -> None:
    """An installed novitai serves the dashboard and the page of the API as the source tree does."""
    uv = ROOT / ".venv/bin/uv"
    run(uv, "build", "--quiet", "--wheel", "--out-dir", tmp_path, folder=ROOT)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        shipped = {
            name.removeprefix("novitai/web/static/"): wheel.read(name)
            for name in wheel.namelist()
            if name.startswith("novitai/web/static/")
        }
    assert shipped == files_of(BUILT)
