# SPDX-License-Identifier: Apache-2.0
"""Renew a lease while the work that it protects takes long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from novitai.clock import Clock
from novitai.store.engine.errors import StoreError


async def renew_every(
    seconds: float, renew: Callable[[], Awaitable[bool]], clock: Clock, *, retry_after: float
) -> None:
    """Call `renew` every `seconds` until it returns False.

    A failed write is retried after `retry_after` seconds, so that one does not cost the lease.

    Args:
        seconds: Pause between renewals, well below the length of the lease.
        renew: Renews the lease; returns whether it is still held.
        clock: Waits.
        retry_after: Pause in seconds after a `StoreError`.
    """
    pause = seconds
    while True:
        await clock.sleep(pause)
        try:
            if not await renew():
                return
            pause = seconds
        except StoreError:
            pause = retry_after
