# SPDX-License-Identifier: Apache-2.0
"""The listening socket and the HTTP server on it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import resource
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import uvicorn

from novitai.cli.protocol import AnsweringProtocol
from novitai.errors import StartupError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

BACKLOG: Final = 1024
DRAIN_SECONDS: Final = 3
"""How long requests in hand may take to finish when the process ends."""
# Longer than the minute for which load balancers keep idle connections, so that none is closed
# at the moment in which a request is sent over it.
_KEEP_ALIVE_SECONDS: Final = 75


def bind(host: str, port: int) -> socket.socket:
    """Listen on an address, before anything else is begun.

    Raises:
        StartupError: it cannot be listened on; the message says what to do.
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
    """Listen on a port or, where it is taken, on any free one."""
    try:
        return bind(host, port)
    except StartupError:
        return bind(host, 0)


def url_of(host: str, listening: socket.socket) -> str:
    """Write the URL under which the socket is reached."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine can connect."""
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


async def answer(
    app: ASGIApp, listening: socket.socket, until: asyncio.Event, *, ready: Callable[[], None]
) -> None:
    """Answer requests until asked to stop; then finish those in hand, for a few seconds.

    Args:
        app: The application.
        listening: Where; closed afterwards.
        until: Set when it is time to stop.
        ready: Called once requests are taken.
    """
    server = _Server(app, ready)
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="http")
    asked = asyncio.create_task(until.wait())
    try:
        await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """A server that leaves signals to its owner and says when it is ready."""

    def __init__(self, app: ASGIApp, ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=AnsweringProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=DRAIN_SECONDS,
            )
        )
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        _raise_socket_limit()
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _raise_socket_limit() -> None:
    """Let as many clients connect as the machine allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _unusable(host: str, port: int, error: OSError) -> StartupError:
    if error.errno == errno.EADDRINUSE:
        return StartupError(
            f"port {port} on {host} is in use by another program. Choose another with --port, "
            "or let --port 0 pick a free one."
        )
    if error.errno == errno.EACCES:
        return StartupError(
            f"port {port} on {host} may not be used by this user. Choose one from 1024 on "
            "with --port."
        )
    return StartupError(
        f"cannot listen on {host}, port {port}: {error.strerror or error}. "
        "--host takes an address of this machine."
    )
