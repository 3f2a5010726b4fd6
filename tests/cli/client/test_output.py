# SPDX-License-Identifier: Apache-2.0
"""Tables on a terminal, in a pipe, at 80 and 200 columns, and with `NO_COLOR`."""

from __future__ import annotations

import re
from typing import Any

import pytest
from rich.console import Console

from novitai.cli.client import tables
from novitai.cli.client.instances import COLUMNS, described
from novitai_client.models.instances import Instance
from tests.cli.client.program import PRODUCT, TEMPLATE, Program

ESCAPE = "\x1b["
NAME = "a-name-of-forty-characters-with-its-end-e"
HOSTILE = "[red]x[/red]\x1b[2Jy\nz"


def instance(**changes: Any) -> Instance:
    """Make an instance as the API shows it."""
    view = {
        "id": "inst_1",
        "name": "trainer",
        "status": "running",
        "gpuNum": 1,
        "region": "CN-HK-01",
        "portMappings": [],
        "createdAt": "2026-01-02T03:04:05.678Z",
        "productName": PRODUCT,
        "billingMode": "onDemand",
        "tags": {},
    }
    return Instance.model_validate({**view, **changes})


def test_a_terminal_gets_a_table_in_colours(program: Program) -> None:
    """80 columns break long names and lose nothing; 200 have room; `NO_COLOR` has no escapes."""
    program.rent(NAME, "--tag", "team=tty")
    narrow = program.on_terminal("ls", "--tag", "team=tty")
    assert ESCAPE in narrow.out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", narrow.out)
    assert all(len(line) <= 80 for line in plain.splitlines() if not line.startswith("novitai:"))
    shown = "".join(line.split("  ")[0].strip() for line in plain.splitlines()[2:])
    assert NAME in shown
    wide = program.on_terminal("ls", "--tag", "team=tty", columns=200, env={"NO_COLOR": "1"})
    assert ESCAPE not in wide.out
    assert re.search(rf"^{NAME}  running  1 x RTX 4090 24GB  CN-HK-01", wide.out, re.MULTILINE)


def test_a_terminal_shows_progress_and_asks(program: Program) -> None:
    """`create --wait` has a line that moves; `delete` asks, and `n` leaves everything as it is."""
    made = program.on_terminal(
        "create", "on-tty", "--product", PRODUCT, "--template", TEMPLATE, "--wait"
    )
    assert made.code == 0
    assert re.search(r"[|/\\-] +\d+\.\d s  on-tty: ", made.out)
    assert "\x1b[?25h" in made.out  # the cursor is shown again
    left = program.on_terminal("delete", "on-tty", keys=b"n\n")
    assert left.code == 1
    assert "Delete on-tty, with all data on it? [y/N]" in left.out
    assert "nothing was done" in left.out
    gone = program.on_terminal("delete", "on-tty", keys=b"y\n")
    assert gone.code == 0
    assert "terminating" in gone.out


def test_a_pipe_gets_plain_lines(program: Program) -> None:
    """Without a terminal there is no escape sequence, and nothing is cut off or asked."""
    program.rent(f"p{NAME}", "--tag", "team=pipe")
    ran = program.process("ls", "--tag", "team=pipe", env={"COLUMNS": "20", "FORCE_COLOR": "1"})
    assert ESCAPE not in ran.out + ran.err
    assert f"p{NAME}  running  1 x RTX 4090 24GB" in ran.out
    assert ran.err.splitlines()[0] == f"novitai: {program.server.url} (NOVITAI_URL)"


@pytest.mark.parametrize("width", [80, 200])
def test_text_of_a_server_is_never_markup(width: int) -> None:
    """Names with markup and control characters are shown as they are, without their effect."""
    rows = [instance(name=HOSTILE, region=HOSTILE), instance(name="東京-й")]
    console = Console(width=width, force_terminal=True, color_system="truecolor", markup=False)
    with console.capture() as capture:
        console.print(tables.table(COLUMNS[:4], rows, header=True))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capture.get())
    assert "[red]x[/red]�[2Jy z" in shown
    assert "\x1b" not in shown
    assert "東京-й" in shown
    lines = tables.lines(COLUMNS[:2], rows, header=True)
    assert [line.split()[-1] for line in lines] == ["STATUS", "running", "running"]
    ends = {tables.width(line) for line in lines[1:]}
    assert len(ends) == 1


def test_an_object_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """`get` shows errors of Novita on one line; JSON escapes what is not ASCII."""
    broken = instance(
        status="failed",
        error={"code": "X", "message": HOSTILE, "at": "2026-01-02T03:04:05.678Z"},
        connectionDetails={"jupyter": "http://x/\x1b]0;title\x07"},
    )
    tables.facts(described(broken))
    tables.show_json(broken)
    shown = capsys.readouterr().out
    assert "error:" in shown
    assert not set(shown) & {"\x1b", "\x07"}
    assert '"createdAt": "2026-01-02T03:04:05.678Z"' in shown
