# SPDX-License-Identifier: Apache-2.0
"""A program that changes records as fast as it can, and says in a shared file what it committed.

Run it as a script with the database's URL, the shared file and the IDs of the records.
"""

from __future__ import annotations

import mmap
import random
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

BASE = 1_700_000_000_000
"""The time of last use of a record is this plus the number of its last change."""


def numbers(path: Path) -> memoryview:
    """Map the shared file: the number of the last committed change of each record."""
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("q")


def writer(url: str) -> Callable[[str, int], None]:
    """Return a function that commits the time of last use of a record."""
    if url.startswith("sqlite"):
        file = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60, isolation_level=None)

        def update_file(instance_id: str, at: int) -> None:
            file.execute("UPDATE instances SET last_used_at = ? WHERE id = ?", (at, instance_id))

        return update_file
    import psycopg

    def connect() -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(url, autocommit=True, application_name="committing")

    server: psycopg.Connection[tuple[Any, ...]] | None = None

    def update_server(instance_id: str, at: int) -> None:
        nonlocal server
        while True:
            try:
                server = server or connect()
                server.execute(
                    "UPDATE instances SET last_used_at = %s WHERE id = %s", (at, instance_id)
                )
            except psycopg.OperationalError:  # it restarts; whether it has committed is unknown
                server = None
            else:
                return

    return update_server


def main(url: str, shared: str, *ids: str) -> None:
    """Change records until standard input is closed or this process is ended."""
    commit, committed = writer(url), numbers(Path(shared))
    chosen = random.Random(1)
    while True:
        place = chosen.randrange(len(ids))
        number = committed[place] + 1
        commit(ids[place], BASE + number)
        committed[place] = number


if __name__ == "__main__":
    main(*sys.argv[1:])
