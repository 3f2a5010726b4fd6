# SPDX-License-Identifier: Apache-2.0
"""The balance of the Novita account, asked for at most once a minute and only when it is read.

Novita may refuse this figure to a key, or not offer it. Then it alone is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from novitai.clock import Clock
from novitai.jobs.waiting import within
from novitai.upstream.errors import UpstreamError

ASK_EVERY: Final = 60.0
"""Seconds between two calls."""
ANSWER_WITHIN: Final = 3.0
"""Seconds after which the figure is left out."""
TELL_EVERY: Final = 3_600.0
"""Seconds between two log lines about its absence."""
BALANCE_UNITS_PER_USD: Final = 10_000

_log = structlog.get_logger(__name__)


class Balance:
    """Asks for the balance, and keeps it for a minute."""

    def __init__(self, ask: Callable[[], Awaitable[int]], clock: Clock) -> None:
        """Set the dependencies; `ask` calls Novita and returns 1/10000 USD."""
        self._ask = ask
        self._clock = clock
        self._lock = asyncio.Lock()
        self._asked_at: float | None = None
        self._told_at: float | None = None
        self._value: int | None = None

    async def read(self) -> float | None:
        """Return the balance in USD, at most a minute old; None if Novita does not tell it."""
        async with self._lock:
            now = self._clock.monotonic()
            if self._asked_at is None or now - self._asked_at >= ASK_EVERY:
                self._asked_at, self._value = now, await self._asked()
        return None if self._value is None else self._value / BALANCE_UNITS_PER_USD

    async def _asked(self) -> int | None:
        try:
            async with within(ANSWER_WITHIN, self._clock):
                return await self._ask()
        except (UpstreamError, TimeoutError) as error:
            now = self._clock.monotonic()
            if self._told_at is None or now - self._told_at >= TELL_EVERY:
                self._told_at = now
                _log.warning("figure_unavailable", figure="balance", error=str(error))
            return None
