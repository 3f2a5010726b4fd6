# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ASYNC240 - no other task runs on these loops
"""Only commands of the same user reach the server that has the embedded database open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from structlog.testing import capture_logs

from novitai.api.schemas.keys import CreateKeyRequest
from novitai.api.schemas.wire import read
from novitai.app import Application
from novitai.cli import local_server
from novitai.cli.key_access import KeysOfServer
from novitai.cli.local_client import LocalServer, open_store_or_server
from novitai.cli.local_server import answer_commands
from novitai.cli.local_socket import MAX_LINE
from novitai.errors import NovitaiError, StartupError
from novitai.ids import Ids
from novitai.settings import Settings
from novitai.testing import ManualClock
from tests.lifecycle.world import settings_for

LIMITS = {
    "maxInstances": 3,
    "maxHourlyPrice": 2.5,
    "maxRunMinutes": 60,
    "budget": {"amount": 20, "period": "day"},
}
FIELDS = {"name": "Вася", "scopes": ["write", "read"], "limits": LIMITS}


@pytest.fixture
def settings(sqlite_database_url: str, tmp_path: Path) -> Settings:
    """Settings of a server on the embedded file."""
    return settings_for(sqlite_database_url, tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the socket of `app`."""
    return tmp_path / "novitai.db.sock"


@pytest.fixture
async def app(settings: Settings, clock: ManualClock) -> AsyncIterator[Application]:
    """An application that has the database open."""
    made = await Application.open(settings, clock, Ids())
    yield made
    await made.stop()


@pytest.fixture
async def answering(app: Application) -> AsyncIterator[Application]:
    """The same application, answering commands."""
    async with answer_commands(app):
        yield app


async def reach(path: Path) -> LocalServer:
    """Connect, as a command does."""
    server = await LocalServer.connect(path)
    assert server is not None
    return server


async def until_cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Wait until the server closes the connection without an answer."""
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def names_and_revoked(app: Application) -> list[tuple[str, bool]]:
    """Read the keys from the server's key ring."""
    return [(key.name, key.revoked_at is not None) for key in (await app.keys.page()).keys]


async def test_keys_are_made_listed_and_revoked(answering: Application, path: Path) -> None:
    """A command sees and changes the same keys as the server."""
    server = await reach(path)
    keys = KeysOfServer(server)
    made = await keys.create(FIELDS)
    await keys.shown()
    caller = await answering.keys.authenticate(made.text)
    assert caller is not None
    assert caller.key_id == made.key.id
    assert made.key.limits == read(CreateKeyRequest, FIELDS, now=0).wanted().limits
    await answering.keys.flush()
    assert await keys.all() == list((await answering.keys.page()).keys)
    revoked = await keys.revoke(made.key.id)
    assert revoked.revoked_at is not None
    assert await answering.keys.authenticate(made.text) is None
    assert await server.call("signing_secrets") == list(answering.signing_secrets)
    await server.close()


async def test_every_page_of_keys_is_listed(
    answering: Application, path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command reads all pages of keys."""
    page = answering.keys.page
    monkeypatch.setattr(answering.keys, "page", lambda cursor: page(limit=2, cursor=cursor))
    server = await reach(path)
    keys = KeysOfServer(server)
    for number in range(5):
        await keys.create({**FIELDS, "name": str(number)})
        await clock.advance(1)
    await keys.shown()
    assert [key.name for key in await keys.all()] == ["4", "3", "2", "1", "0"]
    await server.close()


async def test_a_key_that_was_not_shown_is_revoked(answering: Application, path: Path) -> None:
    """If a command ends before it confirms that it showed the key, the key is revoked."""
    server = await reach(path)
    made = await KeysOfServer(server).create(FIELDS)
    await server.close()
    async with asyncio.timeout(30):
        while await answering.keys.authenticate(made.text) is not None:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
    assert await names_and_revoked(answering) == [("Вася", True)]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"not json", "failed to run the command"),
        (b"[]", "does not know this command"),
        (b'{"command": "drop_everything"}', "does not know this command"),
        (b'{"command": "revoke_key", "id": 7}', "does not know this command"),
        (b'{"command": "revoke_key", "id": "key_none"}', "There is no API key 'key_none'"),
        (b'{"command": "create_key", "fields": {"name": ""}}', "Validation failed"),
    ],
)
async def test_nonsense_is_answered(
    answering: Application, path: Path, line: bytes, told: str
) -> None:
    """Every invalid line gets an error as its answer, and so does the next line."""
    reader, writer = await asyncio.open_unix_connection(path)
    for _ in range(2):
        writer.write(line + b"\n")
        answer = orjson.loads(await reader.readline())
        assert told in answer["error"]
    writer.close()
    await writer.wait_closed()
    assert await names_and_revoked(answering) == []


async def test_who_says_nothing_is_cut_off(
    app: Application, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle client and a line that is too long are disconnected."""
    monkeypatch.setattr(local_server, "CONVERSATION_SECONDS", 0.01)
    async with answer_commands(app):
        reader, writer = await asyncio.open_unix_connection(path)
        await until_cut_off(reader, writer)
    monkeypatch.setattr(local_server, "CONVERSATION_SECONDS", 60)
    async with answer_commands(app):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"x" * (MAX_LINE * 2))
        await until_cut_off(reader, writer)


