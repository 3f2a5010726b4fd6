# SPDX-License-Identifier: Apache-2.0
"""The interface of the job engine, and the interface of the database that it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from novitai.jobs.metrics import JobMetrics
from novitai.jobs.supervision import Loop

T = TypeVar("T")

Handler = Callable[[str], Awaitable[int | None]]
"""Gets the key (an operation ID, a line ID), claims the row, takes one step, applies it.

It returns when to run again, in Unix milliseconds, or `None`. The time is a hint that the engine
may drop, because the row itself says when it is due. A time that has passed means at once, after
the keys that already wait.
"""

Due = Callable[[Connection, int, int], Sequence[str]]
"""`(connection, now, limit)`: returns the keys of a job type's rows that are due and not leased.

`now` is in Unix milliseconds; the longest due come first; at most `limit` keys.
"""


@dataclass(frozen=True, slots=True)
class JobType:
    """A registered job type."""

    name: str
    """The type in metrics and logs, such as `create_instance` or `deliver_webhook`."""
    handler: Handler
    due: Due
    concurrency: int
    """How many keys of this type one process runs at the same time."""


class Transactions(Protocol):
    """The database as the engine uses it: transactions are plain functions run on a thread."""

    async def read(self, fn: Callable[[Connection], T], /) -> T:
        """Run `fn` in a read transaction and return its result."""
        ...

    async def write(self, fn: Callable[[Connection], T], /) -> T:
        """Run `fn` in a write transaction, commit, and return its result."""
        ...

    def after_commit(self, connection: Connection, callback: Callable[[], None], /) -> None:
        """Run `callback` on the event loop after the connection's transaction has committed."""
        ...


class JobEngine(Protocol):
    """Runs handlers for keys: soon after a nudge, or when a sweep finds their row due."""

    @property
    def metrics(self) -> JobMetrics:
        """The counts of this process by job type."""
        ...

    @property
    def is_only(self) -> bool:
        """Whether no other process can work on the same rows."""
        ...

    def register(self, name: str, handler: Handler, *, due: Due, concurrency: int) -> None:
        """Bind `name` to its handler; call it before `start`.

        Raises:
            ValueError: the name is taken, `concurrency` is below 1, or the engine has started.
        """
        ...

    def nudge(self, connection: Connection, name: str, key: str) -> None:
        """Run the handler of `key` soon, if the transaction of `connection` commits.

        Call it inside a write transaction, on its thread. A nudge that arrives while the key's
        handler runs makes it run once more; a nudge of a key that already waits has no effect.
        """
        ...

    def offer(self, name: str, key: str) -> None:
        """Run the handler of `key` soon in this process; if it is dropped, the sweep finds the row.

        Call it on the event loop, outside of any transaction.
        """
        ...

    async def start(self, *, consume: bool = True) -> Sequence[Loop]:
        """Start to run handlers, or with `consume=False` only to nudge, as an API process does.

        If `is_only`, the engine runs handlers in both cases.

        Returns:
            The tasks that run until `stop`.
        """
        ...

    async def stop(self, grace: float) -> None:
        """Take no new keys, give running handlers `grace` seconds, then cancel and await them."""
        ...

    async def last_seen(self) -> int:
        """Return when a worker was last seen alive, or this start, in Unix milliseconds.

        Raises:
            Exception: the exception of the database, if it cannot be reached.
        """
        ...

    async def queue_sizes(self) -> dict[str, int]:
        """Count the waiting keys by name, including registered names without any."""
        ...
