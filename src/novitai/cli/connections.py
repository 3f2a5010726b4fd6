# SPDX-License-Identifier: Apache-2.0
"""The connections of one server: their maximum number and the timeouts of each."""

from __future__ import annotations

import asyncio
import heapq
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from novitai.api.http.context import Closing
from novitai.errors import ApiError, Overloaded
from novitai.telemetry.connections import ConnectionState

if TYPE_CHECKING:
    from novitai.cli.protocol import AnsweringProtocol

MAX_CONNECTIONS: Final = 8_192
"""The maximum number of connections, even if more files may be opened: each costs memory."""
_MAX_RESERVE: Final = 2_048
_SMALL_RESERVE: Final = 128
_LOW: Final = 512
_TELL_EVERY: Final = 60.0
_LONG: Final = 65_536
"""Bytes of a response that is not kept until the end of the turn."""
_AT_ONCE: Final = 32
"""How many connections are closed before the event loop may run other tasks."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Timeouts in seconds, and the maximum number of connections.

    Attributes:
        head: To receive the request line and headers, from their first byte.
        body: To receive the body, from the end of the headers.
        idle: Without a request, from the start of the connection or the last response. Longer than
            the 60 s for which load balancers keep idle connections, so that the server does not
            close a connection just as a request is sent over it.
        answer: For the client to read a response that does not fit into the buffers.
        linger: For the client to read a refusal before the connection is closed.
        drain: For running requests to finish when the process shuts down.
        cut: For commits that are still running after `drain`.
        connections: Maximum number of connections; derived from the limit of open files if None.
    """

    head: float = 30.0
    body: float = 60.0
    idle: float = 75.0
    answer: float = 60.0
    linger: float = 2.0
    drain: float = 3.0
    cut: float = 1.5
    connections: int | None = None

    @property
    def look_every(self) -> float:
        """Seconds between two checks of the connections."""
        return min(1.0, min(self.head, self.body, self.idle, self.answer) / 4)


def reserve(file_limit: int) -> int:
    """Return how many open files are reserved: database, upstream, probes, receivers, log."""
    return min(_MAX_RESERVE, max(file_limit // 4, min(_SMALL_RESERVE, file_limit // 2)))


def room(file_limit: int) -> int:
    """Return how many connections a limit of open files allows after the reserve."""
    if file_limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, file_limit - reserve(file_limit)))


class ResponseBatch:
    """Writes the responses that are made in one turn of the event loop together, at its end.

    Otherwise the client would be woken for each of them, which takes more time than to write it.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def put(self, transport: asyncio.Transport, response: bytes) -> None:
        """Write a response at the end of this turn, and a long one at once."""
        if not self._waiting:
            # Before all that the end of this response makes the event loop do.
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append((transport, response))
        if len(response) > _LONG:
            self.flush()

    def flush(self) -> None:
        """Write all responses now. Call this before the transport is used otherwise."""
        waiting, self._waiting = self._waiting, []
        for transport, response in waiting:
            if not transport.is_closing():
                transport.write(response)


class Connections:
    """The open connections of a server.

    If there are too many, the connections that have waited longest for their client are closed,
    beginning with those on which no request has been answered. A new connection is refused only if
    every other one is waiting for the server.

    Args:
        open_: The server's own set of connections; each adds and removes itself.
        limits: The timeouts.
        most: The maximum number of connections.
    """

    def __init__(self, open_: set[AnsweringProtocol], limits: Limits, most: int) -> None:
        self.limits = limits
        self.most = most
        self.closing = Closing()
        self.batch = ResponseBatch()
        self._open = open_
        self._closed = 0
        self._refused = 0
        self._told_at: float | None = None

    def admit(self, newcomer: AnsweringProtocol) -> ApiError | None:
        """Make room for a new connection; return the error to refuse it with if that fails."""
        if len(self._open) <= self.most:
            return None
        waiting = [
            (one.answered, since, id(one), one)
            for one in self._open
            if one is not newcomer and (since := one.waiting_since) is not None
        ]
        # Close several at a time: a scan of all connections for each new one would cost too much.
        self.batch.flush()
        going = heapq.nsmallest(max(1, self.most // 16), waiting)
        for *_, one in going:
            one.transport.abort()
            # The connection removes itself only later; other new ones may arrive before that.
            self._open.discard(one)
        self._closed += len(going)
        self._refused += not going
        self._tell()
        return None if going else Overloaded("Too many connections are open", retry_after=1)

    def count(self) -> dict[ConnectionState, int]:
        """Count the open connections: idle ones wait for their client."""
        idle = sum(one.waiting_since is not None for one in self._open)
        return {
            ConnectionState.ACTIVE: len(self._open) - idle,
            ConnectionState.IDLE: idle,
        }

    async def enforce(self) -> None:
        """Close the connections that have exceeded a timeout."""
        now = asyncio.get_running_loop().time()
        ended = 0
        for one in list(self._open):
            ended += one.enforce(now)
            if ended >= _AT_ONCE:
                ended = 0
                await asyncio.sleep(0)
        if self._closed or self._refused:
            self._tell()

    def _tell(self) -> None:
        """Log that there are too many connections, at most once a minute."""
        now = asyncio.get_running_loop().time()
        if self._told_at is not None and now < self._told_at + _TELL_EVERY:
            return
        _log.warning("connections_full", most=self.most, closed=self._closed, refused=self._refused)
        self._told_at, self._closed, self._refused = now, 0, 0


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard limit; return the limit now in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    if hard != resource.RLIM_INFINITY and room(hard) < _LOW:
        _log.warning("file_limit_low", files=hard, connections=room(hard))
    return hard
