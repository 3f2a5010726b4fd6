# SPDX-License-Identifier: Apache-2.0
"""Whether the database takes writes: known from the writes there are, else from one of its own.

While writes succeed, it writes one row at most every `TRUST_SECONDS`, however often it is asked. A
failure is never trusted: the next question asks the database again, so that the answer turns good
as soon as the database does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.store.engine import upsert
from novitai.store.engine.errors import StoreError
from novitai.store.tables import installation

TRUST_SECONDS: Final = 2.0
"""How long a write that succeeded is taken for the outcome of the next one."""
_WRITTEN: Final = "written"


class WriteCheck:
    """The outcome of the last write, or of a probe where that does not tell."""

    def __init__(self, clock: Clock, write: Callable[[], Awaitable[object]]) -> None:
        """Prepare the check; `write` writes one row and reports by `succeeded` or `failed`."""
        self._clock = clock
        self._write = write
        self._good_at: float | None = None
        self._trouble: StoreError | None = None
        self._probing: asyncio.Task[None] | None = None

    def succeeded(self) -> None:
        """Report that a write was stored."""
        self._good_at, self._trouble = self._clock.monotonic(), None

    def failed(self, trouble: StoreError) -> None:
        """Report that the database did not store a write."""
        self._good_at, self._trouble = None, trouble

    async def insist(self) -> None:
        """Make sure that writes are stored.

        Raises:
            StoreError: the last one was not; see its class for the reason.
        """
        if self._good_at is None or self._clock.monotonic() - self._good_at >= TRUST_SECONDS:
            if self._probing is None or self._probing.done():
                self._probing = asyncio.create_task(self._probe(), name="write-check")
            # A caller that gives up must not take the answer from the others.
            await asyncio.shield(self._probing)
        if self._trouble is not None:
            raise self._trouble.with_traceback(None)

    async def _probe(self) -> None:
        try:
            await self._write()
        except StoreError as trouble:
            self.failed(trouble)


def write_one_row(connection: Connection, *, now: int) -> None:
    """Write one row to prove that the database takes writes. `now` is in Unix milliseconds."""
    connection.execute(
        upsert.insert(installation, connection.dialect.name)
        .values(name=_WRITTEN, value=str(now))
        .on_conflict_do_update(index_elements=[installation.c.name], set_={"value": str(now)})
    )
