# SPDX-License-Identifier: Apache-2.0
"""systemd takes the units, finds them well hardened, and they run commands that exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import typer.main

from novitai.cli.main import app
from tests.docs.pages import ROOT
from tests.services import unavailable

FOLDER = ROOT / "deploy/systemd"
HARDENING = FOLDER / "novitai-.service.d/hardening.conf"
UNITS = {
    "novitai-serve.service": "novitai-serve.service",
    "novitai-api@.service": "novitai-api@8081.service",
    "novitai-worker@.service": "novitai-worker@9101.service",
    "novitai-migrate.service": "novitai-migrate.service",
}
"""The units, and the name under which an instance of each runs."""
MOST_EXPOSED = 25
"""Tenths: `systemd-analyze security` calls a unit with 10.0 fully exposed."""


def analyze(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `systemd-analyze` on the units of a folder; it needs no running systemd."""
    program = shutil.which("systemd-analyze")
    if program is None:
        unavailable("systemd-analyze is not on the PATH (Debian's package: systemd)")
    return subprocess.run(
        [program, *arguments],
        env={"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{folder}:"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Copy the units; they start the `novitai` of these tests, because systemd checks its path."""
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    novitai = str(Path(sys.executable).with_name("novitai"))
    for file, instance in UNITS.items():
        text = (tmp_path / file).read_text(encoding="utf-8")
        (tmp_path / file).unlink()
        (tmp_path / instance).write_text(text.replace("/opt/novitai/bin/novitai", novitai))
    return tmp_path


def read(path: Path) -> ConfigParser:
    """Read a unit."""
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their capitals
    parser.read(path, encoding="utf-8")
    return parser


def test_every_unit_is_tested() -> None:
    """The folder has the units above, and the file that hardens all of them."""
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} == set(UNITS)
    assert [path.name for path in FOLDER.glob("*/*")] == [HARDENING.name]


@pytest.mark.parametrize("unit", UNITS.values())
def test_systemd_takes_the_unit(folder: Path, unit: str) -> None:
    """`systemd-analyze verify` passes without a word."""
    checked = analyze("verify", "--man=no", str(folder / unit), folder=folder)
    assert checked.returncode == 0, checked.stderr
    assert unit not in checked.stderr


@pytest.mark.parametrize("unit", UNITS.values())
def test_the_unit_is_hardened(folder: Path, unit: str) -> None:
    """The exposure of the unit is below 2.5 of 10."""
    checked = analyze(
        *("security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}"),
        str(folder / unit),
        folder=folder,
    )
    assert checked.returncode == 0, checked.stdout[-400:]
    assert re.search(r"Overall exposure level for \S+ [01]\.\d OK", checked.stdout)


@pytest.mark.parametrize("unit", UNITS)
def test_the_command_of_the_unit_exists(unit: str) -> None:
    """The command and its options are those of the code."""
    program, name, *options = read(FOLDER / unit)["Service"]["ExecStart"].split()
    assert program == "/opt/novitai/bin/novitai"
    group: Any = typer.main.get_command(app)
    known = {option for each in group.commands[name].params for option in each.opts}
    assert {option for option in options if option.startswith("-")} <= known


def test_a_unit_has_time_to_stop() -> None:
    """The time until SIGKILL is longer than novitai takes; a wrong set-up is not started again."""
    service = read(HARDENING)["Service"]
    assert int(service["TimeoutStopSec"]) > 10
    assert service["RestartPreventExitStatus"].split() == ["2", "78"]
