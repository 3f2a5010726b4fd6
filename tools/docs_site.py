# SPDX-License-Identifier: Apache-2.0
"""Build the documentation as a site in `build/site`: `python -m tools.docs_site`.

The pages are those of `docs/`, with the changelog and the guide for contributors. The navigation is
the list of `docs/README.md`. Mermaid, which draws the diagrams, comes from npm's registry and is
part of the site, so that a reader's browser asks no other host for it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tools.words import ROOT

SOURCE: Final = ROOT / "build/site-source"
SITE: Final = ROOT / "build/site"
_MERMAID: Final = "mermaid@12.3.0"
_MERMAID_SHA512: Final = (
    "4113TdXeLAsMruJ79OpFL5O8+LTFXhQqZ260rF3tgUmiNAtRm4Uume04I+65PRN6yZ69J4f8rVYWW8zRk65UYw=="
)
_MERMAID_FILE: Final = "package/dist/mermaid.min.js"
_PROJECT: Final = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Pages of the repository's root, and their names in the folder `project` of the site."""


def build() -> None:
    """Build the site.

    Raises:
        SystemExit: the site has a warning, or Mermaid could not be fetched unchanged.
    """
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(ROOT / "docs", SOURCE / "docs")
    shutil.copytree(ROOT / "deploy/site/overrides", SOURCE / "overrides")
    _add_pages_of_the_project()
    _add_mermaid(SOURCE / "docs/assets")
    configuration = (ROOT / "deploy/site/zensical.toml").read_text(encoding="utf-8")
    nav = f"[project]\nnav = {_toml(navigation())}\n"
    (SOURCE / "zensical.toml").write_text(
        configuration.replace("[project]\n", nav, 1), encoding="utf-8"
    )
    zensical = str(Path(sys.executable).with_name("zensical"))
    built = subprocess.run([zensical, "build", "--clean", "--strict"], cwd=SOURCE, check=False)
    if built.returncode != 0:
        raise SystemExit(1)
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(SOURCE / "site", SITE)
    print(f"the site is in {SITE.relative_to(ROOT)}")


def navigation() -> list[dict[str, object]]:
    """Return the navigation: a section for each heading of `docs/README.md`, with its pages."""
    text = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    found: list[dict[str, object]] = [{"Start": "README.md"}]
    for heading, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL):
        pages = re.findall(r"^- \[(.+?)\]\(([\w/.-]+\.md)\)", body, re.MULTILINE)
        found.append({heading: [{title: path} for title, path in pages]})
    project = [{"Changelog": "project/changelog.md"}, {"Contributing": "project/contributing.md"}]
    return [*found, {"Project": project}]


def _toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_toml(one) for one in value)}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(name)} = {_toml(one)}" for name, one in value.items())
        return f"{{ {inner} }}"
    return json.dumps(value)


def _add_pages_of_the_project() -> None:
    """Copy the pages of the root, and adapt the links between them and `docs/`."""
    folder = SOURCE / "docs/project"
    folder.mkdir()
    for name, page in _PROJECT.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        (folder / page).write_text(text.replace("](docs/", "](../"), encoding="utf-8")
    for path in _pages():
        text = path.read_text(encoding="utf-8")
        up = "../" * len(path.relative_to(SOURCE / "docs").parent.parts)
        for name, page in _PROJECT.items():
            text = text.replace(f"]({up}../{name}", f"]({up}project/{page}")
        path.write_text(text, encoding="utf-8")


def _pages() -> Iterator[Path]:
    return (SOURCE / "docs").rglob("*.md")


def _add_mermaid(folder: Path) -> None:
    folder.mkdir()
    packed = subprocess.run(
        ["npm", "pack", "--silent", "--pack-destination", str(SOURCE), _MERMAID],
        cwd=SOURCE,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    archive = SOURCE / packed.stdout.strip()
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != _MERMAID_SHA512:
        raise SystemExit(f"{archive.name} is not the file that this project knows: {digest}")
    with tarfile.open(archive) as tar:
        tar.extract(_MERMAID_FILE, SOURCE, filter="data")
    shutil.move(SOURCE / _MERMAID_FILE, folder)


if __name__ == "__main__":
    build()
