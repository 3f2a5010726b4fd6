# SPDX-License-Identifier: Apache-2.0
"""The listening socket and the HTTP server on it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import time
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any, Final, cast

import uvicorn

from novitai.cli.connections import Connections, Limits, raise_file_limit, reserve, room
from novitai.cli.protocol import AnsweringProtocol
from novitai.errors import StartupError
from novitai.telemetry.connections import ConnectionCount

if TYPE_CHECKING:
    from starlette.types import ASGIApp

BACKLOG: Final = 1024
DEFAULT_LIMITS: Final = Limits()
_LOOK_EVERY: Final = 0.05
_TAKE_WITHIN: Final = 0.5
"""Seconds for clients to read their responses before the process exits."""


def bind(host: str, port: int) -> socket.socket:
    """Listen on an address. Called first, so that a port in use is reported at once.

    Raises:
        StartupError: listening failed; the message says what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _unusable(host, port, error) from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise _unusable(host, port, error) from None
    return bound


def bind_near(host: str, port: int) -> socket.socket:
    """Listen on a port or, if that fails, on any free one."""
    try:
        return bind(host, port)
    except StartupError:
        return bind(host, 0)


def url_of(host: str, listening: socket.socket) -> str:
    """Return the URL of a listening socket."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"


def is_loopback(listening: socket.socket) -> bool:
    """Whether only clients on this machine can connect."""
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


async def answer(
    app: ASGIApp,
    listening: socket.socket,
    until: asyncio.Event,
    *,
    ready: Callable[[], None],
    limits: Limits = DEFAULT_LIMITS,
    count: ConnectionCount | None = None,
) -> None:
    """Serve requests until `until` is set; then finish running requests, for a few seconds.

    Args:
        app: The application.
        listening: The listening socket; closed at the end.
        until: Set to shut down.
        ready: Called when the server accepts requests.
        limits: The timeouts and the maximum number of connections.
        count: Gets the connections of this server, to count them.
    """
    server = _Server(app, ready, limits)
    if count is not None:
        count.use(server.connections.count)
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="http")
    asked = asyncio.create_task(until.wait())
    try:
        await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
        server.connections.closing.asked.set()
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """A uvicorn server that installs no signal handlers and calls `ready` when it has started."""

    def __init__(self, app: ASGIApp, ready: Callable[[], None], limits: Limits) -> None:
        files = raise_file_limit()
        most = limits.connections or room(files)
        super().__init__(
            uvicorn.Config(
                app,
                http=cast("type[AnsweringProtocol]", self._protocol),
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                # The event loop accepts a whole backlog at once; it has to fit into the reserve.
                backlog=min(BACKLOG, reserve(files) // 2),
                timeout_keep_alive=cast("int", limits.idle),
            )
        )
        self._ready = ready
        self._enforce_at = 0.0
        opened = cast("set[AnsweringProtocol]", self.server_state.connections)
        self.connections = Connections(opened, limits, most)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        now = time.monotonic()
        if now >= self._enforce_at:
            await self.connections.enforce()
            self._enforce_at = now + self.connections.limits.look_every
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let running requests finish, and cancel those that take too long.

        A cancelled request still sends a response: either it had no effect yet, or it waits for its
        commit. If it is cancelled a second time, it stops waiting.
        """
        limits, closing = self.connections.limits, self.connections.closing
        for server in self.servers:
            server.close()
        for one in sockets or []:
            one.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._until_empty(limits.drain, self.server_state.connections)
        closing.over = True
        for seconds in (limits.cut, _TAKE_WITHIN):
            tasks = list(self.server_state.tasks)
            await asyncio.sleep(0)  # let each task start: one cancelled earlier sends no response
            for task in tasks:
                task.cancel()
            await self._until_empty(seconds, self.server_state.tasks)
        await self._until_empty(_TAKE_WITHIN, self.server_state.connections)
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def _protocol(self, **arguments: Any) -> AnsweringProtocol:
        return AnsweringProtocol(**arguments, crowd=self.connections)

    async def _until_empty(self, seconds: float, what: Collection[object]) -> None:
        deadline = time.monotonic() + seconds
        while what and time.monotonic() < deadline:  # noqa: ASYNC110 - uvicorn has no event
            await asyncio.sleep(_LOOK_EVERY)


def _unusable(host: str, port: int, error: OSError) -> StartupError:
    if error.errno == errno.EADDRINUSE:
        return StartupError(
            f"port {port} on {host} is in use by another program. Choose another with --port, "
            "or let --port 0 pick a free one."
        )
    if error.errno == errno.EACCES:
        return StartupError(
            f"this user is not allowed to use port {port} on {host}. Choose a port of 1024 or "
            "above with --port."
        )
    return StartupError(
        f"cannot listen on {host}, port {port}: {error.strerror or error}. "
        "--host must be an address of this machine."
    )
