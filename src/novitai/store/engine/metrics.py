# SPDX-License-Identifier: Apache-2.0
"""Durations of this process's transactions, and counts of what they have committed.

The queries that store an event, the result of an attempt or the end of a create count it here after
the commit. So a change is counted once, by the process that stored it, and never if it is rolled
back. All labels are enumerations, so memory does not grow.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final

from novitai.domain.event import EventType, of_status
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import AttemptState, Outcome

READ: Final = "read"
WRITE: Final = "write"

DATABASE_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
"""Upper bounds in seconds of the durations of transactions."""
CREATE_BUCKETS: Final = (15.0, 30.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0, 1_200.0, 3_600.0)
"""Upper bounds in seconds of the time from a create to `running`."""

_STATUSES: Final[Mapping[EventType, InstanceStatus]] = {
    of_status(status): status for status in InstanceStatus
}


class Histogram:
    """Counts durations by bucket; the last bucket is above all bounds. Not cumulative."""

    __slots__ = ("bounds", "buckets", "seconds")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.buckets[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds


class StoreMetrics:
    """The metrics of a database in this process, since it was opened."""

    def __init__(self) -> None:
        self.durations = {READ: Histogram(DATABASE_BUCKETS), WRITE: Histogram(DATABASE_BUCKETS)}
        self.status_changes = dict.fromkeys(InstanceStatus, 0)
        self.surplus_deleted = 0
        self.attempts: dict[AttemptState, int] = {
            state: 0 for state in AttemptState if state is not AttemptState.SENT
        }
        self.creates = dict.fromkeys(Outcome, 0)
        self.create_to_running = Histogram(CREATE_BUCKETS)

    def event(self, event_type: EventType) -> None:
        """Count a stored event."""
        status = _STATUSES.get(event_type)
        if status is not None:
            self.status_changes[status] += 1
        elif event_type is EventType.SURPLUS_DELETED:
            self.surplus_deleted += 1

    def attempt(self, state: AttemptState) -> None:
        """Count a result of an attempt: each state that it gets after `sent`."""
        self.attempts[state] += 1

    def create_ended(self, outcome: Outcome, seconds: float) -> None:
        """Count the end of a create, `seconds` after its request."""
        self.creates[outcome] += 1
        if outcome is Outcome.SUCCEEDED:
            self.create_to_running.observe(max(0.0, seconds))
