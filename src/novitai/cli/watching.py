# SPDX-License-Identifier: Apache-2.0
"""How the demonstration shows the states of an instance: a live table, or one line per state."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from novitai.cli.output import say


@dataclass(frozen=True, slots=True)
class State:
    """A status, and the status at Novita at the same time; `since` in seconds from the request."""

    status: str
    upstream: str
    since: float


class Screen(Protocol):
    """Somewhere to show states."""

    def show(self, status: str, upstream: str, elapsed: float) -> None:
        """Show the state `elapsed` seconds after the request."""
        ...


@contextmanager
def open_screen() -> Iterator[Screen]:
    """Open the screen that suits standard output."""
    if not sys.stdout.isatty():
        yield Lines()
        return
    with Live(console=Console(), refresh_per_second=10) as live:
        yield Board(live)


class Lines:
    """One line for each state, for a pipe or a file."""

    def __init__(self) -> None:
        self._last: tuple[str, str] | None = None

    def show(self, status: str, upstream: str, elapsed: float) -> None:
        """Write a line if the state has changed."""
        if (status, upstream) != self._last:
            self._last = (status, upstream)
            at_novita = f"(at Novita: {upstream})" if upstream else ""
            say(f"{elapsed:6.1f} s  {status:<10} {at_novita}".rstrip())


class Board:
    """A table with a row for each state, and a spinner with the elapsed time below it."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._states: list[State] = []
        # The dots are Braille characters, which need Unicode.
        self._spinner = Spinner("dots" if live.console.encoding.startswith("utf") else "line")

    def show(self, status: str, upstream: str, elapsed: float) -> None:
        """Redraw the table."""
        last = self._states[-1] if self._states else None
        if last is None or (last.status, last.upstream) != (status, upstream):
            self._states.append(State(status, upstream, elapsed))
        table = Table("at", "status", "at Novita", box=None, header_style="dim")
        for state in self._states:
            style = "bold green" if state.status == "running" else "cyan"
            table.add_row(
                f"{state.since:.1f} s", Text(state.status, style), Text(state.upstream, "dim")
            )
        if status == "running":
            self._live.update(table, refresh=True)
            return
        self._spinner.update(text=f" {elapsed:.1f} s")
        self._live.update(Group(table, self._spinner))
