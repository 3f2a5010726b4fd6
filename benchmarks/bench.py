# SPDX-License-Identifier: Apache-2.0
"""What every group is given: the scale, a folder, the cores, and where to tell what is skipped."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import processes
from benchmarks.machine import ROOM, cores
from benchmarks.processes import House
from benchmarks.scale import Scale
from benchmarks.stores import postgresql_is_missing


@dataclass
class Bench:
    """One run of the benchmarks.

    Attributes:
        scale: How much is measured.
        room: The folder below which each group has its databases and logs.
        note: Called with one line for everything that is skipped or incomplete.
        server_core: The core of servers and yardsticks; None if there is only one core.
        load_core: The core of the load generator and the emulator.
    """

    scale: Scale
    room: Path = field(default_factory=lambda: Path(ROOM))
    note: Callable[[str], None] = print
    server_core: int | None = None
    load_core: int | None = None
    _missing: str | bool | None = False

    def __post_init__(self) -> None:
        found = cores()
        if found is not None:
            self.server_core, self.load_core = found

    @contextmanager
    def house(self) -> Iterator[House]:
        """Start processes in a new folder; both end with the block."""
        self.room.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=self.room, prefix="bench-") as folder,
            processes.house(Path(folder).absolute()) as made,
        ):
            yield made

    def has_postgresql(self) -> bool:
        """Whether PostgreSQL answers; the first time it does not, that is noted."""
        if self._missing is False:
            self._missing = postgresql_is_missing()
            if self._missing is not None:
                self.note(str(self._missing))
        return self._missing is None
