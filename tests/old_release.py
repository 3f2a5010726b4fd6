# SPDX-License-Identifier: Apache-2.0
"""The wheel of the release before, run with the libraries that are installed here."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path
from typing import Final

from tests.blackbox.harness import Process, Sandbox

WHEEL: Final = Path(__file__).parent / "releases" / "novitai-0.1.0-py3-none-any.whl"


def unpacked(folder: Path) -> Path:
    """Unpack the wheel in a folder; return where its packages are."""
    target = folder / "0.1.0"
    with zipfile.ZipFile(WHEEL) as wheel:
        wheel.extractall(target)
    return target


def run_release(sandbox: Sandbox, release: Path, *arguments: str, **settings: str) -> Process:
    """Run a command of an unpacked release."""
    paths = [str(release), *filter(None, [os.environ.get("PYTHONPATH")])]
    shell = ["sh", "-c", f'shift; exec {sys.executable} -m novitai "$@"', "sh"]
    path = os.pathsep.join(paths)
    return sandbox.run(*arguments, before=shell, PYTHONPATH=path, **settings)
