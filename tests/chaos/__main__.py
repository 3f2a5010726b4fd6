# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.chaos PART`: the runs of `make chaos`."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.chaos import model, processes, soak
from tests.chaos.cases import Group
from tests.chaos.processes import Report
from tests.pooler import pgbouncer
from tests.services import REDIS_URL, restartable_server

_REAL: Final = {
    "processes": "real processes on SQLite",
    "postgresql": "real processes on a PostgreSQL server of their own, and Redis",
    "pgbouncer": "the same behind PgBouncer in transaction mode",
    "upgrade": "the same while one API process and one worker are of the release before",
}


def main() -> int:
    """Run what the arguments name; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parts = parser.add_subparsers(dest="part", required=True)
    virtual = parts.add_parser("model", help="lives in virtual time")
    virtual.add_argument("--runs", type=int, default=10_000)
    virtual.add_argument("--processors", type=int, default=os.cpu_count() or 1)
    virtual.add_argument("--seconds", type=float, default=3_000, help="begin nothing after that")
    virtual.add_argument("--share", default="1/1", help="K/N: only the K-th of N parts of them")
    for name, what in _REAL.items():
        real = parts.add_parser(name, help=what)
        real.add_argument("--runs", type=int, default=250)
        real.add_argument("--seed", type=int, default=1)
        real.add_argument("--kinds", type=_words, default=(), help="A,B: these kinds in turn")
        real.add_argument(
            "--every", type=_pause, default=(0.0, 1.0), help="A-B: seconds between disturbances"
        )
    long = parts.add_parser("soak", help="hours of load without disturbances, for make soak")
    long.add_argument("--seconds", type=float, default=7_200)
    long.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    again = parts.add_parser("replay", help="one life that a run has named")
    again.add_argument("name")
    given = parser.parse_args()
    if given.part == "replay":
        return _replay(given.name)
    if given.part in _REAL:
        return _disturb(given)
    if given.part == "soak":
        return _soak(given.seconds, given.store)
    number, _, of = given.share.partition("/")
    wanted = model.plan(given.runs)[int(number) - 1 :: int(of)]
    return _model(wanted, given.processors, given.seconds)


def _model(wanted: Sequence[tuple[Group, Sequence[int]]], processors: int, seconds: float) -> int:
    began = time.monotonic()
    results, cpu = model.run_everywhere(
        wanted, processors=processors, seconds=seconds, tell=_progress
    )
    print(model.table(results))
    print(
        f"{len(results)} runs in {time.monotonic() - began:.0f} s on {processors} processors, "
        f"{cpu:.0f} s of processor time, {cpu / len(results) * 1000:.0f} ms each"
    )
    print(model.broken(results))
    return int(any(one.violations for one in results))


def _disturb(given: argparse.Namespace) -> int:
    """Disturb real processes, as the arguments say."""
    run = partial(
        processes.run,
        given.runs,
        seed=given.seed,
        kinds=given.kinds,
        every=given.every,
        tell=_progress,
    )
    if given.part == "processes":
        return _told(run())
    with ExitStack() as stack:
        server = stack.enter_context(restartable_server())
        pooler_url = ""
        if given.part == "pgbouncer":
            pooler_url = stack.enter_context(pgbouncer(server.url, "transaction"))
        upgrading = given.part == "upgrade"
        return _told(
            run(server=server, pooler_url=pooler_url, redis_url=_redis(), upgrading=upgrading)
        )


def _soak(seconds: float, store: str) -> int:
    """Load processes for a long time."""
    with ExitStack() as stack:
        server = stack.enter_context(restartable_server()) if store == "postgresql" else None
        redis_url = _redis() if server else ""
        table, kept = soak.run(seconds, server=server, redis_url=redis_url, tell=_progress)
    print(table)
    return int(not kept)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _pause(text: str) -> tuple[float, float]:
    shortest, _, longest = text.partition("-")
    return float(shortest), float(longest)


def _told(report: Report) -> int:
    print(report.table())
    return int(bool(report.problems))


def _redis() -> str:
    """Return the URL of the Redis server of the tests; empty if none answers."""
    parts = urlsplit(REDIS_URL)
    with suppress(OSError), socket.create_connection((parts.hostname, parts.port or 6379), 3):
        return REDIS_URL
    return ""


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _replay(name: str) -> int:
    with tempfile.TemporaryDirectory(prefix="novitai-chaos-") as folder:
        (lived,) = model.run_groups([model.find(name)], folder=Path(folder))
    print(model.table(lived.results))
    print(model.broken(lived.results))
    return int(any(one.violations for one in lived.results))


if __name__ == "__main__":
    sys.exit(main())
