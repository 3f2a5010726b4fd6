# SPDX-License-Identifier: Apache-2.0
"""Hours of mixed load on undisturbed processes: what they hold must stay the same.

Clients create, use and delete instances, with webhooks, and readers read lists, instances, events,
metrics and the event stream. Once a minute, each process is measured from outside.
"""

from __future__ import annotations

import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx2
import psutil

from tests.blackbox.harness import ADMIN_KEY
from tests.chaos.processes import Arena, Clients, driving, prepared
from tests.services import RestartableServer

_READERS: Final = 2
_READ_EVERY: Final = 0.05
_WARM: Final = 0.1
"""The share of the time after which a process holds what it always will."""
_ROOM: Final = {"memory, MB": 10.0, "files": 10.0, "threads": 2.0, "WAL, MB": 8.0}
"""By how much the median of the last tenth may exceed that of the tenth after warming up."""
_PATHS: Final = (
    "/api/instances?limit=100",
    "/api/events?order=desc&limit=100",
    "/metrics",
    "/api/costs",
    "/health",
    "/api/instances?status=running&limit=10",
)


@dataclass
class Series:
    """The measurements of one process, or of the files that all share."""

    name: str
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, what: str, value: float) -> None:
        """Add a measurement."""
        self.values.setdefault(what, []).append(value)

    def rows(self) -> list[tuple[str, float, float, float, bool]]:
        """Return what was measured: at first, at last, at most, and whether it stayed the same."""
        found = []
        for what, values in self.values.items():
            part = max(1, int(len(values) * _WARM))
            first = statistics.median(values[part : 2 * part] or values)
            last = statistics.median(values[-part:])
            found.append((what, first, last, max(values), last - first <= _ROOM.get(what, 1e9)))
        return found


def run(
    seconds: float,
    *,
    server: RestartableServer | None = None,
    redis_url: str = "",
    every: float = 60.0,
    tell: Callable[[str], None] = lambda _line: None,
) -> tuple[str, bool]:
    """Load the processes; return the table, and whether all stayed the same and kept promises."""
    folder = Path(tempfile.mkdtemp(prefix="novitai-soak-"))
    with prepared(folder, redis_url) as (receiver, sandbox, emulator):
        sandbox.env["NOVITAI_ENVIRONMENT"] = "production"
        if server is not None:
            sandbox.env["NOVITAI_DATABASE_URL"] = server.url
        arena = Arena(sandbox, emulator, 1, server, None)
        arena.open()
        clients = Clients(arena.urls, arena.report, receiver.url)
        driving(arena, clients.rent)
        clients.start()
        readers = Readers(arena.urls, clients)
        readers.start()
        series = [Series(" ".join(place.arguments[:1])) for place in arena.places]
        shared = Series("all")
        began = time.monotonic()
        while (now := time.monotonic()) - began < seconds:
            driving(arena, lambda: time.sleep(min(every, seconds)))
            for one, place in zip(series, arena.places, strict=True):
                seen = psutil.Process(place.process.pid)
                one.add("memory, MB", seen.memory_info().rss / 1e6)
                one.add("files", seen.num_fds())
                one.add("threads", seen.num_threads())
                one.add("CPU, s a minute", sum(seen.cpu_times()[:2]) / ((now - began + every) / 60))
            wal = sandbox.data / "novitai.db-wal"
            if wal.exists():
                shared.add("WAL, MB", wal.stat().st_size / 1e6)
            logs = sum(each.stat().st_size for each in folder.glob("*.err"))
            shared.add("log, bytes a request", logs / max(1, readers.count))
            tell(f"{(now - began) / 60:.0f} min: {arena.report.lives} lives, {readers.count} reads")
        readers.end()
        driving(arena, clients.end)
        driving(arena, clients.look_at_others)
        arena.conclude(clients, receiver)
    problems = [*arena.report.problems, *readers.problems]
    lines = [f"{'process':10} {'measure':22} {'first':>9} {'last':>9} {'most':>9}  verdict"]
    flat = True
    for one in (*series, shared):
        for what, first, last, most, same in one.rows():
            verdict = "" if what not in _ROOM else "flat" if same else "grows"
            flat = flat and same
            lines.append(f"{one.name:10} {what:22} {first:9.1f} {last:9.1f} {most:9.1f}  {verdict}")
    lines.append(
        f"{seconds / 60:.0f} minutes, {arena.report.lives} instances, "
        f"{len(arena.report.goals)} accepted requests, {readers.count} reads, "
        f"{arena.report.listings} listings, {len(problems)} broken promises"
    )
    lines += problems
    if problems:
        lines.append(f"logs and data are kept in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return "\n".join(lines), flat and not problems


class Readers:
    """Threads that read, and one that follows the event stream."""

    def __init__(self, urls: Callable[[], Sequence[str]], clients: Clients) -> None:
        self.count = 0
        self.problems: list[str] = []
        self._urls = urls
        self._clients = clients
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=work, daemon=True)
            for work in (*[self._read] * _READERS, self._follow)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop, and wait until the reads have ended."""
        self._ending.set()
        for thread in self._threads[:_READERS]:
            thread.join()

    def _read(self) -> None:
        chance = random.Random(1)
        with self._client(20) as http:
            while not self._ending.wait(_READ_EVERY):
                known = [f"/api/instances/{one}" for one in list(self._clients.ids)[-50:]]
                path = chance.choice([*_PATHS, *known[:20]])
                answer = http.get(chance.choice(list(self._urls())) + path)
                self.count += 1
                if answer.status_code != 200 and len(self.problems) < 10:
                    self.problems.append(f"GET {path}: {answer.status_code} {answer.text[:200]}")

    def _follow(self) -> None:
        with self._client(40) as http:
            while not self._ending.is_set():
                url = self._urls()[0]
                with (
                    suppress(httpx2.HTTPError),
                    http.stream("GET", f"{url}/api/events/stream") as stream,
                ):
                    for _ in stream.iter_lines():
                        if self._ending.is_set():
                            return

    @staticmethod
    def _client(timeout: float) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        return httpx2.Client(headers=headers, trust_env=False, timeout=timeout)
