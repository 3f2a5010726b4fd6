# SPDX-License-Identifier: Apache-2.0
"""The times at which to run keys again, as hints, so that they need not wait for the next sweep."""

from __future__ import annotations

import heapq
import itertools
from typing import Final

CAPACITY: Final = 10_000

Item = tuple[str, str]
"""A job's name and key."""


class Agenda:
    """At most one time per key and at most `capacity` keys; further keys are dropped.

    Of keys with the same time, the one that was put first comes first.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._numbers = itertools.count()
        self._times: dict[Item, tuple[int, int]] = {}
        # An entry whose time and number differ from those in `_times` is stale and skipped.
        self._heap: list[tuple[tuple[int, int], Item]] = []

    def __len__(self) -> int:
        return len(self._times)

    def put(self, item: Item, at: int) -> bool:
        """Set the item's time, in Unix milliseconds; True if it is now the earliest item."""
        if item not in self._times and len(self._times) >= self._capacity:
            return False
        first = self.first()
        self._times[item] = (at, next(self._numbers))
        heapq.heappush(self._heap, (self._times[item], item))
        if len(self._heap) > 2 * len(self._times) + 64:
            self._heap = [(time, item) for item, time in self._times.items()]
            heapq.heapify(self._heap)
        return first is None or at < first

    def discard(self, item: Item) -> None:
        """Remove the item, if it is present."""
        self._times.pop(item, None)

    def first(self) -> int | None:
        """Return the earliest time, in Unix milliseconds; None if empty."""
        while self._heap and self._times.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0][0] if self._heap else None

    def pop(self, now: int) -> Item | None:
        """Remove and return the earliest item due at `now` (Unix milliseconds); None if none is."""
        first = self.first()
        if first is None or first > now:
            return None
        item = heapq.heappop(self._heap)[1]
        del self._times[item]
        return item

    def clear(self) -> None:
        """Remove all items."""
        self._times.clear()
        self._heap.clear()
