# SPDX-License-Identifier: Apache-2.0
"""The number of open HTTP connections of this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum


class ConnectionState(StrEnum):
    """The state of an HTTP connection."""

    ACTIVE = "active"
    """A request is being answered."""
    IDLE = "idle"
    """The server waits for the client: for a request or for the rest of one."""


class ConnectionCount:
    """Counts the open connections, once a server has said how."""

    def __init__(self) -> None:
        self._count: Callable[[], Mapping[ConnectionState, int]] = dict

    def use(self, count: Callable[[], Mapping[ConnectionState, int]]) -> None:
        """Count with this function from now on."""
        self._count = count

    def snapshot(self) -> Mapping[ConnectionState, int]:
        """Return the number of connections by state; every state is present."""
        return {**dict.fromkeys(ConnectionState, 0), **self._count()}
