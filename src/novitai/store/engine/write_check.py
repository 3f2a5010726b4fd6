# SPDX-License-Identifier: Apache-2.0
"""Whether the database accepts writes, known from the last write or from a probe write.

While writes succeed, the check writes at most one row every `TRUST_SECONDS`. After a failure, each
check probes the database again, so that the recovery is noticed at once.
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
"""How long after a successful write the database is assumed to accept writes."""
_WRITTEN: Final = "written"


class WriteCheck:
    """Tracks the outcome of the last write and probes the database if it is too old."""

    def __init__(self, clock: Clock, write: Callable[[], Awaitable[object]]) -> None:
        """Prepare the check; `write` writes one row and calls `succeeded` or `failed`."""
        self._clock = clock
        self._write = write
        self._good_at: float | None = None
        self._trouble: StoreError | None = None
        self._probing: asyncio.Task[None] | None = None

    def succeeded(self) -> None:
        """Record that a write was stored."""
        self._good_at, self._trouble = self._clock.monotonic(), None

    def failed(self, trouble: StoreError) -> None:
        """Record that the database did not store a write."""
        self._good_at, self._trouble = None, trouble

    async def insist(self) -> None:
        """Check that the database accepts writes.

        Raises:
            StoreError: the last write was not stored; its class gives the reason.
        """
        if self._good_at is None or self._clock.monotonic() - self._good_at >= TRUST_SECONDS:
            if self._probing is None or self._probing.done():
                self._probing = asyncio.create_task(self._probe(), name="write-check")
            # If one caller is cancelled, the others must still get the outcome.
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
