# SPDX-License-Identifier: Apache-2.0
"""All connections of one server: how many there may be, and how long each may keep us waiting."""

from __future__ import annotations

import asyncio
import heapq
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from novitai.api.http.context import Closing
from novitai.errors import ApiError, Overloaded

if TYPE_CHECKING:
    from novitai.cli.protocol import AnsweringProtocol

MAX_CONNECTIONS: Final = 8_192
"""How many connections a process takes however many files it may open: each costs memory."""
_MAX_RESERVE: Final = 2_048
_SMALL_RESERVE: Final = 128
_LOW: Final = 512
_TELL_EVERY: Final = 60.0
_AT_ONCE: Final = 32
"""How many connections are ended before other work gets a turn."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a client may take.

    Attributes:
        head: For a request line and headers, from their first byte.
        body: For a body, from the end of the headers.
        idle: Without a request, from the first moment of the connection or the last answer. Longer
            than the minute for which load balancers keep idle connections, so that none is closed
            at the moment in which a request is sent over it.
        answer: To take an answer that does not fit into the buffers.
        linger: To take a refusal, after which the connection is closed.
        drain: For requests in hand to finish when the process ends.
        cut: For what is being committed when `drain` is over.
        connections: How many connections there may be; as the limit of open files has it, if None.
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
        """Seconds between two looks at the connections."""
        return min(1.0, min(self.head, self.body, self.idle, self.answer) / 4)


def reserve(file_limit: int) -> int:
    """Keep so many open files for the database, upstream, probes, receivers and the log."""
    return min(_MAX_RESERVE, max(file_limit // 4, min(_SMALL_RESERVE, file_limit // 2)))


def room(file_limit: int) -> int:
    """Tell how many connections fit under a limit of open files, without the reserve."""
    if file_limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, file_limit - reserve(file_limit)))


class Connections:
    """The open connections of a server.

    Where there are too many, those that wait longest for their client make room, those first whose
    client has never completed a request. Only where all wait for us, a new one is refused.

    Args:
        open_: The server's own set of them, which each joins and leaves by itself.
        limits: What each may take.
        most: How many there may be.
    """

    def __init__(self, open_: set[AnsweringProtocol], limits: Limits, most: int) -> None:
        self.limits = limits
        self.most = most
        self.closing = Closing()
        self._open = open_
        self._closed = 0
        self._refused = 0
        self._told_at: float | None = None

    def admit(self, newcomer: AnsweringProtocol) -> ApiError | None:
        """Make room for a connection that has just been made; return why there is none."""
        if len(self._open) <= self.most:
            return None
        waiting = [
            (one.answered, since, id(one), one)
            for one in self._open
            if one is not newcomer and (since := one.waiting_since) is not None
        ]
        # Several at a time: looking through all of them for each newcomer would cost too much.
        going = heapq.nsmallest(max(1, self.most // 16), waiting)
        for *_, one in going:
            one.transport.abort()
            # It leaves by itself only a moment later, and others may come before that.
            self._open.discard(one)
        self._closed += len(going)
        self._refused += not going
        self._tell()
        return None if going else Overloaded("Too many connections are open", retry_after=1)

    async def enforce(self) -> None:
        """End what has taken too long."""
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
        """Log that there are too many, at most once a minute."""
        now = asyncio.get_running_loop().time()
        if self._told_at is not None and now < self._told_at + _TELL_EVERY:
            return
        _log.warning("connections_full", most=self.most, closed=self._closed, refused=self._refused)
        self._told_at, self._closed, self._refused = now, 0, 0


def raise_file_limit() -> int:
    """Allow this process as many open files as the machine allows; return how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    if hard != resource.RLIM_INFINITY and room(hard) < _LOW:
        _log.warning("file_limit_low", files=hard, connections=room(hard))
    return hard
