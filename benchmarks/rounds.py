# SPDX-License-Identifier: Apache-2.0
"""Interleaved rounds: each target is measured in turn, so that all share each minute's load."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

from benchmarks.load import Load, Requests
from benchmarks.processes import Process
from benchmarks.report import Goal, Line
from benchmarks.scale import Scale


@dataclass(frozen=True, slots=True)
class Target:
    """Servers that share the requests of a measurement.

    Attributes:
        servers: The processes; their CPU time is added up.
        requests: The requests to send.
        status: The expected status.
        few: Use the few connections that suffice for large responses.
        during: Runs while it is measured, such as a writer.
    """

    servers: Sequence[Process]
    requests: Requests
    status: int = 200
    few: bool = False
    during: Callable[[], AbstractAsyncContextManager[None]] = nullcontext


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: requests per second, and CPU time per request in microseconds."""

    rate: float
    cpu: float


async def interleave(targets: Sequence[Target], scale: Scale) -> list[list[Sample]]:
    """Measure every target in each round; return the samples of each target."""
    for target in targets:
        await measure(target, scale, seconds=scale.seconds / 3)
    samples: list[list[Sample]] = [[] for _ in targets]
    for _ in range(scale.rounds):
        for target, taken in zip(targets, samples, strict=True):
            taken.append(await measure(target, scale, seconds=scale.seconds))
    return samples


async def measure(target: Target, scale: Scale, *, seconds: float) -> Sample:
    """Measure a target once."""
    urls = [server.url for server in target.servers]
    connections = scale.few_connections if target.few else scale.connections
    async with Load(urls, connections) as load, target.during():
        before = sum(server.cpu() for server in target.servers)
        counted = await load.run(
            target.requests, status=target.status, seconds=seconds, least=connections
        )
        cpu = sum(server.cpu() for server in target.servers) - before
    return Sample(counted.responses / counted.seconds, 1e6 * cpu / counted.responses)


def compared(
    group: str,
    what: str,
    store: str,
    ours: Sequence[Sample],
    yardstick: Sequence[Sample],
    goal: Goal | None,
) -> Line:
    """Return the line of two targets that were measured in the same rounds."""
    pairs = list(zip(ours, yardstick, strict=True))
    # The yardstick of creates has no CPU time, and that of a short measurement may be counted as 0.
    ticks = [(a.cpu, b.cpu) for a, b in pairs if a.cpu and b.cpu]
    return Line(
        group,
        what,
        store,
        statistics.median(sample.rate for sample in ours),
        "/s",
        statistics.median(sample.rate for sample in yardstick),
        statistics.median(a.rate / b.rate for a, b in pairs),
        statistics.median(sample.cpu for sample in ours),
        statistics.median(sample.cpu for sample in yardstick) or None,
        statistics.median(b / a for a, b in ticks) if ticks else None,
        goal,
        len(pairs),
    )
