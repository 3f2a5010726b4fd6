# SPDX-License-Identifier: Apache-2.0
"""Doing something once for one `Idempotency-Key`, and giving the same answer ever after."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import orjson
from sqlalchemy import Connection

from novitai.errors import RESTART_SECONDS, Conflict, ShuttingDown
from novitai.lifecycle.commands.idempotency import (
    AlreadyAnswered,
    Idempotency,
    IdempotencyKey,
    Reply,
)
from novitai.store.engine.database import Database

T = TypeVar("T")


async def outcome(writing: Coroutine[Any, Any, T]) -> T:
    """Wait for a write whose client has to be told how it ended, cancelled or not.

    A request is cancelled when the process ends. What was queued to be written is committed a
    moment later all the same, so the first cancellation is passed over; the second ends the wait.

    Raises:
        ShuttingDown: there was a second one; whether it was committed is not known.
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
        "The server is shutting down, and the database has not said whether the request was "
        "carried out; try again with the same Idempotency-Key, or look",
        retry_after=RESTART_SECONDS,
    )


async def answer_once(
    database: Database,
    idempotency: Idempotency,
    act: Callable[[Connection], T],
    reply: Callable[[T], Reply],
    key: IdempotencyKey | None,
    deadline: int | None,
) -> Reply:
    """Act and remember the answer in one commit, or give the answer of the first time.

    Args:
        database: Where it is done.
        idempotency: Remembers.
        act: What is done in the commit.
        reply: Renders the answer.
        key: The client's key, if it gave one.
        deadline: Unix milliseconds after which nothing may be committed.

    Raises:
        Conflict: the first request with the key is still running.
        IdempotencyKeyReused: the key was used with another body.
        RequestTimeout: the deadline passed; nothing was done.
    """

    async def prepare() -> Callable[[Connection], T]:
        return act

    return await prepare_once(database, idempotency, prepare, reply, key, deadline)


async def prepare_once(
    database: Database,
    idempotency: Idempotency,
    prepare: Callable[[], Awaitable[Callable[[Connection], T]]],
    reply: Callable[[T], Reply],
    key: IdempotencyKey | None,
    deadline: int | None,
) -> Reply:
    """Do as `answer_once` does, where something comes before the commit.

    `prepare` returns what is done in the commit. It is not run for a request that was answered,
    and may be run twice if the process ends before the commit.
    """
    async with idempotency.at_work(key):
        answered = await idempotency.answered(key)
        if answered is not None:
            return answered
        act = await prepare()

        def write(connection: Connection) -> Reply:
            answer = reply(act(connection))
            idempotency.remember(connection, key, answer)
            return answer

        try:
            return await outcome(database.write(write, deadline=deadline))
        except AlreadyAnswered:
            rival = await idempotency.answered(key)
            if rival is None:
                raise
            return rival


class Once:
    """Does once, for each idempotency key, what touches nothing but copies in memory.

    There is no commit of the effect to join: the effect comes first, then the answer is remembered.
    A crash in between, or a rival in another process, does it twice, which copies do not mind.
    """

    def __init__(self, database: Database, idempotency: Idempotency) -> None:
        self._database = database
        self._idempotency = idempotency

    async def __call__(self, act: Callable[[], Reply], key: IdempotencyKey | None) -> Reply:
        """Act, or give the answer of the first time; without a key the database is not asked.

        Raises:
            Conflict: the first request with the key is still running.
            IdempotencyKeyReused: the key was used with another body.
        """
        if key is None:
            return act()
        async with self._idempotency.at_work(key):
            answered = await self._idempotency.answered(key)
            if answered is not None:
                return answered
            answer = act()
            with contextlib.suppress(AlreadyAnswered):
                await outcome(
                    self._database.write(partial(self._idempotency.remember, key=key, reply=answer))
                )
            return answer


async def reveal_once(
    database: Database,
    idempotency: Idempotency,
    act: Callable[[Connection], T],
    made_id: str,
    key: IdempotencyKey | None,
    deadline: int | None,
) -> T:
    """Act where the answer shows a secret: what is remembered is the id of what was made.

    Raises:
        Conflict: `IDEMPOTENCY_NOT_REPLAYABLE`, with the id, if it was done before; else as
            `answer_once`.
    """
    trace = Reply(Conflict.status, {}, orjson.dumps({"id": made_id}))

    def write(connection: Connection) -> T:
        idempotency.remember(connection, key, trace)
        return act(connection)

    async with idempotency.at_work(key):
        _refuse_replay(await idempotency.answered(key))
        try:
            return await outcome(database.write(write, deadline=deadline))
        except AlreadyAnswered:
            _refuse_replay(await idempotency.answered(key))
            raise


def _refuse_replay(earlier: Reply | None) -> None:
    if earlier is not None:
        raise Conflict(
            "This request was answered before; the secret in that answer is not shown again",
            code="IDEMPOTENCY_NOT_REPLAYABLE",
            details=orjson.loads(earlier.body),
        )
