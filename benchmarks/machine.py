# SPDX-License-Identifier: Apache-2.0
"""The machine: its processors, its load, and the failure that ends a run."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

ROOM: Final = "build"
"""The folder of databases and logs, below the working directory: temporary folders are often in
memory, where a durable commit costs nothing."""


class BenchmarkFailed(Exception):
    """A measure could not be taken; the message is one line."""


def facts() -> dict[str, object]:
    """Return what a reader must know to judge figures; called at the start of a run."""
    load = os.getloadavg()
    return {
        "load at the start": " ".join(f"{value:.1f}" for value in load),
        "processors": os.cpu_count() or 1,
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
    }


def cores() -> tuple[int, int] | None:
    """Return the core of servers and that of the load generator; None if there is only one."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else None


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Run on one core; processes that are started meanwhile stay on it. None: on all cores."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
