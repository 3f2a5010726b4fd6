# SPDX-License-Identifier: Apache-2.0
"""Metrics of the process: memory, processor and uptime."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from novitai.clock import SystemClock
from novitai.telemetry.process import ProcessMetrics, memory_limit
from novitai.testing import ManualClock


class FixedProbe:
    """A probe whose readings a test sets."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.bytes = (300, 100, 250)

    def cpu_seconds(self) -> float:
        return self.seconds

    def memory(self) -> tuple[int, int, int]:
        return self.bytes


async def test_usage_is_the_share_of_all_processors(clock: ManualClock) -> None:
    """Usage is processor time divided by elapsed time and by the number of processors."""
    probe = FixedProbe()
    metrics = ProcessMetrics(clock, probe)
    await clock.advance(10)
    probe.seconds = 5.0
    assert metrics.cpu().usage == pytest.approx(0.5 / (os.cpu_count() or 1))


async def test_usage_forgets_what_is_older_than_a_minute(clock: ManualClock) -> None:
    """Usage older than a minute is dropped, and frequent reads do not change the result."""
    probe = FixedProbe()
    metrics = ProcessMetrics(clock, probe)
    probe.seconds = 10.0
    for _ in range(200):
        await clock.advance(1)
        metrics.cpu()
        usage = metrics.cpu().usage
    assert usage == 0.0
    assert len(metrics._samples) <= 62


def test_memory_is_split_into_private_and_shared(clock: ManualClock) -> None:
    """Private is resident minus shared, and the used heap is at most the mapped heap."""
    probe = FixedProbe()
    memory = ProcessMetrics(clock, probe).memory()
    assert (memory.rss, memory.private, memory.shared) == (300, 200, 100)
    assert (memory.heap_total, memory.heap_used) == (250, 200)
    probe.bytes = (300, 0, 250)
    assert ProcessMetrics(clock, probe).memory().heap_used == 250


async def test_uptime_is_seconds_since_the_start(clock: ManualClock) -> None:
    """Uptime is measured with the monotonic clock."""
    metrics = ProcessMetrics(clock, FixedProbe())
    await clock.advance(3600)
    assert metrics.uptime == 3600


def test_the_real_machine_gives_numbers_that_can_be() -> None:
    """On a real machine, usage is above zero and at most the total."""
    metrics = ProcessMetrics(SystemClock())
    memory = metrics.memory()
    assert 0 < memory.private <= memory.rss <= memory.total
    assert 0 < memory.heap_used <= memory.heap_total
    assert len(metrics.cpu().load_average) == 3


def test_a_machine_without_proc_gives_numbers_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `/proc`, memory and processor usage are still reported."""
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "proc"))
    metrics = ProcessMetrics(SystemClock())
    memory = metrics.memory()
    assert 0 < memory.private <= memory.rss <= memory.total
    assert metrics.cpu().usage >= 0


def test_a_proc_that_goes_away_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If `/proc` disappears later, the metrics are read from other sources."""
    metrics = ProcessMetrics(SystemClock())
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "proc"))
    assert metrics.memory().rss > 0
    assert memory_limit(tmp_path / "membership", tmp_path / "cgroup") > 0


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "1000000"}, 1_000_000),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "2000000"}, 2_000_000),
        ("0::/\n", {"memory.max": "3000000"}, 3_000_000),
        ("5:cpu,memory:/c\n", {"memory/c/memory.limit_in_bytes": "4000000"}, 4_000_000),
        ("5:memory:/c\n", {"memory/c/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("0::/a\n", {}, None),
    ],
)
def test_the_limit_is_the_cgroups(
    tmp_path: Path, membership: str, files: dict[str, str], limit: int | None
) -> None:
    """The smallest limit of the cgroup and its parents counts; by default, the machine's memory."""
    (tmp_path / "membership").write_text(membership)
    root = tmp_path / "cgroup"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    machine = psutil.virtual_memory().total
    assert memory_limit(tmp_path / "membership", root) == (limit or machine)
