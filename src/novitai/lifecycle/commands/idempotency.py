# SPDX-License-Identifier: Apache-2.0
"""Carry out the change that a request makes, once per `Idempotency-Key`.

A service describes the change: as a transaction function, or as a `Command` if it needs more than
one transaction. Only `Commands.run` handles keys, deadlines and stored answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import orjson
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.crash_points import CrashPoint, reach
from novitai.errors import (
    RESTART_SECONDS,
    Conflict,
    IdempotencyKeyReused,
    NotFound,
    NovitaiError,
    ShuttingDown,
)
from novitai.store.engine.database import Database
from novitai.store.queries import idempotency_keys
from novitai.store.queries.idempotency_keys import Remembered

T = TypeVar("T")

KEPT_FOR: Final = 24 * 3600 * 1000
"""How long an answer is kept, in milliseconds."""

Transaction = Callable[[Connection], T]
"""The work of one transaction. It may run more than once and has no effect except SQL."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as bytes, so that it can be repeated byte for byte.

    Attributes:
        status: The HTTP status.
        headers: The headers stored with the answer.
        body: The JSON body.
        secret_of: The ID of the object, if the answer shows its secret. Such an answer is never
            stored; a second request with its key is refused with this ID.
        replayed: Whether the answer repeats that of an earlier request.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    secret_of: str | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's `Idempotency-Key`, and what it is bound to: API key, route and body."""

    api_key_id: str
    route: str
    key: str
    body_digest: str


@dataclass(frozen=True, slots=True)
class Completed(Generic[T]):
    """A change that was made before the transaction that stores the answer.

    After a crash in between, or with a concurrent request with the same key in another process, the
    change is made twice.
    """

    result: T

    def __call__(self, _connection: Connection) -> T:
        """Return the result, as a transaction function does."""
        return self.result


async def _nothing(_result: object) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Command(Generic[T]):
    """A change that needs more than one transaction.

    Attributes:
        prepare: Runs before the commit and returns the transaction function, or `Completed`. Its
            argument is the request's deadline in Unix milliseconds, or None. It does not run if
            the request was answered earlier. It may run again for a retry if the process ends
            before the commit.
        then: Runs after the commit and before the answer, but not for a repeated answer.
    """

    prepare: Callable[[int | None], Awaitable[Transaction[T]]]
    then: Callable[[T], Awaitable[None]] = _nothing

    @classmethod
    def of(cls, act: Transaction[T], then: Callable[[T], Awaitable[None]] = _nothing) -> Command[T]:
        """Make a command from a transaction function."""

        async def prepare(_deadline: int | None) -> Transaction[T]:
            return act

        return cls(prepare, then)


class AlreadyAnswered(NovitaiError):
    """Another process committed the same key first: roll back, and repeat its answer."""


