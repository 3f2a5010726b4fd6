# SPDX-License-Identifier: Apache-2.0
"""Renewing a lease."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from novitai.lifecycle.renewal import renew_every
from novitai.store.engine.errors import StoreUnavailable
from novitai.testing import ManualClock


async def test_a_failed_renewal_is_retried_before_the_lease_expires(clock: ManualClock) -> None:
    """Renewals come at their pause, sooner after a failed write, and end when the lease is lost."""
    began, at = clock.monotonic(), []
    outcomes: Iterator[bool | StoreUnavailable]
    outcomes = iter([True, StoreUnavailable("away"), True, False])

    async def renew() -> bool:
        at.append(clock.monotonic() - began)
        outcome = next(outcomes)
        if isinstance(outcome, StoreUnavailable):
            raise outcome
        return outcome

    task = asyncio.create_task(renew_every(5, renew, clock, retry_after=1))
    await asyncio.sleep(0)
    for _ in range(60):
        await clock.advance(1)
    assert task.done()
    assert at == [5, 10, 11, 16]
