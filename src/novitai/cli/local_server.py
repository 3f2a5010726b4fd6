# SPDX-License-Identifier: Apache-2.0
"""The server's end of the local socket: keys and the signing secret, for commands of its owner."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import orjson
import structlog

from novitai.api.schemas.keys import CreateKeyRequest
from novitai.api.schemas.wire import read
from novitai.app import Application
from novitai.cli.local_socket import MAX_LINE, address, peer_uid, socket_path
from novitai.clock import Clock
from novitai.domain.api_key import ApiKey, in_order
from novitai.errors import NovitaiError
from novitai.lifecycle.api_keys import KeyRing
from novitai.store.engine.sqlite_file import path_of

CONVERSATION_SECONDS: Final = 60.0
"""How long one command may stay connected."""
_BACKLOG: Final = 16

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def answer_commands(app: Application) -> AsyncIterator[None]:
    """Answer commands of this user while entered, if the database is the embedded file.

    A socket that cannot be made is logged: the server does its work without it.
    """
    if not app.settings.embedded:
        yield
        return
    path = socket_path(path_of(app.settings.database))
    try:
        listening = _listen(path)
    except OSError as error:
        _log.warning(
            "local_socket_unavailable",
            path=str(path),
            error=error.strerror or str(error),
            effect="while this server runs, `novitai keys` and `novitai webhooks` cannot reach it",
        )
        yield
        return
    made = os.lstat(path)
    answering = _Answering(app.keys, app.signing_secrets, app.clock)
    server = await asyncio.start_unix_server(answering.converse, sock=listening, limit=MAX_LINE)
    try:
        yield
    finally:
        server.close()
        await answering.end()
        with contextlib.suppress(OSError):
            if os.path.samestat(os.lstat(path), made):
                path.unlink()


def _listen(path: Path) -> socket.socket:
    """Make the socket, in place of one that a killed server has left.

    Raises:
        OSError: it cannot be made, or something else has its name.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "something that is no socket has its name")
        path.unlink()  # this process has the database, so nothing listens there
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux makes the file with the mode of the socket, so that it is never open to others.
        os.fchmod(listening.fileno(), 0o600)
        with address(path) as where:
            listening.bind(where)
        path.chmod(0o600)
        listening.listen(_BACKLOG)
    except BaseException:  # the socket is closed, then it is raised on
        listening.close()
        raise
    return listening


class _Answering:
    """What the commands can ask for."""

    def __init__(self, keys: KeyRing, signing_secrets: tuple[str, ...], clock: Clock) -> None:
        self._keys = keys
        self._signing_secrets = signing_secrets
        self._clock = clock
        self._conversations: set[asyncio.Task[object]] = set()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer line by line; a key whose text was not shown in the end is revoked."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it is the caller
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)
        unshown: list[str] = []
        try:
            async with asyncio.timeout(CONVERSATION_SECONDS):
                if peer_uid(writer.get_extra_info("socket")) in {None, 0, os.geteuid()}:
                    while line := await reader.readline():
                        writer.write(await self._answer(line, unshown) + b"\n")
                        await writer.drain()
        except (OSError, TimeoutError, ValueError, asyncio.CancelledError):
            # Gone, too slow, a line without an end, or the server ends: no answer is owed.
            writer.transport.abort()
        finally:
            writer.close()
            for key_id in unshown:
                await self._revoke_unshown(key_id)

    async def end(self) -> None:
        """End the conversations that are going on."""
        for task in self._conversations:
            task.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    async def _revoke_unshown(self, key_id: str) -> None:
        try:
            await self._keys.revoke(key_id)
        except NovitaiError as error:
            _log.warning("unshown_key_not_revoked", key_id=key_id, error=str(error))
        else:
            _log.warning("unshown_key_revoked", key_id=key_id)

    async def _answer(self, line: bytes, unshown: list[str]) -> bytes:
        try:
            request = orjson.loads(line)
            return orjson.dumps({"result": await self._do(request, unshown)})
        except NovitaiError as error:
            return orjson.dumps({"error": str(error)})
        except Exception:  # the command must not wait for an answer that never comes
            _log.exception("command_failed")
            return orjson.dumps({"error": "the server failed to do it; its log says why"})

    async def _do(self, request: Mapping[str, object], unshown: list[str]) -> object:
        match request:
            case {"command": "create_key", "fields": dict(fields)}:
                made = await self._keys.create(
                    read(CreateKeyRequest, fields, now=self._clock.now()).wanted()
                )
                unshown.append(made.key.id)
                return {"key": _as_json(made.key), "text": made.text}
            case {"command": "key_shown"}:
                unshown.clear()
                return None
            case {"command": "list_keys"}:
                page = await self._keys.page(cursor=_text(request.get("cursor")))
                return {"keys": [_as_json(key) for key in page.keys], "next": page.next_cursor}
            case {"command": "revoke_key", "id": str(key_id)}:
                key = await self._keys.revoke(key_id)
                if key_id in unshown:
                    unshown.remove(key_id)
                return _as_json(key)
            case {"command": "signing_secrets"}:
                return self._signing_secrets
        raise NovitaiError("the server is of another version and does not know this command")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _as_json(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": in_order(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }
