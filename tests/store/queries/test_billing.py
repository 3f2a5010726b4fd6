# SPDX-License-Identifier: Apache-2.0
"""Tests of the spans of an interval, on both stores."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, delete

from novitai.domain.billing import HOUR_MS, LedgerSpan, SpanKind
from novitai.domain.billing_book import BillingState, Book
from novitai.store.engine.database import Database
from novitai.store.queries import billing, instances
from novitai.store.tables import billing_spans
from novitai.testing import an_instance

NOW = 1_000 * HOUR_MS


def spans(began: int, count: int) -> tuple[LedgerSpan, ...]:
    """Return so many spans of a minute each."""
    begins = [began + number * 60_000 for number in range(count)]
    return tuple(LedgerSpan(SpanKind.GPU, 24_000, at, at, at + 1, at + 1) for at in begins)


async def test_the_spans_of_an_interval(database: Database) -> None:
    """All of several batches are given; one that leaves early keeps neither cursor nor snapshot."""
    one = an_instance()
    state = BillingState(one.id, "up-0", since=0, known_at=NOW, word="running")
    given = spans(0, 3 * billing._BATCH)

    def write(connection: Connection) -> None:
        instances.insert(connection, one, b"sealed")
        billing.save(connection, [(None, Book(state, given))])

    def begins(connection: Connection) -> list[int]:
        with billing.between(connection, 0, NOW) as found:
            return [each.span.began_after for each in found]

    def leave(connection: Connection) -> None:
        with billing.between(connection, 0, NOW) as found:
            raise LookupError(next(found).instance_id)

    def remove(connection: Connection) -> None:
        connection.execute(delete(billing_spans))

    await database.write(write)
    assert await database.read(begins, snapshot=True) == [span.began_after for span in given]
    for _ in range(8):
        with pytest.raises(LookupError, match=one.id):
            await database.read(leave, snapshot=True)
    await database.write(remove)
    for _ in range(8):
        assert await database.read(begins, snapshot=True) == []
