# SPDX-License-Identifier: Apache-2.0
"""How much of this process's sending one host, and one receiver, may take.

A dead receiver must hold up nobody else: neither other hosts, nor other receivers of its host.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

PLACES: Final = 8
"""Messages that go to one host at the same time."""
TRIAL: Final = 2
"""Those to a receiver that has not taken any yet: it may turn out to hang."""
WAITING: Final = 1_000
"""Lines that wait here for one receiver; the rest is left to the sweep."""
_REMEMBERED: Final = 10_000


class Hosts:
    """Counts what is under way; a receiver that failed last gets one place until it succeeds.

    Nobody waits for a place: who comes in vain is noted, and told of when a place is given back.
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
        """Hosts without a free place. Never changed in place: other threads may read it."""
        self.busy: frozenset[str] = frozenset()
        """Receivers without a free place, likewise."""

    def enter(self, host: str, receiver: str, line: str) -> bool:
        """Take a place for a line; if there is none, note the line and say no."""
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
        """Give a place back.

        Args:
            host: Whose place.
            receiver: For whom it was taken.
            works: Whether the receiver took the message; None if it was not tried.

        Returns:
            Lines that waited and may come now. They hold nothing: who comes too late is noted
            again, and who never comes is missed by nobody.
        """
        if works is not None:
            self._failing.pop(receiver, None)
            self._remember(self._proven if works else self._failing, receiver)
        _count_down(self._of_host, host)
        _count_down(self._of_receiver, receiver)
        self._judge(host, receiver)
        return self._call(host)

    def _call(self, host: str) -> list[str]:
        """Take from those who wait as many as there is room for, each receiver in its turn."""
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
