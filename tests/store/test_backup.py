# SPDX-License-Identifier: Apache-2.0
"""Backups of the embedded database, and what a restore keeps, refuses and marks."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.command import downgrade

from novitai.errors import StartupError, WrongSecretKey
from novitai.settings import Settings
from novitai.store import backup, migrate
from novitai.store.backup import back_up, key_file_of, restore
from novitai.store.engine.sqlite_file import url_of
from novitai.store.opening import open_database
from novitai.store.queries import account
from novitai.store.vault import SECRET_CHECK, SECRET_FILE, Vault, write_secret
from novitai.testing import ManualClock
from tests.store.transactions import names, put

CLOCK = ManualClock()
KEY, OTHER = b"k" * 40, b"o" * 40


async def make(folder: Path, *rows: str, key: bytes = KEY) -> Path:
    """Make a database with some rows and its secret key."""
    file = folder / "novitai.db"
    database = await open_database(url_of(file), CLOCK)
    for row in rows:
        await database.write(put(row))
    await database.write(put(SECRET_CHECK, Vault(key).seal(SECRET_CHECK, b"").hex()))
    await database.close()
    write_secret(folder / SECRET_FILE, key)
    return file


async def rows_of(file: Path) -> list[str]:
    """Return the names of the rows of a database."""
    database = await open_database(url_of(file), CLOCK)
    found = await database.read(names)
    await database.close()
    return [one for one in found if len(one) == 1]


def drafts(folder: Path) -> list[Path]:
    """Return what an unfinished command would leave in a folder."""
    return [one for one in folder.iterdir() if one.name.startswith(".")]


def put_back(copy: Path, file: Path, configured: bytes | None = None) -> backup.Restored:
    """Restore a copy."""
    return restore(copy, file, file.parent, CLOCK, configured=configured)


async def test_a_backup_of_a_database_in_use(tmp_path: Path) -> None:
    """The copy has what was committed before, is one file of mode 0600, and has its key beside."""
    database = await open_database(url_of(tmp_path / "novitai.db"), CLOCK)
    await database.write(put("a"))
    copy = tmp_path / "copies" / "one.db"
    copy.parent.mkdir()
    made = back_up(tmp_path / "novitai.db", copy, None)
    await database.write(put("b"))
    await database.close()
    assert (made.instances, made.key_file) == (0, None)
    assert made.size == copy.stat().st_size
    assert [one.name for one in copy.parent.iterdir()] == ["one.db"]
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert ("a",) in connection.execute("SELECT name FROM installation").fetchall()
        assert ("b",) not in connection.execute("SELECT name FROM installation").fetchall()


async def test_a_backup_after_a_crash(tmp_path: Path) -> None:
    """The copy has the commits that a killed server left in its log."""
    file = await make(tmp_path)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("INSERT INTO installation VALUES ('c', '')")
        connection.commit()
        crashed = tmp_path / "crashed"
        crashed.mkdir()
        for name in ("novitai.db", "novitai.db-wal"):
            (crashed / name).write_bytes((tmp_path / name).read_bytes())
    assert (crashed / "novitai.db-wal").stat().st_size > 0
    back_up(crashed / "novitai.db", tmp_path / "copy.db", KEY)
    assert await rows_of(tmp_path / "copy.db") == ["c"]


async def test_the_key_beside_a_backup(tmp_path: Path) -> None:
    """The key goes beside the copy with mode 0600; a key of another database is refused."""
    file = await make(tmp_path)
    copy = tmp_path / "copy.db"
    with pytest.raises(WrongSecretKey, match="not the one that this database was made with"):
        back_up(file, copy, OTHER)
    assert not copy.exists()
    made = back_up(file, copy, KEY)
    assert made.key_file == key_file_of(copy) == tmp_path / "copy.db.secret.key"
    assert made.key_file.read_bytes().strip() == KEY
    assert made.key_file.stat().st_mode & 0o777 == 0o600


async def test_a_backup_replaces_nothing(tmp_path: Path) -> None:
    """A file of that name is left as it is, and so is a key."""
    file = await make(tmp_path)
    copy = tmp_path / "copy.db"
    copy.write_text("mine")
    with pytest.raises(StartupError, match="exists already"):
        back_up(file, copy, KEY)
    assert copy.read_text() == "mine"
    copy.unlink()
    key_file_of(copy).write_text("mine")
    with pytest.raises(StartupError, match="exists already"):
        back_up(file, copy, KEY)
    assert key_file_of(copy).read_text() == "mine"
    assert drafts(tmp_path) == []


async def test_a_backup_that_cannot_be_written(tmp_path: Path) -> None:
    """The message names the file; a missing database is not made."""
    file = await make(tmp_path)
    with pytest.raises(StartupError, match=r"no/copy.db: the backup cannot be written: No such"):
        back_up(file, tmp_path / "no" / "copy.db", KEY)
    with pytest.raises(StartupError, match="there is no database"):
        back_up(tmp_path / "none.db", tmp_path / "copy.db", KEY)
    assert not (tmp_path / "none.db").exists()


async def test_a_damaged_database_gives_no_backup(tmp_path: Path) -> None:
    """A copy that would be of no use is not kept."""
    file = await make(tmp_path)
    content = bytearray(file.read_bytes())
    content[4096 * 3 : 4096 * 5] = os.urandom(4096 * 2)
    file.write_bytes(content)
    with pytest.raises(StartupError, match="damaged"):
        back_up(file, tmp_path / "copy.db", KEY)
    assert not (tmp_path / "copy.db").exists()


async def test_a_restore_keeps_and_marks(tmp_path: Path) -> None:
    """The restored database is marked, and the files that were there are kept."""
    file = await make(tmp_path, "a")
    copy = tmp_path / "copy.db"
    back_up(file, copy, KEY)
    before = copy.read_bytes()
    database = await open_database(url_of(file), CLOCK)
    await database.write(put("b"))
    await database.close()

    restored = put_back(copy, file)
    assert (restored.file, restored.key_replaced) == (file, False)
    assert await rows_of(file) == ["a"]
    assert copy.read_bytes() == before
    (kept,) = restored.kept
    assert await rows_of(kept) == ["a", "b"]
    database = await open_database(url_of(file), CLOCK)
    state = await database.read(account.load_state)
    await database.close()
    assert state.blocked
    assert (state.restored_at, state.restored_told) == (CLOCK.now(), False)
    assert file.stat().st_mode & 0o777 == 0o600
    assert drafts(tmp_path) == []


async def test_a_restore_into_an_empty_folder(tmp_path: Path) -> None:
    """On another machine the key beside the backup is installed with it."""
    (tmp_path / "old").mkdir()
    copy = tmp_path / "copy.db"
    back_up(await make(tmp_path / "old", "a"), copy, KEY)
    restored = put_back(copy, tmp_path / "new" / "novitai.db")
    assert (restored.key_replaced, list(restored.kept)) == (True, [])
    assert (tmp_path / "new" / SECRET_FILE).read_bytes().strip() == KEY
    assert await rows_of(restored.file) == ["a"]


async def test_a_restore_with_another_key(tmp_path: Path) -> None:
    """The key of the backup replaces one that does not open it, which is kept."""
    for name, key in (("old", KEY), ("new", OTHER)):
        (tmp_path / name).mkdir()
        await make(tmp_path / name, name[0], key=key)
    copy = tmp_path / "copy.db"
    back_up(tmp_path / "old" / "novitai.db", copy, KEY)
    restored = put_back(copy, tmp_path / "new" / "novitai.db")
    assert restored.key_replaced
    assert (tmp_path / "new" / SECRET_FILE).read_bytes().strip() == KEY
    kept = [one for one in restored.kept if SECRET_FILE in one.name]
    assert [one.read_bytes().strip() for one in kept] == [OTHER]
    assert kept[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("configured", [None, OTHER])
async def test_a_restore_without_the_key_changes_nothing(
    tmp_path: Path, configured: bytes | None
) -> None:
    """Without a key that opens the backup, the present files stay as they are."""
    (tmp_path / "old").mkdir()
    copy = tmp_path / "copy.db"
    back_up(await make(tmp_path / "old", "a"), copy, None)
    file = await make(tmp_path, "b", key=OTHER)
    with pytest.raises(WrongSecretKey, match=r"copy.db: the secret key is not the one"):
        put_back(copy, file, configured)
    assert await rows_of(file) == ["b"]
    assert (tmp_path / SECRET_FILE).read_bytes().strip() == OTHER
    (tmp_path / SECRET_FILE).unlink()
    with pytest.raises(StartupError, match="secret key"):
        put_back(copy, file, configured)


async def test_a_restore_over_a_damaged_database(tmp_path: Path) -> None:
    """That is what backups are for: the damaged file and its log are kept beside."""
    file = await make(tmp_path, "a")
    copy = tmp_path / "copy.db"
    back_up(file, copy, KEY)
    file.write_bytes(b"no database" * 1000)
    file.with_name("novitai.db-wal").write_bytes(b"no log")
    restored = put_back(copy, file)
    assert await rows_of(file) == ["a"]
    assert {one.name[-4:] for one in restored.kept} >= {"-wal"}
    assert restored.kept[0].read_bytes().startswith(b"no database")


async def test_a_restore_while_a_server_runs(tmp_path: Path) -> None:
    """It is refused, and the server goes on."""
    file = await make(tmp_path, "a")
    copy = tmp_path / "copy.db"
    back_up(file, copy, KEY)
    database = await open_database(url_of(file), CLOCK)
    with pytest.raises(StartupError, match="in use by another process"):
        put_back(copy, file)
    file.with_name("novitai.db.lock").unlink()
    with pytest.raises(StartupError, match="in use by another process"):
        put_back(copy, file)
    await database.write(put("b"))
    await database.close()
    assert await rows_of(file) == ["a", "b"]


async def test_what_is_no_backup(tmp_path: Path) -> None:
    """Other files, databases of other programs and newer ones are refused by name."""
    file = await make(tmp_path, "a")
    text, other, newer = tmp_path / "text", tmp_path / "other.db", tmp_path / "newer.db"
    text.write_text("not a database, but long enough to be mistaken for one" * 20)
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    back_up(file, newer, KEY)
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        told = '{"madeBy": "7.1.0", "worksWith": "9999"}'
        connection.execute("UPDATE installation SET value = ? WHERE name = 'schema'", (told,))
        connection.commit()
    for wrong, reason in [
        (text, "not an SQLite database"),
        (other, "not a database of novitai"),
        (newer, "Install novitai 7.1.0"),
        (tmp_path / "none", "no such file"),
        (file, "the database itself"),
    ]:
        with pytest.raises(StartupError, match=reason):
            put_back(wrong, file)
    assert await rows_of(file) == ["a"]


async def test_an_older_backup_is_migrated(tmp_path: Path) -> None:
    """The restored copy has the schema of this version; the backup keeps its own."""
    file = await make(tmp_path, "a")
    old = tmp_path / "old.db"
    back_up(file, old, KEY)
    number = migrate.steps()[-1]
    with migrate._embedded(str(old)) as connection:
        downgrade(migrate.config(connection), "0018")
    put_back(old, file)
    assert migrate.facts_of(url_of(file)).number == number
    assert migrate.facts_of(url_of(old)).number == "0018"


def test_the_settings_name_the_file(tmp_path: Path) -> None:
    """`url_of` gives the URL that the settings give for a folder."""
    folder = tmp_path / "100% why? #1 ü"
    assert Settings(data_dir=folder).database == url_of(folder / "novitai.db")
