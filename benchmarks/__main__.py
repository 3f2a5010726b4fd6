# SPDX-License-Identifier: Apache-2.0
"""Runs all benchmarks or those named: `python -m benchmarks store sync`."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

from benchmarks.report import show

_NOT_ONE = {"__main__", "report"}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all of them; return the exit code."""
    folder = str(Path(__file__).parent)
    known = sorted(
        module.name for module in pkgutil.iter_modules([folder]) if module.name not in _NOT_ONE
    )
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"no benchmark named {', '.join(unknown)}; known: {', '.join(known)}")
        return 2
    for name in names or known:
        show(importlib.import_module(f"benchmarks.{name}").run())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
