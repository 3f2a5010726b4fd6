# SPDX-License-Identifier: Apache-2.0
"""Memory and processor time that this process uses."""

from __future__ import annotations

import os
import resource
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import psutil

from novitai.clock import Clock

_WINDOW_SECONDS: Final = 60.0
_MIN_SPAN_SECONDS: Final = 1.0
_CGROUP: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
# Without a limit, cgroup v1 reports a huge number rather than a word.
_UNLIMITED: Final = 1 << 60
_RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024
"""Bytes in the unit of `ru_maxrss` (getrusage(2))."""


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes. `heap_total` is the mapped data segment, `heap_used` its used part."""

    rss: int
    private: int
    shared: int
    heap_total: int
    heap_used: int
    total: int


@dataclass(frozen=True, slots=True)
class Cpu:
    """`usage` is this process's share of all processors, between 0 and 1."""

    usage: float
    load_average: tuple[float, float, float]


class Probe(Protocol):
    """Reads the resource usage of this process from the machine."""

    def cpu_seconds(self) -> float:
        """Processor time this process has used, all threads together."""
        ...

    def memory(self) -> tuple[int, int, int]:
        """Resident, shared and mapped data bytes."""
        ...


class SystemProbe:
    """Reads the machine with psutil, and with `getrusage` where `/proc` is not mounted."""

    def __init__(self) -> None:
        try:
            self._process: psutil.Process | None = psutil.Process()
        except (psutil.Error, OSError):
            self._process = None

    def cpu_seconds(self) -> float:
        """Processor time this process has used, all threads together."""
        times = os.times()
        return times.user + times.system

    def memory(self) -> tuple[int, int, int]:
        """Resident, shared and mapped data bytes.

        Without `/proc`, the peak resident size stands for resident and mapped, and shared is 0.
        """
        try:
            info = self._process.memory_info() if self._process else None
        except (psutil.Error, OSError):
            info = None
        if info is None:
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
            return most, 0, most
        shared = int(getattr(info, "shared", 0))
        return int(info.rss), shared, int(getattr(info, "data", info.rss - shared))


class ProcessMetrics:
    """Memory, processor and uptime of this process."""

    def __init__(self, clock: Clock, probe: Probe | None = None) -> None:
        self._clock = clock
        self._probe = probe or SystemProbe()
        self._started = clock.monotonic()
        self._total = memory_limit()
        self._processors = os.cpu_count() or 1
        self._samples = deque([(self._started, self._probe.cpu_seconds())])
        self._usage = 0.0

    @property
    def uptime(self) -> float:
        """Seconds since the process began."""
        return self._clock.monotonic() - self._started

    def memory(self) -> Memory:
        """Memory used now."""
        rss, shared, data = self._probe.memory()
        private = max(0, rss - shared)
        return Memory(rss, private, shared, data, min(private, data), self._total)

    def cpu(self) -> Cpu:
        """The share of the processors that was used, over at most the last minute."""
        now, used = self._clock.monotonic(), self._probe.cpu_seconds()
        while len(self._samples) > 1 and self._samples[1][0] <= now - _WINDOW_SECONDS:
            self._samples.popleft()
        since, before = self._samples[0]
        if now - since >= _MIN_SPAN_SECONDS:
            share = (used - before) / (now - since) / self._processors
            self._usage = min(1.0, max(0.0, share))
        if now - self._samples[-1][0] >= _MIN_SPAN_SECONDS:
            self._samples.append((now, used))
        return Cpu(self._usage, _load_average())


def memory_limit(membership: Path = _MEMBERSHIP, root: Path = _CGROUP) -> int:
    """Return how many bytes this process may use: its cgroup's limit, or the machine's memory."""
    limits = [_machine_memory()]
    for folder, name in _limit_files(membership, root):
        for parent in (folder, *folder.parents):
            limits += _read_limit(parent / name)
            if parent == root:
                break
    return min(limits)


def _load_average() -> tuple[float, float, float]:
    try:
        return os.getloadavg()
    except OSError:  # glibc reads it from /proc
        return (0.0, 0.0, 0.0)


def _machine_memory() -> int:
    try:
        return int(psutil.virtual_memory().total)
    except (OSError, ValueError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _limit_files(membership: Path, root: Path) -> list[tuple[Path, str]]:
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    files = [(root, "memory.max"), (root / "memory", "memory.limit_in_bytes")]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            files.append((root / path.lstrip("/"), "memory.max"))
        elif "memory" in controllers.split(","):
            files.append((root / "memory" / path.lstrip("/"), "memory.limit_in_bytes"))
    return files


def _read_limit(path: Path) -> list[int]:
    try:
        text = path.read_text().strip()
    except OSError:
        return []
    return [int(text)] if text.isdigit() and 0 < int(text) < _UNLIMITED else []