async def test_only_its_owner_can_open_it(answering: Application, path: Path) -> None:
    """The socket has mode 0600."""
    status = path.lstat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600


async def test_another_user_is_not_answered(
    answering: Application, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user is disconnected even if the permissions of the socket were changed."""
    monkeypatch.setattr(local_server, "peer_uid", lambda _: os.geteuid() + 1)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b'{"command": "list_keys"}\n')
    await until_cut_off(reader, writer)


async def test_the_socket_of_a_killed_server_is_replaced(app: Application, path: Path) -> None:
    """A stale socket is replaced, and a command does not take it for a server."""
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    assert await LocalServer.connect(path) is None
    async with answer_commands(app):
        await (await reach(path)).close()
    assert not path.exists()


async def test_what_is_no_socket_is_left_alone(app: Application, path: Path) -> None:
    """If another file has the socket's name, the server logs this and runs without a socket."""
    path.write_text("a letter")
    with capture_logs() as logged:
        async with answer_commands(app):
            pass
    assert [line["event"] for line in logged] == ["local_socket_unavailable"]
    assert path.read_text() == "a letter"


async def test_a_socket_of_somebody_else_is_not_removed_at_the_end(
    app: Application, path: Path
) -> None:
    """At the end the server removes only the socket that it created."""
    async with answer_commands(app):
        path.unlink()
        path.write_text("a letter")
    assert path.read_text() == "a letter"


async def test_a_data_folder_may_have_a_long_path(tmp_path: Path, clock: ManualClock) -> None:
    """The path may be longer than a socket address."""
    folder = tmp_path / ("long-" * 30) / "data"
    settings = settings_for(f"sqlite:///{folder}/novitai.db", folder)
    app = await Application.open(settings, clock, Ids())
    async with answer_commands(app):
        server = await reach(folder / "novitai.db.sock")
        assert await KeysOfServer(server).all() == []
        await server.close()
    assert not (folder / "novitai.db.sock").exists()
    await app.stop()


async def test_a_command_opens_the_store_where_no_server_runs(
    settings: Settings, clock: ManualClock
) -> None:
    """Without a server a command opens the store; with a server it connects to it."""
    async with open_store_or_server(settings, clock, otherwise="") as found:
        assert not isinstance(found, LocalServer)
    app = await Application.open(settings, clock, Ids())
    async with (
        answer_commands(app),
        open_store_or_server(settings, clock, otherwise="") as found,
    ):
        assert isinstance(found, LocalServer)
    await app.stop()


async def test_a_command_waits_for_a_server_that_starts(
    app: Application, settings: Settings, clock: ManualClock
) -> None:
    """A server locks the database before it answers; the command retries until it does."""

    async def command() -> bool:
        async with open_store_or_server(settings, clock, otherwise="") as found:
            return isinstance(found, LocalServer)

    waiting = asyncio.create_task(command())
    while not clock._sleepers:  # noqa: ASYNC110 - the clock has no event for it
        await asyncio.sleep(0.001)
    async with answer_commands(app):
        async with asyncio.timeout(30):
            while not waiting.done():
                await clock.advance(0.1)
                await asyncio.sleep(0.001)
        assert await waiting


async def test_a_command_gives_up_in_the_end(
    app: Application, settings: Settings, clock: ManualClock
) -> None:
    """The error says that another process uses the database, and what to do instead."""

    async def command() -> None:
        async with open_store_or_server(settings, clock, otherwise="Ask somebody."):
            pass

    waiting = asyncio.create_task(command())
    async with asyncio.timeout(30):
        while not waiting.done():
            await clock.advance(1)
            await asyncio.sleep(0.001)
    with pytest.raises(StartupError, match="in use by another process") as caught:
        await waiting
    assert str(caught.value).endswith("\nAsk somebody.")
    assert caught.value.exit_code == 75


async def test_a_server_that_hangs_up_is_an_error_in_words(tmp_path: Path) -> None:
    """A disconnect is an error with a message, not a traceback or an endless wait."""
    path = tmp_path / "s"

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_unix_server(hang_up, path):
        server = await reach(path)
        with pytest.raises(StartupError, match="did not answer"):
            await server.call("list_keys")
        await server.close()


async def test_an_error_of_the_server_is_raised(answering: Application, path: Path) -> None:
    """The command raises the server's error with its message."""
    server = await reach(path)
    with pytest.raises(NovitaiError, match="There is no API key 'key_none'"):
        await KeysOfServer(server).revoke("key_none")
    await server.close()
