# SPDX-License-Identifier: Apache-2.0
"""Idempotency keys: the same answer to the same request, decided by the commit of its effect."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.errors import Conflict, IdempotencyKeyReused, NovitaiError
from novitai.store.engine.database import Database
from novitai.store.queries import idempotency_keys
from novitai.store.queries.idempotency_keys import Remembered

KEPT_FOR: Final = 24 * 3600 * 1000
"""How long an answer is remembered, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as bytes, so that it can be given again word for word."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """What a client's `Idempotency-Key` is bound to: API key, route and body."""

    api_key_id: str
    route: str
    key: str
    body_digest: str


class AlreadyAnswered(NovitaiError):
    """Somebody else committed the same key first: roll back, and give their answer."""


class Idempotency:
    """Remembers answers, and knows which keys are at work in this process."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._at_work: set[tuple[str, str, str]] = set()

    @asynccontextmanager
    async def at_work(self, key: IdempotencyKey | None) -> AsyncIterator[None]:
        """Mark a key as being worked on.

        Raises:
            Conflict: `IDEMPOTENCY_IN_PROGRESS`: the first request with it is still running.
        """
        if key is None:
            yield
            return
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

    async def answered(self, key: IdempotencyKey | None) -> Reply | None:
        """Find the answer given before; None if there is none.

        Raises:
            IdempotencyKeyReused: it was given to another body.
        """
        if key is None:
            return None
        found = await self._database.read(lambda connection: self._find(connection, key))
        if found is None:
            return None
        if found.body_digest != key.body_digest:
            raise IdempotencyKeyReused(
                "This Idempotency-Key was used before with another request body"
            )
        return Reply(found.status, found.headers, found.body, replayed=True)

    def remember(self, connection: Connection, key: IdempotencyKey | None, reply: Reply) -> None:
        """Store the answer in the transaction of its effect.

        Raises:
            AlreadyAnswered: a rival committed first.
        """
        if key is None:
            return
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
