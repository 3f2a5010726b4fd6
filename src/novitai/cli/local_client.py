# SPDX-License-Identifier: Apache-2.0
"""The client of the local socket, and the choice between that socket and the database itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import orjson

from novitai.cli.local_socket import MAX_LINE, address, peer_uid, socket_path
from novitai.cli.output import TEMPORARY
from novitai.clock import Clock
from novitai.errors import NovitaiError, StartupError
from novitai.opening import Store, open_store
from novitai.settings import Settings
from novitai.store.engine.sqlite_file import path_of

ANSWER_SECONDS: Final = 15.0
"""Seconds that the server may take for one answer."""
RETRY_SECONDS: Final = 5.0
"""Seconds to wait for a database that another process has locked while no server answers yet."""
_PAUSE: Final = 0.1


class LocalServer:
    """A connection to the running server that has the database open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use `connect` instead."""
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, path: Path) -> LocalServer | None:
        """Connect to the server at a socket; None if none listens there.

        Raises:
            StartupError: a program of another user listens there.
        """
        try:
            with address(path) as where:
                reader, writer = await asyncio.open_unix_connection(where, limit=MAX_LINE)
        except OSError:
            return None
        if os.geteuid() != 0 and peer_uid(writer.get_extra_info("socket")) not in {
            None,
            os.geteuid(),
        }:
            writer.close()
            raise StartupError(f"{path}: the program listening there belongs to another user")
        return cls(reader, writer)

    async def call(self, command: str, **arguments: object) -> Any:
        """Send a command to the server and return its result.

        Raises:
            NovitaiError: the server refused; the message says why.
            StartupError: the server did not answer.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._writer.write(orjson.dumps({"command": command, **arguments}) + b"\n")
                await self._writer.drain()
                line = await self._reader.readline()
            answer = orjson.loads(line)
        except (OSError, TimeoutError, ValueError):
            raise StartupError(
                "the server that has the database open did not answer; see its log",
                exit_code=TEMPORARY,
            ) from None
        if "error" in answer:
            raise NovitaiError(answer["error"])
        return answer["result"]

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def open_store_or_server(
    settings: Settings, clock: Clock, *, otherwise: str
) -> AsyncIterator[Store | LocalServer]:
    """Open the store, or connect to the server that has it open.

    Args:
        settings: They name the store.
        clock: Times the wait for a server that is starting, or for a command that is ending.
        otherwise: Advice that is added to the error if both fail.

    Raises:
        SettingsError: a setting that the store needs is missing or wrong.
        StartupError: the store cannot be used, and no server answers for it.
    """
    give_up_at = clock.monotonic() + RETRY_SECONDS
    async with contextlib.AsyncExitStack() as stack:
        while True:
            if settings.embedded:
                server = await LocalServer.connect(socket_path(path_of(settings.database)))
                if server is not None:
                    stack.push_async_callback(server.close)
                    yield server
                    return
            try:
                store = await stack.enter_async_context(open_store(settings, clock))
            except StartupError as error:
                if not settings.embedded or error.exit_code != TEMPORARY:
                    raise
                if clock.monotonic() >= give_up_at:
                    raise StartupError(f"{error}\n{otherwise}", exit_code=TEMPORARY) from None
            else:
                yield store
                return
            await clock.sleep(_PAUSE)
