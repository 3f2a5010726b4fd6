# SPDX-License-Identifier: Apache-2.0
"""Supervision of the tasks that run as long as the process: the end of one is logged."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

Loop = asyncio.Task[None]
"""A task that runs until the process ends."""

_log: Final = structlog.get_logger(__name__)


class Supervisor:
    """Watches loops and logs each one that ends before `close`, which nothing else would report."""

    def __init__(self) -> None:
        self._watched: set[Loop] = set()
        self._is_closed = False

    @property
    def names(self) -> list[str]:
        """The names of the watched loops that are running, sorted."""
        return sorted(loop.get_name() for loop in self._watched)

    def watch(self, *loops: Loop) -> None:
        """Log `loop_ended` if one of these loops ends for any reason."""
        for loop in loops:
            self._watched.add(loop)
            loop.add_done_callback(self._ended)

    def close(self) -> None:
        """Stop logging ended loops, because the process is stopping."""
        self._is_closed = True

    def _ended(self, loop: Loop) -> None:
        self._watched.discard(loop)
        # Always retrieve the exception, or asyncio logs it too.
        error = None if loop.cancelled() else loop.exception()
        if not self._is_closed:
            _log.critical("loop_ended", loop=loop.get_name(), exc_info=error)
