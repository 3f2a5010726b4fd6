# SPDX-License-Identifier: Apache-2.0
"""Every route and every `novitai` command that a page names exists."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main
from typer.core import TyperGroup

from novitai.cli.main import app
from tests.docs.pages import DOCS, ROOT
from tests.live import live

PAGES = [
    *(path for path in sorted(DOCS.rglob("*.md")) if path.name != "emulator.md"),
    ROOT / "README.md",
    ROOT / "PACKAGE.md",
    ROOT / "CHANGELOG.md",
    ROOT / "clients/python/README.md",
]
_NAMED = re.compile(r"`(GET|POST|PUT|PATCH|DELETE) (/(?:api|health|metrics)[^`\s?]*)")
_COMMAND = re.compile(r"(?:^\$ |`)novitai ([a-z]+)(?: ([a-z]+))?", re.MULTILINE)


def shape(path: str) -> str:
    """Replace placeholders of IDs, also in the colon form of the published reference."""
    return re.sub(r"\{[^}]+\}|\$[A-Z_]+|:\w+|(?<=/)[A-Z][A-Z_]+", "{}", path.rstrip("/"))


def test_every_route_that_is_named_exists(tmp_path: Path) -> None:
    """The method and path of each named route are in the OpenAPI document."""
    with live(f"sqlite:///{tmp_path}/novitai.db", tmp_path) as server:
        document = server.http.get("/openapi.json").json()
    known = {
        (method.upper(), shape(path)) for path, item in document["paths"].items() for method in item
    }
    named = {
        (page.name, method, path)
        for page in PAGES
        for method, path in _NAMED.findall(page.read_text(encoding="utf-8"))
    }
    assert len(named) > 30
    missing = {one for one in named if (one[1], shape(one[2])) not in known}
    # The pages may shorten `/api/instances/{id}/start|stop|restart` and the like.
    assert {one for one in missing if "|" not in one[2]} == set()


def test_every_command_that_is_named_exists() -> None:
    """Each `novitai <command>` that a page names exists, subcommands included."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    for page in PAGES:
        for command, sub in _COMMAND.findall(page.read_text(encoding="utf-8")):
            assert command in group.commands, f"{page.name}: novitai {command}"
            subcommands = getattr(group.commands[command], "commands", None)
            if subcommands is not None and sub:
                assert sub in subcommands, f"{page.name}: novitai {command} {sub}"
