# SPDX-License-Identifier: Apache-2.0
"""The job engine as the rest of the house sees it, and what the engine asks of a database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from novitai.jobs.metrics import JobMetrics
from novitai.jobs.supervision import Loop

T = TypeVar("T")

Handler = Callable[[str], Awaitable[int | None]]
"""Gets the key (an operation id, a delivery id), claims the row, takes one step, applies it.

It answers when to look again, in Unix milliseconds, or `None`. The answer is a hint: the engine
may drop it at any time, since the row itself says when it is due. A time that has come means at
once, behind the keys that wait already.
"""

Due = Callable[[Connection, int, int], Sequence[str]]
"""`(connection, now, limit)`: the keys of one name's rows that are due and not leased.

`now` is in Unix milliseconds; the longest due come first; at most `limit` keys.
"""


@dataclass(frozen=True, slots=True)
class JobType:
    """What is registered under one name."""

    name: str
    """The type in metrics and logs, such as `create_instance` or `deliver_webhook`."""
    handler: Handler
    due: Due
    concurrency: int
    """How many keys of this name one process works on at the same time."""


class Transactions(Protocol):
    """What the engine needs of a database: transactions as plain functions on a thread."""

    async def read(self, fn: Callable[[Connection], T], /) -> T:
        """Run `fn` in a reading transaction and return what it returned."""
        ...

    async def write(self, fn: Callable[[Connection], T], /) -> T:
        """Run `fn` in a writing transaction, commit, and return what it returned."""
        ...

    def after_commit(self, connection: Connection, callback: Callable[[], None], /) -> None:
        """Have `callback` run on the event loop once the connection's transaction committed."""
        ...


class JobEngine(Protocol):
    """Brings keys to handlers: soon after a nudge, else when a sweep finds their row due."""

    @property
    def metrics(self) -> JobMetrics:
        """The counts of this process by job type."""
        ...

    @property
    def is_only(self) -> bool:
        """Whether no other process works on the same rows."""
        ...

    def register(self, name: str, handler: Handler, *, due: Due, concurrency: int) -> None:
        """Bind `name` to its handler; before `start`.

        Raises:
            ValueError: the name is taken, `concurrency` is below 1, or the engine runs already.
        """
        ...

    def nudge(self, connection: Connection, name: str, key: str) -> None:
        """Have `key` looked at soon, if the transaction that `connection` stands in commits.

        Called inside a writing transaction, on its thread. A nudge that arrives while the key's
        handler runs makes it run once more; nudges of one key that waits already are one.
        """
        ...

    def offer(self, name: str, key: str) -> None:
        """Have `key` looked at soon, by this process: a hint, which the sweep makes up for.

        Called on the event loop, outside of any transaction.
        """
        ...

    async def start(self, *, consume: bool = True) -> Sequence[Loop]:
        """Begin to work, or, with `consume=False`, only to nudge: what an API process does.

        An engine that is the only one works in any case.

        Returns:
            The loops that run until `stop`.
        """
        ...

    async def stop(self, grace: float) -> None:
        """Take no new work, give running handlers `grace` seconds, then cancel and await them."""
        ...

    async def last_seen(self) -> int:
        """Return when a worker was last seen at work, in Unix milliseconds; start-up counts.

        Raises:
            Exception: the queue cannot be reached; whatever the database raised.
        """
        ...

    async def queue_sizes(self) -> dict[str, int]:
        """Count the nudges that wait, by name; names with none are there too where known."""
        ...
