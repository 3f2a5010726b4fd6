# SPDX-License-Identifier: Apache-2.0
"""Small transaction functions for the tests of the database, and a gate that blocks its threads."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import Connection, insert, select

from novitai.store.tables import installation


def put(name: str, value: str = "") -> Callable[[Connection], str]:
    """Return a function that writes one row and returns its name."""

    def fn(connection: Connection) -> str:
        connection.execute(insert(installation).values(name=name, value=value))
        return name

    return fn


def put_and_fail(name: str) -> Callable[[Connection], None]:
    """Return a function that writes one row and raises."""

    def fn(connection: Connection) -> None:
        put(name)(connection)
        raise LookupError(name)

    return fn


def names(connection: Connection) -> list[str]:
    """Read the names of the rows, sorted, without those that a ping and a migration write."""
    found = set(connection.execute(select(installation.c.name)).scalars())
    return sorted(found - {"written", "schema"})


class Gate:
    """A transaction function that blocks until `open` is called, and signals when it began."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()

    def __call__(self, connection: Connection) -> None:
        self.entered.set()
        if not self._open.wait(30):
            raise TimeoutError("the gate was not opened")

    def open(self) -> None:
        """Let the function return."""
        self._open.set()


@contextlib.contextmanager
def other_program(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that ignores the lock file."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()
