# SPDX-License-Identifier: Apache-2.0
"""How much of this process's sending one host may take: a dead one must hold up nobody else."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

PLACES: Final = 8
"""Messages that go to one host at the same time."""
WAITING: Final = 1_000
"""Lines that wait here for one host; the rest is left to the sweep."""
_REMEMBERED: Final = 10_000


class Hosts:
    """Counts what goes to each host; a host that failed last gets one place until it succeeds.

    Nobody waits for a place: who comes in vain is noted, and handed to whoever leaves next.
    """

    def __init__(self, places: int = PLACES, waiting: int = WAITING) -> None:
        self._places = places
        self._most_waiting = waiting
        self._taken: dict[str, int] = {}
        self._waiting: dict[str, OrderedDict[str, None]] = {}
        self._failing: OrderedDict[str, None] = OrderedDict()
        self.full: frozenset[str] = frozenset()
        """Hosts without a free place. Never changed in place: other threads may read it."""

    def enter(self, host: str, line: str) -> bool:
        """Take a place for a line; if there is none, note the line and say no."""
        if self._taken.get(host, 0) < self._limit(host):
            self._taken[host] = self._taken.get(host, 0) + 1
            self._judge(host)
            return True
        self.wait(host, line)
        return False

    def wait(self, host: str, line: str) -> None:
        """Note that a line waits for a place."""
        waiting = self._waiting.setdefault(host, OrderedDict())
        if len(waiting) < self._most_waiting:
            waiting[line] = None

    def leave(self, host: str, *, works: bool | None) -> str | None:
        """Give a place back, or pass it on.

        Args:
            host: Whose place.
            works: Whether the host took the message; None if it was not tried.

        Returns:
            The line that has the place now; None if it is free.
        """
        if works is True:
            self._failing.pop(host, None)
        elif works is False:
            self._failing[host] = None
            if len(self._failing) > _REMEMBERED:
                self._failing.popitem(last=False)
        waiting = self._waiting.get(host)
        passed_on: str | None = None
        if waiting and self._taken[host] <= self._limit(host):
            passed_on, _ = waiting.popitem(last=False)
        else:
            self._taken[host] -= 1
        if not waiting:
            self._waiting.pop(host, None)
        if not self._taken[host]:
            del self._taken[host]
        self._judge(host)
        return passed_on

    def _limit(self, host: str) -> int:
        return 1 if host in self._failing else self._places

    def _judge(self, host: str) -> None:
        is_full = self._taken.get(host, 0) >= self._limit(host)
        if is_full != (host in self.full):
            self.full = self.full | {host} if is_full else self.full - {host}
