# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ASYNC221, ASYNC240 - nothing else runs on these loops
"""No write is acknowledged after the database's files are gone, replaced or damaged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from novitai.errors import StartupError
from novitai.store.engine import sqlite_file, sqlite_keeper
from novitai.store.engine.errors import CommitUnknown, StorageFull, StoreCorrupt
from novitai.store.engine.file_lock import FileLock
from novitai.store.engine.file_watch import FileWatch
from novitai.store.engine.sqlite import SqliteDatabase
from novitai.store.opening import open_database
from novitai.testing import ManualClock
from tests.store.transactions import names, other_program, put

CLOCK = ManualClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of `database`."""
    return tmp_path / "data" / "novitai.db"


@pytest.fixture
async def database(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteDatabase]:
    """An open database with one row, whose keeper checks the files only when a test calls it."""
    monkeypatch.setattr(sqlite_keeper, "LOOK_EVERY", 3600.0)
    opened = await open_database(f"sqlite:///{path}", CLOCK)
    assert isinstance(opened, SqliteDatabase)
    await opened.write(put("before", "x" * 50_000))
    yield opened
    await opened.close()


def log_of(path: Path) -> Path:
    """The write-ahead log."""
    return path.with_name(path.name + "-wal")


def index_of(path: Path) -> Path:
    """The log's index."""
    return path.with_name(path.name + "-shm")


def delete(path: Path) -> None:
    """The database is deleted."""
    path.unlink()


def delete_log(path: Path) -> None:
    """The log is deleted."""
    log_of(path).unlink()


def delete_index(path: Path) -> None:
    """The log's index is deleted."""
    index_of(path).unlink()


def delete_folder(path: Path) -> None:
    """The whole folder is deleted."""
    shutil.rmtree(path.parent)


def empty(path: Path) -> None:
    """The database is truncated to zero bytes."""
    os.truncate(path, 0)


