# SPDX-License-Identifier: Apache-2.0
"""Promises of transactions, on both stores."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import weakref
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from novitai.errors import RequestTimeout
from novitai.store.engine.database import Database, Dialect
from novitai.store.engine.errors import StoreUnavailable
from novitai.store.tables import installation
from novitai.testing import ManualClock
from tests.store.transactions import Gate, names, put, put_and_fail


async def test_answer(database: Database) -> None:
    """A write returns the result of its function, and the next read sees the change."""
    assert await database.write(put("a")) == "a"
    assert await database.read(names) == ["a"]


async def test_no_result_is_held(database: Database) -> None:
    """A thread that waits for its next transaction does not hold its last result."""

    class Rows(list[int]):
        pass

    held: list[weakref.ref[Rows]] = []

    def rows(_connection: Connection) -> Rows:
        made = Rows([1])
        held.append(weakref.ref(made))
        return made

    for _ in range(8):
        assert await database.read(rows) == [1]
        assert await database.read(rows, snapshot=True) == [1]
        assert await database.write(rows) == [1]
    deadline = time.monotonic() + 60
    while any(one() is not None for one in held):
        assert time.monotonic() < deadline, "a thread holds a result"
        gc.collect()
        await asyncio.sleep(0)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Switch the collector of cyclic garbage off."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
async def test_a_read_that_fails_keeps_nothing(database: Database) -> None:
    """Neither its snapshot, if it fails between two rows, nor what it had in memory."""

    class Sum(list[str]):
        pass

    sums: list[weakref.ref[Sum]] = []

    def fail(connection: Connection) -> None:
        found = Sum()
        sums.append(weakref.ref(found))
        # psycopg warns of a cursor that was left open.
        options = {"yield_per": 1} if database.dialect is Dialect.SQLITE else {}
        rows = connection.execute(select(installation.c.name), execution_options=options)
        for (name,) in rows:
            found.append(name)
            raise LookupError(name)

    await database.write(put("a"))
    await database.write(put("b"))
    for number in range(8):
        for snapshot in (False, True):
            with contextlib.suppress(LookupError):
                await database.read(fail, snapshot=snapshot)
        await database.write(put(f"later {number}"))
        assert len(await database.read(names)) == number + 3
        assert len(await database.read(names, snapshot=True)) == number + 3
    assert len(sums) == 16
    assert [one() for one in sums] == [None] * 16


async def test_rollback(database: Database) -> None:
    """An exception of a function reaches the caller unchanged, and its work is rolled back."""
    with pytest.raises(LookupError, match="a"):
        await database.write(put_and_fail("a"))
    assert await database.read(names) == []


async def test_constraint(database: Database) -> None:
    """A constraint violation reaches the caller as SQLAlchemy's error, without the values."""
    await database.write(put("a"))
    with pytest.raises(IntegrityError) as caught:
        await database.write(put("a", "a secret value"))
    assert "a secret value" not in str(caught.value)


async def test_savepoint(database: Database) -> None:
    """A function may continue after an error inside a savepoint."""

    def fn(connection: Connection) -> None:
        put("a")(connection)
        with pytest.raises(IntegrityError), connection.begin_nested():
            put("a")(connection)
        put("b")(connection)

    await database.write(fn)
    assert await database.read(names) == ["a", "b"]


async def test_together(database: Database) -> None:
    """Failed writes do not affect concurrent ones."""
    outcomes = await asyncio.gather(
        *(database.write(put_and_fail(str(n)) if n % 3 == 0 else put(str(n))) for n in range(50)),
        return_exceptions=True,
    )
    assert [isinstance(outcome, LookupError) for outcome in outcomes] == [
        n % 3 == 0 for n in range(50)
    ]
    assert await database.read(names) == sorted(str(n) for n in range(50) if n % 3)


async def test_no_write_in_a_read(database: Database) -> None:
    """A read that writes fails, with and without a snapshot."""
    for snapshot in (False, True):
        with pytest.raises(DBAPIError, match=r"read-?only"):
            await database.read(put("a"), snapshot=snapshot)
    assert await database.read(names) == []


async def test_snapshot(database: Database, gate: Gate) -> None:
    """A snapshot read does not see changes that are committed while it runs."""

    def twice(connection: Connection) -> tuple[list[str], list[str]]:
        before = names(connection)
        gate(connection)
        return before, names(connection)

    reading = asyncio.create_task(database.read(twice, snapshot=True))
    await asyncio.to_thread(gate.entered.wait)
    await database.write(put("a"))
    gate.open()
    assert await reading == ([], [])


