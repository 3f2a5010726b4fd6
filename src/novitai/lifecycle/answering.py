# SPDX-License-Identifier: Apache-2.0
"""Doing something once for one `Idempotency-Key`, and giving the same answer ever after."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import orjson
from sqlalchemy import Connection

from novitai.errors import Conflict
from novitai.lifecycle.idempotency import AlreadyAnswered, Idempotency, IdempotencyKey, Reply
from novitai.store.database import Database

T = TypeVar("T")


async def answer_once(
    database: Database,
    idempotency: Idempotency,
    act: Callable[[Connection], T],
    reply: Callable[[T], Reply],
    key: IdempotencyKey | None,
    deadline: int | None,
) -> Reply:
    """Act and remember the answer in one commit, or give the answer of the first time.

    Raises:
        Conflict: the first request with the key is still running.
        IdempotencyKeyReused: the key was used with another body.
        RequestTimeout: the deadline passed; nothing was done.
    """

    def write(connection: Connection) -> Reply:
        answer = reply(act(connection))
        idempotency.remember(connection, key, answer)
        return answer

    async with idempotency.at_work(key):
        answered = await idempotency.answered(key)
        if answered is not None:
            return answered
        try:
            return await database.write(write, deadline=deadline)
        except AlreadyAnswered:
            rival = await idempotency.answered(key)
            if rival is None:
                raise
            return rival


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
            return await database.write(write, deadline=deadline)
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