def halve(path: Path) -> None:
    """The database is truncated to half its size."""
    os.truncate(path, path.stat().st_size // 8192 * 4096)


def rename_over(path: Path) -> None:
    """A copy of the database is renamed over it."""
    copy = path.with_name("backup.db")
    shutil.copyfile(path, copy)
    copy.replace(path)


def copy_older_over(path: Path) -> None:
    """Overwrite the content with that before this start, as `cp backup.db novitai.db` does."""
    older = path.with_name("older.db")
    with contextlib.closing(sqlite3.connect(older)) as connection:
        connection.execute("CREATE TABLE t (v)").close()
        connection.execute("INSERT INTO t VALUES (zeroblob(500000))").close()
        connection.commit()
    path.write_bytes(older.read_bytes())


def replace_log(path: Path) -> None:
    """A copy of the log replaces it."""
    log = log_of(path)
    copy = log.with_name("copy")
    shutil.copyfile(log, copy)
    copy.replace(log)


def cut_log(path: Path) -> None:
    """The log is truncated to zero bytes."""
    os.truncate(log_of(path), 0)


WAYS = (
    delete,
    delete_log,
    delete_index,
    delete_folder,
    empty,
    halve,
    rename_over,
    copy_older_over,
    replace_log,
    cut_log,
)


@pytest.mark.parametrize("way", WAYS)
async def test_a_write_is_refused_as_soon_as_the_files_are_lost(
    database: SqliteDatabase, path: Path, way: Callable[[Path], None]
) -> None:
    """After the loss, writes and reads are refused, and one log line says what to do."""
    with capture_logs() as logged:
        way(path)
        # The first write was committed, but to files that are gone.
        for name, expected in (("a", (CommitUnknown, StoreCorrupt)), ("b", (StoreCorrupt,))):
            with pytest.raises(expected):
                await database.write(put(name))
        with pytest.raises(StoreCorrupt):
            await database.read(names)
        with pytest.raises(StoreCorrupt):
            await database.ping()
    lines = [line for line in logged if line["event"] == "store_lost"]
    assert [line["log_level"] for line in lines] == ["critical"]
    rescued = way in {delete_log, delete_index, replace_log}
    told = "All that was acknowledged has been written" if rescued else "restore the database file"
    assert told in lines[0]["action"]


@pytest.mark.parametrize("way", [way for way in WAYS if way is not cut_log])
async def test_a_ping_tells_it_before_anything_is_written(
    database: SqliteDatabase, path: Path, way: Callable[[Path], None]
) -> None:
    """A ping checks the files, even if no write has noticed the loss."""
    await database.ping()
    way(path)
    with pytest.raises(StoreCorrupt):
        await database.ping()


async def test_files_are_looked_at_while_nothing_is_asked(
    database: SqliteDatabase, path: Path
) -> None:
    """The check of each second notices the loss, and later calls are refused."""
    path.unlink()
    database._keeper.look()
    with pytest.raises(StoreCorrupt):
        await database.read(names)


async def test_damage_met_by_a_reader_ends_writing_too(
    database: SqliteDatabase, path: Path
) -> None:
    """After a read has found the file damaged, no write is acknowledged."""
    with other_program(path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(4096) * 20)
    with pytest.raises(StoreCorrupt):
        await database.read(names)
    with pytest.raises(StoreCorrupt):
        await database.write(lambda _: None)


@pytest.mark.parametrize("way", [delete_log, delete_index, replace_log])
async def test_what_was_acknowledged_is_saved_from_a_lost_log(
    database: SqliteDatabase, path: Path, tmp_path: Path, way: Callable[[Path], None]
) -> None:
    """When the loss of the log is noticed, acknowledged data is written to the database file."""
    for number in range(200):
        await database.write(put(f"{number}"))
    way(path)
    with pytest.raises(StoreCorrupt):
        await database.ping()
    copy = tmp_path / "copy.db"
    shutil.copyfile(path, copy)
    with other_program(copy) as other:
        # And the two rows that the migration and the ping have written.
        assert other.execute("SELECT count(*) FROM installation").fetchall() == [(202,)]


@pytest.mark.parametrize("way", [delete, delete_log, copy_older_over])
async def test_a_lost_store_leaves_alone_what_was_put_in_its_place(
    database: SqliteDatabase, path: Path, way: Callable[[Path], None]
) -> None:
    """Closing a lost store removes neither the restored file nor its log."""
    way(path)
    with pytest.raises(StoreCorrupt):
        await database.ping()
    database_before = path.read_bytes() if path.exists() else b"a restored database"
    path.write_bytes(database_before)
    log_of(path).unlink(missing_ok=True)
    log_of(path).write_bytes(b"and its log")
    await database.close()
    assert (path.read_bytes(), log_of(path).read_bytes()) == (database_before, b"and its log")


async def test_what_others_may_do_to_a_database_does_not_end_it(
    database: SqliteDatabase, path: Path
) -> None:
    """Writes, checkpoints, VACUUM and copies by other programs, and chmod, are not a loss."""
    with other_program(path) as other:
        other.execute("INSERT INTO installation VALUES ('theirs', zeroblob(900000))").close()
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        await database.write(put("a"))
        other.execute("DELETE FROM installation WHERE name = 'theirs'").close()
        other.execute("VACUUM").close()
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    subprocess.run(
        [sys.executable, "-c", "import sqlite3, sys; sqlite3.connect(sys.argv[1]).close()", path],
        check=True,
    )
    path.chmod(0o644)
    database._keeper.look()
    await database.write(put("b"))
    await database.ping()
    assert await database.read(names) == ["a", "b", "before"]


async def test_files_that_cannot_be_looked_at_leave_the_commit_unknown(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the files cannot be checked, the commit is unknown, and the next write may succeed."""

    def fail() -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(database._file.watch, "finding", fail)
        with pytest.raises(CommitUnknown):
            await database.write(put("a"))
    assert await database.write(put("b")) == "b"


@pytest.mark.parametrize("lose", [delete, lambda path: os.truncate(path, 0)])
async def test_the_log_of_a_lost_database_is_refused_and_kept(
    database: SqliteDatabase, path: Path, lose: Callable[[Path], None]
) -> None:
    """A start does not create an empty database beside a log that may still be readable."""
    lose(path)
    await database.close()
    log = log_of(path)
    assert log.stat().st_size > 0
    before = log.read_bytes()

    with pytest.raises(StartupError, match=r"empty, but its log novitai\.db-wal exists") as caught:
        await open_database(f"sqlite:///{path}", CLOCK)

    assert caught.value.exit_code == 74
    assert log.read_bytes() == before

    log.rename(log.with_suffix(".kept"))
    await (await open_database(f"sqlite:///{path}", CLOCK)).close()


async def test_a_quiet_database_is_whole_without_its_log(
    database: SqliteDatabase, path: Path, tmp_path: Path
) -> None:
    """A second after a few writes, the database file holds all data and the log is empty."""
    assert log_of(path).stat().st_size > 0
    database._keeper.look()
    assert log_of(path).stat().st_size == 0
    copy = tmp_path / "copy.db"
    shutil.copyfile(path, copy)
    with other_program(copy) as other:
        found = other.execute("SELECT name FROM installation").fetchall()
        assert set(found) == {("before",), ("schema",)}


async def test_a_busy_database_is_left_in_peace(database: SqliteDatabase, path: Path) -> None:
    """The log is checkpointed only in a second with few writes."""
    for number in range(sqlite_keeper.QUIET_COMMITS + 1):
        await database.write(put(str(number)))
    database._keeper.look()
    assert log_of(path).stat().st_size > 0
    database._keeper.look()
    assert log_of(path).stat().st_size == 0


async def test_a_reader_in_the_way_only_postpones_the_write_back(
    database: SqliteDatabase, path: Path
) -> None:
    """A long read by another program delays the checkpoint until it ends."""
    with other_program(path) as other:
        other.execute("BEGIN").close()
        other.execute("SELECT count(*) FROM installation").fetchall()
        await database.write(put("a"))
        for _ in range(3):
            database._keeper.look()
        assert log_of(path).stat().st_size > 0
    database._keeper.look()
    assert log_of(path).stat().st_size == 0


async def test_a_nearly_full_disk_is_told_by_a_ping(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ping fails when less space is left than one group of writes needs."""
    monkeypatch.setattr(sqlite_file, "ROOM_BYTES", 1 << 60)
    with pytest.raises(StorageFull):
        await database.ping()


class TestLock:
    async def test_the_database_itself_is_locked(
        self, database: SqliteDatabase, path: Path
    ) -> None:
        """If the lock file was deleted, a second process is refused with the holder's PID."""
        path.with_name("novitai.db.lock").unlink()
        code = (
            "import asyncio, sys\n"
            "from novitai.clock import SystemClock\n"
            "from novitai.store.opening import open_database\n"
            "asyncio.run(open_database(sys.argv[1], SystemClock()))\n"
        )
        second = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", code, f"sqlite:///{path}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"in use by another process (pid {os.getpid()}, whose lock file" in second.stderr
        await database.write(put("a"))

    async def test_a_deleted_lock_file_is_made_again(
        self, database: SqliteDatabase, path: Path
    ) -> None:
        """A deleted lock file is recreated, so that a second process sees the holder."""
        path.with_name("novitai.db.lock").unlink()
        with capture_logs() as logged:
            database._keeper.look()
            database._keeper.look()
        assert [line["event"] for line in logged] == ["lock_file_made_again"]
        with pytest.raises(StartupError, match=f"pid {os.getpid()}, "):
            FileLock(path.with_name("novitai.db.lock"), CLOCK).acquire()

    async def test_a_lock_file_of_another_is_left_alone(
        self, database: SqliteDatabase, path: Path
    ) -> None:
        """A lock file that another process holds for a moment is not replaced."""
        lock = path.with_name("novitai.db.lock")
        lock.unlink()
        other = FileLock(lock, CLOCK)
        other.acquire()
        with capture_logs() as logged:
            database._keeper.look()
        assert logged[0]["event"] == "lock_file_lost"
        other.release()
        with capture_logs() as logged:
            database._keeper.look()
        assert logged[0]["event"] == "lock_file_made_again"


KILLED = """
import asyncio, json, os, sys
from novitai.clock import SystemClock
from novitai.store.opening import open_database
from tests.store.transactions import put

async def main():
    database = await open_database(sys.argv[1], SystemClock())
    number = 0
    while True:
        try:
            await database.write(put(f"{number:06}"))
        except Exception as error:  # report any refusal
            print(json.dumps({"refused": type(error).__name__}), flush=True)
            await asyncio.sleep(60)
        print(json.dumps({"acknowledged": number}), flush=True)
        number += 1

asyncio.run(main())
"""


def test_what_was_acknowledged_before_the_log_was_deleted_is_there(tmp_path: Path) -> None:
    """All acknowledged writes survive a deleted log, a refused write and kill -9."""
    path = tmp_path / "novitai.db"
    script = tmp_path / "writer.py"
    script.write_text(KILLED.replace("number += 1", "number += 1\n        input()"))
    with subprocess.Popen(
        [sys.executable, str(script), f"sqlite:///{path}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert json.loads(child.stdout.readline()) == {"acknowledged": 0}
        while log_of(path).stat().st_size:
            assert child.poll() is None
        log_of(path).unlink()
        child.stdin.write("\n")
        child.stdin.flush()
        answers = (line for line in child.stdout if line.startswith("{"))  # the rest is the log
        assert json.loads(next(answers)) == {"refused": "CommitUnknown"}
        child.kill()
    with contextlib.closing(sqlite3.connect(path)) as after:
        assert ("000000",) in after.execute("SELECT name FROM installation").fetchall()


def page_count(pages: int) -> bytes:
    """Return the number of pages as a header states it."""
    return pages.to_bytes(4, "big")


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[FileWatch, int, int]]:
    """A watched database with a log; yield it with descriptors of the database and of the log."""
    path = tmp_path / "watched.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL").close()
        connection.execute("CREATE TABLE t (v)").close()
        database, log = os.open(path, os.O_RDWR), os.open(log_of(path), os.O_RDWR)
        watch = FileWatch(path, database)
        watch.begin()
        assert watch.finding() is None
        yield watch, database, log
        watch.close()
        os.close(log)
        os.close(database)


def once_before_reading(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Have `act` done when a file is read next, as if this thread were interrupted there."""
    read, acted = os.pread, set[int]()

    def interrupted(file: int, length: int, at: int) -> bytes:
        if file not in acted:
            acted.add(file)
            act(file)
        return read(file, length, at)

    monkeypatch.setattr(os, "pread", interrupted)


def test_a_log_that_is_written_back_meanwhile_is_no_loss(
    watched: tuple[FileWatch, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint in another thread empties the log after its size was read."""
    watch, _, log = watched
    assert os.fstat(log).st_size > 32

    def write_back(file: int) -> None:
        if file == watch._log:
            os.truncate(log, 0)

    once_before_reading(monkeypatch, write_back)
    assert watch.finding() is None


def test_a_database_that_grows_meanwhile_is_no_loss(
    watched: tuple[FileWatch, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint in another thread makes the file longer than it was when its size was read."""
    watch, database, _ = watched
    size = os.fstat(database).st_size

    def grow(file: int) -> None:
        if os.fstat(file).st_size == size and file == watch._descriptor:
            os.truncate(database, size + 4096)
            os.pwrite(database, page_count(size // 4096 + 1), 28)
            watch._size = size + 4096  # as the other thread notes it

    once_before_reading(monkeypatch, grow)
    assert watch.finding() is None
