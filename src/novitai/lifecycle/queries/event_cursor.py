# SPDX-License-Identifier: Apache-2.0
"""Cursors of the event stream: which events a snapshot of the database saw."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from novitai.store.queries import events

_FORM: Final = re.compile(r"cur_([0-9]{1,18})((?:_[0-9]{1,18}-[0-9]{1,18})*)")


@dataclass(frozen=True, slots=True)
class EventCursor:
    """The events that a snapshot saw: all up to `number`, and those in the ranges of `seen`.

    There are ranges only on PostgreSQL, while an open transaction holds back the settled number.
    Each gap between them is an event that was uncommitted or rolled back.

    Attributes:
        number: The snapshot saw each event up to this number that is ever committed.
        seen: First and last numbers of the later events that the snapshot saw too.
    """

    number: int
    seen: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of_snapshot(cls, connection: Connection, settled: int | None) -> EventCursor:
        """Return the cursor of the snapshot that a transaction reads.

        Args:
            connection: The transaction.
            settled: On PostgreSQL, the settled number from before the snapshot. None on SQLite,
                where a snapshot sees all events up to the last one.
        """
        if settled is None:
            return cls(events.last(connection))
        return cls(settled, _ranges(events.seen_beyond(connection, settled)))

    @classmethod
    def parse(cls, text: str) -> EventCursor | None:
        """Parse the text of a cursor; None if it is none."""
        found = _FORM.fullmatch(text)
        if found is None:
            return None
        number = int(found[1])
        ranges = (one.partition("-") for one in found[2].split("_")[1:])
        seen = ((number + int(first), number + int(last)) for first, _, last in ranges)
        return cls(number, tuple(seen))

    def text(self) -> str:
        """Return the cursor as text. The numbers of ranges are relative, to be short."""
        ranges = (f"_{first - self.number}-{last - self.number}" for first, last in self.seen)
        return f"cur_{self.number}{''.join(ranges)}"

    def saw(self, number: int) -> bool:
        """Whether the snapshot saw the event of a number."""
        return number <= self.number or any(first <= number <= last for first, last in self.seen)


def _ranges(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)
