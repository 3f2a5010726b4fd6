# SPDX-License-Identifier: Apache-2.0
"""How much each group measures: in full for `make bench`, a little for the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes and durations.

    Attributes:
        rounds: Interleaved measurements of each target; the median counts.
        few_rounds: The same of measures without a goal, which take long.
        seconds: Least duration of one measurement.
        connections: Keep-alive connections of the load generator; each sends a request at least.
        few_connections: The same for large responses.
        instances: Rows of the database of the reads.
        listed: The size of a small page.
        queries: Different queries that are sent in turn.
        updates: Row updates per second in the measures with a writer.
        burst: Creates that arrive at once.
        burst_seconds: Seconds within which they all have to run.
        calls_per_minute: The upstream limit of each process during the burst.
        crowd: Instances of the measures of an idle server and of the long table.
        settle: Seconds for an idle server to come to rest.
        idle: Seconds for which an idle server is watched.
        gets: Reads of the memory measure.
        creates: Creates of the memory measure.
        jobs: Jobs of the embedded engine; PostgreSQL runs a twentieth of them.
        account: Instances of the listing that is reconciled.
        messages: Webhooks of each plan.
    """

    rounds: int = 5
    few_rounds: int = 3
    seconds: float = 0.7
    connections: int = 32
    few_connections: int = 8
    instances: int = 1_000
    listed: int = 100
    queries: int = 50
    updates: int = 20
    burst: int = 1_000
    burst_seconds: float = 180.0
    calls_per_minute: int = 1_200
    crowd: int = 10_000
    settle: float = 10.0
    idle: float = 100.0
    gets: int = 1_000_000
    creates: int = 100_000
    jobs: int = 20_000
    account: int = 10_000
    messages: int = 2_000


FULL: Final = Scale()
SMALL: Final = Scale(
    rounds=1,
    few_rounds=1,
    seconds=0.05,
    connections=4,
    few_connections=2,
    instances=60,
    listed=10,
    queries=5,
    burst=10,
    crowd=60,
    settle=0.5,
    idle=0.5,
    gets=200,
    creates=40,
    jobs=200,
    account=50,
    messages=60,
)
"""Enough to show that a group works."""