class Commands:
    """Carries out commands, stores answers, and tracks the keys in use in this process."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._at_work: set[tuple[str, str, str]] = set()

    async def run(
        self,
        command: Transaction[T] | Command[T],
        render: Callable[[T], Reply],
        *,
        key: IdempotencyKey | None = None,
        deadline: int | None = None,
    ) -> Reply:
        """Carry out a command and store its answer in the same commit, or repeat the answer.

        Errors that the command raises are not stored.

        Args:
            command: The change to make.
            render: Renders the answer. It runs inside the transaction.
            key: The client's key, if it sent one.
            deadline: Unix milliseconds after which nothing may be committed.

        Raises:
            Conflict: `IDEMPOTENCY_IN_PROGRESS`: the first request with the key is still running;
                `IDEMPOTENCY_NOT_REPLAYABLE`: the first answer showed a secret.
            IdempotencyKeyReused: the key was used with another body.
            RequestTimeout: the deadline passed; nothing was done.
            ShuttingDown: the process ends, and whether the command was committed is not known.
        """
        if key is None:
            return await self._run_first(command, render, None, deadline)
        async with self._working_on(key):
            answered = await self._answered(key)
            return answered or await self._run_first(command, render, key, deadline)

    async def apply(
        self, command: Transaction[T] | Command[T], *, deadline: int | None = None
    ) -> T:
        """Carry out a command without a key.

        Raises:
            RequestTimeout: the deadline passed; nothing was done.
            ShuttingDown: the process ends, and whether the command was committed is not known.
        """
        command = _command(command)
        act = await command.prepare(deadline)
        if isinstance(act, Completed):
            done: T = act.result
            return done
        reach(CrashPoint.REQUEST_COMMITTING)
        result = await outcome(self._database.write(act, deadline=deadline))
        reach(CrashPoint.REQUEST_COMMITTED)
        await command.then(result)
        return result

    async def _run_first(
        self,
        command: Transaction[T] | Command[T],
        render: Callable[[T], Reply],
        key: IdempotencyKey | None,
        deadline: int | None,
    ) -> Reply:
        command = _command(command)

        try:
            act = await command.prepare(deadline)
            if isinstance(act, Completed):
                if key is None:
                    return render(act.result)
                deadline = None  # the change is made, so RequestTimeout would be wrong

            def write(connection: Connection) -> tuple[T, Reply]:
                result = act(connection)
                reply = render(result)
                if key is not None:
                    self._remember(connection, key, reply)
                return result, reply

            reach(CrashPoint.REQUEST_COMMITTING)
            result, reply = await outcome(self._database.write(write, deadline=deadline))
            reach(CrashPoint.REQUEST_COMMITTED)
        except (AlreadyAnswered, Conflict, NotFound):
            # Another process may have committed the same key first and so caused the refusal.
            rival = await self._answered(key) if key is not None else None
            if rival is None:
                raise
            return rival
        await command.then(result)
        return reply

    @asynccontextmanager
    async def _working_on(self, key: IdempotencyKey) -> AsyncIterator[None]:
        name = (key.api_key_id, key.route, key.key)
        if name in self._at_work:
            raise Conflict(
                "The first request with this Idempotency-Key is still running",
                code="IDEMPOTENCY_IN_PROGRESS",
                retry_after=1,
            )
        self._at_work.add(name)
        try:
            yield
        finally:
            self._at_work.discard(name)

    async def _answered(self, key: IdempotencyKey) -> Reply | None:
        """Find the stored answer for a key; None if there is none."""
        found = await self._database.read(lambda connection: self._find(connection, key))
        if found is None:
            return None
        if found.body_digest != key.body_digest:
            raise IdempotencyKeyReused(
                "This Idempotency-Key was already used with another request body"
            )
        if found.status == Conflict.status:  # stored only in place of an answer with a secret
            raise Conflict(
                "This request was already answered; the secret in that answer is not shown again",
                code="IDEMPOTENCY_NOT_REPLAYABLE",
                details=orjson.loads(found.body),
            )
        return Reply(found.status, found.headers, found.body, replayed=True)

    def _remember(self, connection: Connection, key: IdempotencyKey, reply: Reply) -> None:
        """Store the answer; if it shows a secret, store the ID of the object instead."""
        if reply.secret_of is not None:
            reply = Reply(Conflict.status, {}, orjson.dumps({"id": reply.secret_of}))
        now = self._clock.now()
        stored = idempotency_keys.remember(
            connection,
            api_key_id=key.api_key_id,
            route=key.route,
            key=key.key,
            answer=Remembered(key.body_digest, reply.status, reply.headers, reply.body),
            now=now,
            since=now - KEPT_FOR,
        )
        if not stored:
            raise AlreadyAnswered

    def _find(self, connection: Connection, key: IdempotencyKey) -> Remembered | None:
        return idempotency_keys.find(
            connection,
            api_key_id=key.api_key_id,
            route=key.route,
            key=key.key,
            since=self._clock.now() - KEPT_FOR,
        )


async def outcome(writing: Coroutine[Any, Any, T]) -> T:
    """Wait for a write even if the request is cancelled, so that the client learns the result.

    Requests are cancelled when the process ends, but queued writes are still committed a moment
    later. The first cancellation is therefore ignored; the second ends the wait.

    Raises:
        ShuttingDown: after a second cancellation; whether the write was committed is not known.
    """
    task = asyncio.ensure_future(writing)
    for _ in range(2):
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    task.cancel()
    raise ShuttingDown(
        "The server is shutting down, and it is not known whether the request was carried out; "
        "retry with the same Idempotency-Key, or check",
        retry_after=RESTART_SECONDS,
    )


def _command(command: Transaction[T] | Command[T]) -> Command[T]:
    return command if isinstance(command, Command) else Command.of(command)
