# SPDX-License-Identifier: Apache-2.0
"""A command's end of the local socket, and the choice between it and the database itself."""

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
"""How long the server may take for one answer."""
RETRY_SECONDS: Final = 5.0
"""How long to wait for a database that another process has and for which nothing answers yet."""
_PAUSE: Final = 0.1


class LocalServer:
    """A running server that has the database, as a command of its owner sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use `connect` instead."""
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, path: Path) -> LocalServer | None:
        """Connect to the server at a socket; None if none listens there.

        Raises:
            StartupError: somebody else's program listens there.
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
            raise StartupError(f"{path}: the program that listens there is another user's")
        return cls(reader, writer)

    async def call(self, command: str, **arguments: object) -> Any:
        """Have the server do something and return what it answers.

        Raises:
            NovitaiError: the server refuses; the message says why.
            StartupError: it does not answer.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._writer.write(orjson.dumps({"command": command, **arguments}) + b"\n")
                await self._writer.drain()
                line = await self._reader.readline()
            answer = orjson.loads(line)
        except (OSError, TimeoutError, ValueError):
            raise StartupError(
                "the server that has the database did not answer; look at its log",
                exit_code=TEMPORARY,
            ) from None
        if "error" in answer:
            raise NovitaiError(answer["error"])
        return answer["result"]

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def open_store_or_server(
    settings: Settings, clock: Clock, *, otherwise: str
) -> AsyncIterator[Store | LocalServer]:
    """Open the store, or reach the server that has it.

    Args:
        settings: Say which store.
        clock: Times the wait for a server that is about to start, or a command about to end.
        otherwise: What the reader can do if neither can be had.

    Raises:
        SettingsError: a setting that the store needs is missing or wrong.
        StartupError: the store cannot be used, and nobody answers for it.
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