@pytest.mark.parametrize("end", [Connection.commit, Connection.rollback])
async def test_no_commit_inside(database: Database, end: Callable[[Connection], None]) -> None:
    """A function that commits or rolls back fails, and does not affect concurrent writes."""

    def fn(connection: Connection) -> None:
        put("a")(connection)
        end(connection)

    outcomes = await asyncio.gather(
        database.write(put("b")),
        database.write(fn),
        database.write(put("c")),
        return_exceptions=True,
    )
    assert outcomes[0] == "b"
    assert outcomes[2] == "c"
    with pytest.raises(RuntimeError, match="must not commit or roll back"):
        raise outcomes[1]  # type: ignore[misc]  # gather's type includes results
    assert await database.read(names) == ["b", "c"]


async def test_no_open_result(database: Database) -> None:
    """A function that returns an unread result fails at once, not when the result is read."""
    with pytest.raises(TypeError, match="not an open result"):
        await database.read(lambda connection: connection.execute(select(installation)))
    with pytest.raises(TypeError, match="not an open result"):
        await database.read(lambda connection: connection.scalars(select(installation.c.name)))


async def test_stop_iteration(database: Database) -> None:
    """A function that raises StopIteration does not leave its caller waiting."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        await database.write(lambda _: next(iter(())))


async def test_ping(database: Database) -> None:
    """A ping of an open database succeeds; a ping of a closed one says that it is closed."""
    await database.ping()
    await database.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await database.ping()


class TestAfterCommit:
    async def test_order(self, database: Database) -> None:
        """Callbacks run on the event loop, in order, before the caller gets its result."""
        heard: list[object] = []

        def fn(connection: Connection) -> None:
            put("a")(connection)
            database.after_commit(connection, lambda: heard.append("first"))
            database.after_commit(connection, lambda: heard.append(asyncio.get_running_loop()))

        await database.write(fn)
        assert heard == ["first", asyncio.get_running_loop()]

    async def test_rollback(self, database: Database) -> None:
        """The callbacks of a transaction that was rolled back never run."""
        heard: list[str] = []

        def fn(connection: Connection) -> None:
            database.after_commit(connection, lambda: heard.append("never"))
            raise LookupError

        with pytest.raises(LookupError):
            await database.write(fn)
        await database.write(put("a"))
        assert heard == []

    async def test_savepoint(self, database: Database) -> None:
        """The callbacks of a savepoint run only if the savepoint is not rolled back."""
        heard: list[str] = []

        def note(connection: Connection, word: str) -> None:
            database.after_commit(connection, lambda: heard.append(word))

        def fn(connection: Connection) -> None:
            note(connection, "before")
            with contextlib.suppress(LookupError), connection.begin_nested():
                note(connection, "undone")
                with connection.begin_nested():
                    note(connection, "undone with the outer one")
                raise LookupError
            with connection.begin_nested():
                note(connection, "released")
            note(connection, "after")

        await database.write(fn)
        assert heard == ["before", "released", "after"]

    async def test_only_inside_a_write(self, database: Database) -> None:
        """A callback cannot be registered in a read or outside of a transaction function."""
        kept: list[Connection] = []
        with pytest.raises(RuntimeError, match="a read has no commit"):
            await database.read(lambda connection: database.after_commit(connection, print))
        await database.write(kept.append)
        with pytest.raises(RuntimeError, match="of a running transaction function"):
            database.after_commit(kept[0], print)

    async def test_failing_callback(self, database: Database) -> None:
        """If a callback fails, the result and the other callbacks are still delivered."""
        heard: list[str] = []
        told: list[dict[str, object]] = []
        missing: dict[str, object] = {}
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

        def fn(connection: Connection) -> str:
            database.after_commit(connection, lambda: missing["callback"])
            database.after_commit(connection, lambda: heard.append("heard"))
            return "answer"

        assert await database.write(fn) == "answer"
        assert heard == ["heard"]
        assert isinstance(told[0]["exception"], KeyError)


class TestDeadline:
    async def test_in_time(self, database: Database, clock: ManualClock) -> None:
        """A write that commits exactly at its deadline is stored."""
        assert await database.write(put("a"), deadline=clock.now()) == "a"

    async def test_before(self, database: Database, clock: ManualClock) -> None:
        """A write whose deadline has passed is not begun."""
        begun: list[Connection] = []
        with pytest.raises(RequestTimeout):
            await database.write(begun.append, deadline=clock.now() - 1)
        assert begun == []

    async def test_during(self, database: Database, clock: ManualClock, gate: Gate) -> None:
        """If the deadline passes while the function runs, its work and callbacks are undone."""
        heard: list[str] = []

        def fn(connection: Connection) -> None:
            put("late")(connection)
            database.after_commit(connection, lambda: heard.append("never"))
            gate(connection)

        writing = asyncio.create_task(database.write(fn, deadline=clock.now() + 1000))
        await asyncio.to_thread(gate.entered.wait)
        await clock.advance(1.001)
        gate.open()
        with pytest.raises(RequestTimeout):
            await writing
        assert await database.read(names) == []
        assert heard == []


class TestCancellation:
    async def test_running(self, database: Database, gate: Gate) -> None:
        """A cancelled write that has begun is committed, and its callbacks run."""
        committed = asyncio.Event()

        def fn(connection: Connection) -> None:
            gate(connection)
            put("a")(connection)
            database.after_commit(connection, committed.set)

        writing = asyncio.create_task(database.write(fn))
        await asyncio.to_thread(gate.entered.wait)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        gate.open()
        await committed.wait()
        assert await database.read(names) == ["a"]

    async def test_queued(self, database: Database, gate: Gate) -> None:
        """A cancelled write that waits for a thread is dropped."""
        gates = [gate, *(Gate() for _ in range(3))]
        holding = [asyncio.create_task(database.write(each)) for each in gates]
        await asyncio.to_thread(gate.entered.wait)
        if database.dialect == "postgresql":
            await asyncio.gather(*(asyncio.to_thread(each.entered.wait) for each in gates))
        queued = asyncio.create_task(database.write(put("never")))
        await asyncio.sleep(0)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        for each in gates:
            each.open()
        await asyncio.gather(*holding)
        await database.write(put("after"))
        assert await database.read(names) == ["after"]


async def test_close(database: Database, gate: Gate) -> None:
    """Closing finishes accepted jobs, refuses later ones, and is idempotent."""
    accepted = [asyncio.create_task(database.write(fn)) for fn in (gate, put("a"), put("b"))]
    await asyncio.to_thread(gate.entered.wait)
    closing = asyncio.create_task(database.close())
    for _ in range(10_000):  # until the closing thread has set the flag
        if database._writers._closed:
            break
        await asyncio.sleep(0.001)
    with pytest.raises(StoreUnavailable, match="closed"):
        await database.write(put("too late"))
    gate.open()
    await closing
    assert await asyncio.gather(*accepted) == [None, "a", "b"]
    await database.close()


STEPS = st.lists(
    st.lists(st.tuples(st.sampled_from(["put", "drop"]), st.integers(0, 5), st.booleans())),
    max_size=6,
)


@given(rounds=STEPS)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_model(database: Database, rounds: list[list[tuple[str, int, bool]]]) -> None:
    """For any mixture of concurrent writes, exactly the acknowledged ones are stored."""

    def empty(connection: Connection) -> None:
        connection.execute(delete(installation))

    await database.write(empty)

    def step(kind: str, key: int, fails: bool) -> Callable[[Connection], int]:
        def fn(connection: Connection) -> int:
            where = installation.c.name == str(key)
            if kind == "put":
                connection.execute(insert(installation).values(name=str(key), value=""))
                changed = 1
            else:
                changed = -connection.execute(delete(installation).where(where)).rowcount
            if fails:
                raise LookupError
            return changed

        return fn

    stored = 0
    for steps in rounds:
        outcomes = await asyncio.gather(
            *(database.write(step(*each)) for each in steps), return_exceptions=True
        )
        for (_, _, fails), outcome in zip(steps, outcomes, strict=True):
            if isinstance(outcome, int):
                assert not fails
                stored += outcome
            else:
                assert isinstance(outcome, LookupError if fails else IntegrityError) or (
                    fails and isinstance(outcome, IntegrityError)
                )
        assert len(await database.read(names)) == stored


async def test_errors_of_sql(database: Database) -> None:
    """An invalid statement reaches the caller as SQLAlchemy's error."""
    with pytest.raises(DBAPIError, match="nonsense"):
        await database.read(lambda connection: connection.scalar(text("SELECT nonsense")))
