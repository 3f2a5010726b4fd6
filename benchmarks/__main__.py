# SPDX-License-Identifier: Apache-2.0
"""The command line: `python -m benchmarks reads creates --json build/bench.json`."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import time
from pathlib import Path
from typing import Final

import structlog

from benchmarks import report
from benchmarks.bench import Bench
from benchmarks.machine import ROOM, BenchmarkFailed, facts
from benchmarks.report import Line
from benchmarks.scale import FULL, Scale

GROUPS: Final = ("reads", "creates", "start", "store", "jobs", "sync", "operating", "webhooks")
ON_DEMAND: Final = ("soak",)
"""Groups that run only if they are named, because they take long."""
_NO_GROUP_AFTER: Final = 1_020.0
"""Seconds after which no further group begins, so that a run ends within 20 minutes."""


def main(arguments: list[str] | None = None, scale: Scale = FULL) -> int:
    """Run the named groups, or all; return the exit code: 1 if a measure could not be taken."""
    given = _parser().parse_args(arguments)
    unknown = [name for name in given.groups if name not in GROUPS + ON_DEMAND]
    if unknown:
        known = ", ".join(GROUPS + ON_DEMAND)
        print(f"bench: no group is named {', '.join(unknown)}; known: {known}", file=sys.stderr)
        return 2
    machine = facts()
    lines: list[Line] = []
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        print(text, flush=True)

    given.json.parent.mkdir(parents=True, exist_ok=True)
    bench = Bench(scale, note=note)
    # Some groups run parts of novitai in this process.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print(", ".join(f"{name}: {value}" for name, value in machine.items()))
    print(report.heading(), flush=True)
    code = 0
    began = time.monotonic()
    for group in given.groups or GROUPS:
        if time.monotonic() - began > _NO_GROUP_AFTER:
            note(f"{group} skipped: the run already takes {_NO_GROUP_AFTER / 60:.0f} minutes")
            continue
        try:
            for line in importlib.import_module(f"benchmarks.groups.{group}").run(bench):
                lines.append(line)
                print(report.row(line), flush=True)
        except (BenchmarkFailed, OSError) as error:
            print(f"bench: {group}: {error}", file=sys.stderr, flush=True)
            code = 1
        except KeyboardInterrupt:
            print("bench: interrupted", file=sys.stderr)
            return 130
    given.json.write_bytes(report.to_json(machine, lines, notes))
    if given.markdown is not None:
        report.rewrite(given.markdown, machine, lines)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", help=", ".join(GROUPS + ON_DEMAND))
    parser.add_argument(
        "--json",
        type=Path,
        default=Path(ROOM) / "bench.json",
        help="the file that gets the results (default: %(default)s)",
    )
    parser.add_argument(
        "--markdown", type=Path, help="a page of the docs whose tables of these groups are replaced"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
