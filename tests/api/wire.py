# SPDX-License-Identifier: Apache-2.0
"""The application behind a real server on a real socket, and bare connections to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx2
import orjson
from pydantic import TypeAdapter
from starlette.types import ASGIApp

from novitai.api.schemas.errors import ErrorResponse
from novitai.cli.connections import Limits
from novitai.cli.listening import answer, bind, url_of
from tests.api.application import CREATE, Api

WITHIN = 10.0


"""Seconds after which a test gives up."""


@dataclass(frozen=True)
class Serving:
    """A running server; set `end` to shut it down, and `ended` is done when it has ended."""

    url: str
    port: int
    end: asyncio.Event
    ended: asyncio.Task[None]
    wires: list[Wire] = field(default_factory=list)

    async def connect(self) -> Wire:
        """Open a bare connection, which is closed with the server at the latest."""
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self.wires.append(wire)
        return wire


@asynccontextmanager
async def serving(app: ASGIApp, limits: Limits | None = None) -> AsyncIterator[Serving]:
    """Serve an application on a free port, as the commands do."""
    listening, end, ready = bind("127.0.0.1", 0), asyncio.Event(), asyncio.Event()
    url = url_of("127.0.0.1", listening)
    port = listening.getsockname()[1]
    ended = asyncio.create_task(
        answer(app, listening, end, ready=ready.set, limits=limits or Limits())
    )
    await ready.wait()
    try:
        server = Serving(url, port, end, ended)
        try:
            yield server
        finally:
            for wire in server.wires:
                wire.writer.transport.abort()
    finally:
        end.set()
        await ended


@asynccontextmanager
async def served(api: Api, limits: Limits | None = None) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve the application, and open an HTTP client for it."""
    async with (
        serving(api.gateway, limits) as server,
        httpx2.AsyncClient(base_url=server.url, trust_env=False) as client,
    ):
        yield client


class Answer(NamedTuple):
    """A response on a bare connection."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error in the envelope of the API."""
        TypeAdapter(ErrorResponse).validate_json(self.body)
        assert self.headers["content-type"] == "application/json"
        error: dict[str, Any] = orjson.loads(self.body)["error"]
        assert error["requestId"] == self.headers["x-request-id"]
        return error


class Wire:
    """A bare connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes, pause: float = 0.02) -> None:
        """Send each part as it is, with a pause after it."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await asyncio.sleep(pause)

    async def answer(self) -> Answer:
        """Read one response."""
        async with asyncio.timeout(WITHIN):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(first.split(" ")[1]), headers, body)

    async def answers(self) -> list[Answer]:
        """Read responses until the server closes the connection."""
        found: list[Answer] = []
        while True:
            try:
                found.append(await self.answer())
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise
                return found

    async def closed(self) -> bool:
        """Wait for the server to close the connection; return whether it sent nothing more."""
        async with asyncio.timeout(WITHIN):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True

    def close(self) -> None:
        """Close the connection."""
        self.writer.close()


async def sent(client: httpx2.AsyncClient, *parts: bytes) -> list[Answer]:
    """Send bytes as they are; return the responses until the server closes the connection."""
    port = client.base_url.port
    assert port is not None
    wire = Wire(*await asyncio.open_connection("127.0.0.1", port))
    await wire.send(*parts)
    answers = await wire.answers()
    wire.close()
    return answers


BODY = orjson.dumps(CREATE)


LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def create(api: Api, *lines: str) -> bytes:
    """Build the head of a create request, with further header lines."""
    given = "".join(f"{line}\r\n" for line in lines)
    return (
        f"POST /api/instances HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: {api.bearer()['Authorization']}\r\n{given}\r\n"
    ).encode()
