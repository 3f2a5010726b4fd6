# SPDX-License-Identifier: Apache-2.0
"""The operation *sync*: a listing of the account on request."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.operation import Operation, OperationKind, Outcome
from novitai.jobs.port import JobEngine
from novitai.lifecycle.reconcile.loop import Sync
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreError
from novitai.store.queries import operations
from novitai.upstream.errors import UpstreamError
from novitai.upstream.window import SendWindow

_LEASE_MS: Final = 120_000


class SyncRequests:
    """Lists the account for operations of kind `sync`, one at a time."""

    def __init__(self, database: Database, sync: Sync, clock: Clock) -> None:
        self._database = database
        self._sync = sync
        self._clock = clock

    def register(self, jobs: JobEngine) -> None:
        """Register with the job engine, so that `run` gets these operations."""

        def due(connection: Connection, now: int, limit: int) -> list[str]:
            return operations.due(connection, OperationKind.SYNC, now, limit)

        jobs.register(OperationKind.SYNC.job, self.run, due=due, concurrency=1)

    async def run(self, operation_id: str) -> None:
        """List the account, and end the operation with the result."""
        now = self._clock.now()
        window = SendWindow.lasting(self._clock, _LEASE_MS)
        operation = await self._database.write(
            lambda connection: operations.claim(
                connection, operation_id, now=now, until=now + _LEASE_MS
            )
        )
        if operation is None:
            return
        error: tuple[str, str] | None = None
        try:
            await self._sync.once(window)
        except UpstreamError as trouble:
            error = ("UPSTREAM_UNAVAILABLE", str(trouble))
        except BaseException:  # also on cancellation: release the lease, then raise
            with contextlib.suppress(StoreError):
                await asyncio.shield(self._release(operation))
            raise
        await self._finish(operation, error)

    async def _release(self, operation: Operation) -> None:
        now = self._clock.now()
        await self._database.write(
            lambda connection: operations.release(connection, operation, next_step_at=now)
        )

    async def _finish(self, operation: Operation, error: tuple[str, str] | None) -> None:
        outcome = Outcome.FAILED if error else Outcome.SUCCEEDED
        now = self._clock.now()
        await self._database.write(
            lambda connection: operations.finish(
                connection, operation, outcome=outcome, now=now, error=error
            )
        )
