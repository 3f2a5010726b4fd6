# SPDX-License-Identifier: Apache-2.0
"""Commands are carried out once per idempotency key."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection

from novitai.errors import Conflict, NotFound
from novitai.lifecycle.commands.idempotency import (
    Command,
    Commands,
    Completed,
    IdempotencyKey,
    Reply,
    Transaction,
)
from novitai.store.engine.database import Database
from novitai.testing import ManualClock

KEY = IdempotencyKey("key_1", "DELETE /api/webhooks/x", "abc", "digest-1")


def plain(text: str) -> Reply:
    """Render a text."""
    return Reply(200, {}, text.encode())


async def test_a_refusal_for_what_a_rival_did_gives_the_rivals_answer(
    database: Database, clock: ManualClock
) -> None:
    """A command refused because another process ran the same key repeats that process's answer."""
    rival = Commands(database, clock)

    async def lose(_deadline: int | None) -> Transaction[str]:
        await rival.run(lambda _connection: "removed", plain, key=KEY)

        def act(_connection: Connection) -> str:
            raise NotFound("There is no such object any more")

        return act

    answer = await Commands(database, clock).run(Command(lose), plain, key=KEY)
    assert (answer.body, answer.replayed) == (b"removed", True)


async def test_a_refusal_before_the_transaction_gives_the_rivals_answer_too(
    database: Database, clock: ManualClock
) -> None:
    """This holds for a command that is refused while it is prepared, such as an expired quote."""
    rival = Commands(database, clock)

    async def lose(_deadline: int | None) -> Transaction[str]:
        await rival.run(lambda _connection: "created", plain, key=KEY)
        raise Conflict("expired")

    answer = await Commands(database, clock).run(Command(lose), plain, key=KEY)
    assert (answer.body, answer.replayed) == (b"created", True)
    with pytest.raises(Conflict, match="expired"):
        await Commands(database, clock).run(Command(lose), plain)


async def test_a_refusal_is_not_remembered(database: Database, clock: ManualClock) -> None:
    """A refusal is not stored, so a later request with the same key carries the command out."""

    def refuse(_connection: Connection) -> str:
        raise Conflict("not now")

    commands = Commands(database, clock)
    with pytest.raises(Conflict, match="not now"):
        await commands.run(refuse, plain, key=KEY)
    answer = await commands.run(lambda _connection: "done", plain, key=KEY)
    assert (answer.body, answer.replayed) == (b"done", False)


async def test_an_effect_outside_of_the_database_is_answered_after_the_deadline_too(
    database: Database, clock: ManualClock
) -> None:
    """A completed change is answered even after the deadline, with and without a key."""

    async def prepare(_deadline: int | None) -> Completed[str]:
        return Completed("sent")

    commands = Commands(database, clock)
    for replayed in (False, True):
        answer = await commands.run(Command(prepare), plain, key=KEY, deadline=clock.now() - 1)
        assert (answer.body, answer.replayed) == (b"sent", replayed)
    assert (await commands.run(Command(prepare), plain, deadline=clock.now() - 1)).body == b"sent"
