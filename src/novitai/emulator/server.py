# SPDX-License-Identifier: Apache-2.0
"""Runs the emulator as a process or, for tests, as a server inside a process."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TextIO

import uvicorn

from novitai.emulator.api import HAS_EXTRAS
from novitai.emulator.app import create_app
from novitai.emulator.config import EmulatorConfig
from novitai.emulator.dropping import DroppableProtocol
from novitai.emulator.state import Emulator

BACKLOG = 512


class _Server(uvicorn.Server):
    """A server that leaves signal handling to its owner."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(config: EmulatorConfig | None = None) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        SystemExit: With code 1 if the address cannot be used; the reason is written to stderr.
    """
    config = config or EmulatorConfig()
    try:
        listening = bind(config.host, config.port)
    except OSError as error:
        reason = error.strerror or str(error)
        _say(
            f"cannot listen on {config.host}:{config.port}: {reason}\n"
            "Choose another port with --port, or 0 for a free one.",
            sys.stderr,
        )
        raise SystemExit(1) from None
    _raise_socket_limit()
    server = _server(config, listening)
    factory = server.config.get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_run(server, config, listening))


@contextlib.asynccontextmanager
async def serve(config: EmulatorConfig | None = None) -> AsyncIterator[str]:
    """Serve on a socket inside this process; yields the base URL."""
    config = config or EmulatorConfig(port=0)
    listening = bind(config.host, config.port)
    server = _server(config, listening)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        while not server.started:
            if task.done():
                task.result()
                raise RuntimeError("the emulator exited during startup")
            await asyncio.sleep(0.005)
        yield _url(config.host, listening)
    finally:
        server.should_exit = True
        await task


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket bound to the address.

    Raises:
        OSError: The address is in use or does not belong to this machine.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


async def _run(server: _Server, config: EmulatorConfig, listening: socket.socket) -> None:
    loop = asyncio.get_running_loop()

    def leave() -> None:
        server.should_exit = True

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, leave)
    _say(f"listening on {_url(config.host, listening)} at speed {config.speed:g}")
    if not HAS_EXTRAS:
        _say("only the endpoints that novitai calls are installed; the source tree has all of them")
    await server.serve(sockets=[listening])


def _server(config: EmulatorConfig, listening: socket.socket) -> _Server:
    app = create_app(config)
    emulator: Emulator = app.state.emulator
    if emulator.public_url is None:
        emulator.public_url = _reachable_url(config.host, listening)
    return _Server(
        uvicorn.Config(
            app,
            http=DroppableProtocol,
            ws="none",
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
            backlog=BACKLOG,
        )
    )


def _url(host: str, listening: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"


def _reachable_url(host: str, listening: socket.socket) -> str | None:
    """Return the base of port-mapping URLs; None if the host is a wildcard address."""
    return None if host in {"", "0.0.0.0", "::"} else _url(host, listening)  # noqa: S104 - compared, not bound


def _raise_socket_limit() -> None:
    """Raise the limit of open files, so that ten thousand instances can have TCP ports."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say(text: str, stream: TextIO | None = None) -> None:
    """Print a line of the command at once; on standard output unless a stream is given."""
    print(f"novitai emulator: {text}", file=stream, flush=True)
