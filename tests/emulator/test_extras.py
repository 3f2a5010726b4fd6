# SPDX-License-Identifier: Apache-2.0
"""The endpoints that novitai never calls: in the source tree, not in the wheel."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import novitai
from novitai.emulator import api, extras

ROOT = Path(__file__).parents[2]
CALLED = frozenset(
    {"clusters", "products", "template", "templates", "instance", "instances", "create"}
    | {"start", "stop", "restart", "delete"}
)
WITHOUT = """
import sys
sys.modules["novitai.emulator.extras"] = None
from novitai.emulator import api, create_app
create_app()
print(api.HAS_EXTRAS, *sorted(path for _, path in api.TABLE))
"""


def test_the_wheel_leaves_them_out() -> None:
    """The build excludes the folder in which they are, and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    excluded = project["tool"]["hatch"]["build"]["targets"]["wheel"]["exclude"]
    folder = Path(str(extras.__file__)).parent
    assert [ROOT / name for name in excluded] == [folder]
    assert Path(novitai.__file__).parent in folder.parents


def test_the_emulator_runs_without_them() -> None:
    """What novitai calls is emulated in any case; the rest is missing and said to be."""
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT], check=True, capture_output=True, text=True
    )
    has_extras, *paths = ended.stdout.split()
    assert has_extras == "False"
    assert {path.rsplit("/", 1)[-1] for path in paths} >= CALLED
    assert set(paths) == {path for _, path in api.TABLE.keys() - extras.ROUTES.keys()}


def test_here_they_are_installed() -> None:
    """From the source tree every endpoint is emulated."""
    assert api.HAS_EXTRAS
    assert extras.ROUTES.items() <= api.TABLE.items()
