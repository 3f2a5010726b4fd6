# SPDX-License-Identifier: Apache-2.0
"""Limits on the concurrent messages of this process per host and per receiver.

A dead receiver must not delay other hosts, nor other receivers at its host.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

PLACES: Final = 8
"""Maximum concurrent messages to one host."""
TRIAL: Final = 2
"""Maximum concurrent messages to a receiver that has accepted none yet: it may hang."""
WAITING: Final = 1_000
"""Maximum lines queued here for one receiver; the sweep picks up the others."""
_REMEMBERED: Final = 10_000


class Hosts:
    """Counts concurrent messages; a receiver that failed last gets one place until it succeeds.

    `enter` never waits: if no place is free, the line is queued, and a later `leave` returns it.
    """

    def __init__(self, places: int = PLACES, trial: int = TRIAL, waiting: int = WAITING) -> None:
        self._places = places
        self._trial = trial
        self._most_waiting = waiting
        self._of_host: dict[str, int] = {}
        self._of_receiver: dict[str, int] = {}
        self._waiting: dict[str, OrderedDict[str, OrderedDict[str, None]]] = {}
        self._failing: OrderedDict[str, None] = OrderedDict()
        self._proven: OrderedDict[str, None] = OrderedDict()
        self.full: frozenset[str] = frozenset()
        """Hosts without a free place. Replaced, never mutated: other threads may read it."""
        self.busy: frozenset[str] = frozenset()
        """Receivers without a free place; also replaced, never mutated."""

    def enter(self, host: str, receiver: str, line: str) -> bool:
        """Take a place for a line; if none is free, queue the line and return False."""
        if not self._room(host, receiver):
            lines = self._waiting.setdefault(host, OrderedDict()).setdefault(
                receiver, OrderedDict()
            )
            if len(lines) < self._most_waiting:
                lines[line] = None
            return False
        self._of_host[host] = self._of_host.get(host, 0) + 1
        self._of_receiver[receiver] = self._of_receiver.get(receiver, 0) + 1
        self._judge(host, receiver)
        return True

    def leave(self, host: str, receiver: str, *, works: bool | None) -> list[str]:
        """Release a place.

        Args:
            host: The host of the place.
            receiver: The receiver of the place.
            works: Whether the receiver accepted the message; None if none was sent.

        Returns:
            Queued lines that may be tried now. No place is reserved for them: if `enter` finds none
            free, it queues the line again.
        """
        if works is not None:
            self._failing.pop(receiver, None)
            self._remember(self._proven if works else self._failing, receiver)
        _count_down(self._of_host, host)
        _count_down(self._of_receiver, receiver)
        self._judge(host, receiver)
        return self._call(host)

    def _call(self, host: str) -> list[str]:
        """Remove as many lines from the queue as there are free places, receivers in rotation."""
        waiting = self._waiting.get(host)
        if waiting is None:
            return []
        called: list[str] = []
        room = self._places - self._of_host.get(host, 0)
        left = {one: self._limit(one) - self._of_receiver.get(one, 0) for one in waiting}
        while len(called) < room and any(left[one] > 0 for one in waiting):
            receiver, lines = waiting.popitem(last=False)
            if left[receiver] > 0:
                left[receiver] -= 1
                called.append(lines.popitem(last=False)[0])
            if lines:
                waiting[receiver] = lines  # behind the others
        if not waiting:
            del self._waiting[host]
        return called

    def _room(self, host: str, receiver: str) -> bool:
        if self._of_host.get(host, 0) >= self._places:
            return False
        return self._of_receiver.get(receiver, 0) < self._limit(receiver)

    def _limit(self, receiver: str) -> int:
        if receiver in self._failing:
            return 1
        return self._places if receiver in self._proven else self._trial

    def _judge(self, host: str, receiver: str) -> None:
        self.full = _with(self.full, host, self._of_host.get(host, 0) >= self._places)
        taken = self._of_receiver.get(receiver, 0)
        self.busy = _with(self.busy, receiver, taken >= self._limit(receiver))

    @staticmethod
    def _remember(known: OrderedDict[str, None], receiver: str) -> None:
        known[receiver] = None
        if len(known) > _REMEMBERED:
            known.popitem(last=False)


def _count_down(counts: dict[str, int], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]


def _with(names: frozenset[str], name: str, belongs: bool) -> frozenset[str]:
    if belongs == (name in names):
        return names
    return names | {name} if belongs else names - {name}
