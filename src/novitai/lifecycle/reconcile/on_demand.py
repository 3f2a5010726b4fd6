# SPDX-License-Identifier: Apache-2.0
"""The operation *sync*: a listing of the account on request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Final

from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.operation import Operation, OperationKind, Outcome
from novitai.jobs.port import JobEngine
from novitai.jobs.waiting import keeping, within
from novitai.lifecycle.reconcile.loop import (
    LEASE_MS,
    PASS_SECONDS,
    RENEW_AGAIN_AFTER,
    RENEW_SECONDS,
    Sync,
)
from novitai.lifecycle.renewal import renew_every
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreError
from novitai.store.queries import operations
from novitai.upstream.errors import UpstreamError
from novitai.upstream.window import SendWindow

_TOO_LONG: Final = f"Listing the account took longer than {PASS_SECONDS / 60:.0f} minutes"


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
        window = SendWindow.lasting(self._clock, LEASE_MS)
        operation = await self._database.write(
            lambda connection: operations.claim(
                connection, operation_id, now=now, until=now + LEASE_MS
            )
        )
        if operation is None:
            return
        error: tuple[str, str] | None = None
        try:
            async with (
                keeping(self._renewing(operation, window)),
                within(PASS_SECONDS, self._clock),
            ):
                await self._sync.once(window)
        except UpstreamError as trouble:
            error = ("UPSTREAM_UNAVAILABLE", str(trouble))
        except TimeoutError:
            error = ("UPSTREAM_UNAVAILABLE", _TOO_LONG)
        except BaseException:  # also on cancellation: release the lease, then raise
            with contextlib.suppress(StoreError):
                await asyncio.shield(self._release(operation))
            raise
        await self._finish(operation, error)

    def _renewing(self, operation: Operation, window: SendWindow) -> Coroutine[None, None, None]:
        """Renew the lease, and with it the window for write calls, while the account is listed."""

        async def renew() -> bool:
            renewed = SendWindow.lasting(self._clock, LEASE_MS)
            held = await self._database.write(
                lambda connection: operations.renew(connection, operation, until=renewed.until)
            )
            if held:
                window.until = renewed.until
                window.until_boottime = renewed.until_boottime
            return held

        return renew_every(RENEW_SECONDS, renew, self._clock, retry_after=RENEW_AGAIN_AFTER)

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
