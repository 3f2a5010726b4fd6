# SPDX-License-Identifier: Apache-2.0
"""The server of the local socket, for commands of the same user: keys, secrets, the account."""

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
from novitai.domain.actor import OPERATOR
from novitai.domain.api_key import ApiKey, in_order
from novitai.domain.key_limits import key_limits_to_json
from novitai.errors import NovitaiError
from novitai.store.engine.sqlite_file import path_of

CONVERSATION_SECONDS: Final = 60.0
"""Seconds that one command may stay connected."""
_BACKLOG: Final = 16

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def answer_commands(app: Application) -> AsyncIterator[None]:
    """Answer commands of this user inside the context, if the database is the embedded file.

    If the socket cannot be created, a warning is logged and the server runs without it.
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
    answering = _Answering(app)
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
    """Create the socket; replace one left over by a killed server.

    Raises:
        OSError: it cannot be created, or another kind of file has its name.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "a file that is not a socket has its name")
        path.unlink()  # this process holds the lock of the database, so no server listens there
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux creates the file with the mode of the socket, so other users can never open it.
        os.fchmod(listening.fileno(), 0o600)
        with address(path) as where:
            listening.bind(where)
        path.chmod(0o600)
        listening.listen(_BACKLOG)
    except BaseException:  # close the socket and re-raise
        listening.close()
        raise
    return listening


class _Answering:
    """Handles the connections of commands."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._keys = app.keys
        self._conversations: set[asyncio.Task[object]] = set()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each line; at the end, revoke created keys that were not confirmed as shown."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine always runs in a task
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
            # The client is gone or too slow, the line is too long, or the server is shutting down.
            writer.transport.abort()
        finally:
            writer.close()
            for key_id in unshown:
                await self._revoke_unshown(key_id)

    async def end(self) -> None:
        """Cancel all open connections and wait for them to end."""
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
        except Exception:  # answer in any case: the command is waiting
            _log.exception("command_failed")
            return orjson.dumps({"error": "the server failed to run the command; see its log"})

    async def _do(self, request: Mapping[str, object], unshown: list[str]) -> object:
        match request:
            case {"command": "create_key", "fields": dict(fields)}:
                made = await self._keys.create(
                    read(CreateKeyRequest, fields, now=self._app.clock.now()).wanted()
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
                return self._app.signing_secrets
            case {"command": "missing_digest"}:
                return (await self._app.ownership.overview()).missing_digest
            case {"command": "confirm_account", "digest": str(digest)}:
                confirm = self._app.ownership.confirm(digest, actor=OPERATOR)
                return await self._app.commands.apply(confirm)
        raise NovitaiError("the server does not know this command: it has a different version")


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
        "limits": key.limits and key_limits_to_json(key.limits),
    }
