# SPDX-License-Identifier: Apache-2.0
"""Backs off keys whose handler raised, so that a broken row does not run in a tight loop.

Pauses are measured in seconds since boot: if the time of day is set back, no key waits longer.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from novitai.ids import Ids

FIRST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 60.0
CAPACITY: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Failure:
    count: int
    sooner: float
    """The moment from which a nudge runs the key again, in seconds since boot."""
    until: float
    """The moment from which the sweep runs the key again, in seconds since boot."""


class Backoff:
    """The failed keys of one job type, up to `capacity`; the oldest are dropped first.

    The pause doubles from one second to one minute. A nudge waits at most one second, because it
    means a change; the second keeps a handler that nudges its own key and raises from looping.
    """

    def __init__(self, ids: Ids, capacity: int = CAPACITY) -> None:
        self._ids = ids
        self._capacity = capacity
        self._failures: OrderedDict[str, _Failure] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def failed(self, key: str, now: float) -> None:
        """Record that the handler raised at `now` (seconds since boot)."""
        before = self._failures.pop(key, None)
        count = before.count + 1 if before else 1
        pause = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(count - 1, 16))
        until = now + min(LONGEST_SECONDS, self._ids.jitter(pause))
        sooner = min(until, now + FIRST_SECONDS)
        self._failures[key] = _Failure(count, sooner, until)
        if len(self._failures) > self._capacity:
            self._failures.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Forget the key's failures."""
        if self._failures:
            self._failures.pop(key, None)

    def pause(self, key: str, now: float, *, nudged: bool) -> float:
        """Return how many seconds the key still has to wait; 0 if none."""
        failure = self._failures.get(key)
        if failure is None:
            return 0.0
        return max(0.0, (failure.sooner if nudged else failure.until) - now)

    def held(self, now: float) -> frozenset[str]:
        """Return the keys whose pause has not ended at `now` (seconds since boot)."""
        return frozenset(key for key, failure in self._failures.items() if failure.until > now)

    def forget_old(self, now: float) -> None:
        """Forget failures whose pause ended more than a minute ago."""
        horizon = now - LONGEST_SECONDS
        for key in [key for key, failure in self._failures.items() if failure.until < horizon]:
            del self._failures[key]
