# SPDX-License-Identifier: Apache-2.0
"""Each reason why the database cannot be opened gives one clear message."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from novitai.errors import NovitaiError, SettingsError, StartupError
from novitai.store import migrate
from novitai.store.engine import sqlite_file
from novitai.store.engine.errors import StorageFull
from novitai.store.opening import open_database
from novitai.testing import ManualClock
from tests.store.transactions import names, put

CLOCK = ManualClock()


async def refusal(url: str) -> str:
    """Open the database, which must fail, and return the message."""
    with pytest.raises(StartupError) as caught:
        await open_database(url, CLOCK)
    assert caught.value.exit_code in {74, 75, 78}
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
async def unprivileged(sqlite_database_url: str) -> AsyncIterator[Path]:
    """A folder owned by an ordinary user, with whose rights the test runs."""
    # Opening a database first imports modules that the user may be unable to read.
    await (await open_database(sqlite_database_url, CLOCK)).close()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.geteuid() != 0:
            yield folder
        else:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
            try:
                yield folder
            finally:
                os.seteuid(0)
        for each in [folder, *folder.rglob("*")]:  # noqa: ASYNC240 - nothing else runs here
            each.chmod(0o700)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("making a small disk needs the right to mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Leave no space on the disk."""
    with pytest.raises(OSError, match="No space left"):
        (disk / "filler").write_bytes(bytes(2_000_000))


class TestFile:
    async def test_made(self, tmp_path: Path) -> None:
        """A missing folder and file are created for this user alone, and hold the stored data."""
        path = tmp_path / "new" / "folder" / "novitai.db"
        database = await open_database(f"sqlite:///{path}", CLOCK)
        await database.write(put("a"))
        modes = {
            each.name: oct(each.stat().st_mode & 0o777)
            for each in [path.parent, *path.parent.iterdir()]
        }
        await database.close()
        assert modes.pop("folder") == "0o700"
        assert set(modes) >= {"novitai.db", "novitai.db-wal", "novitai.db.lock"}
        assert set(modes.values()) == {"0o600"}

        again = await open_database(f"sqlite:///{path}", CLOCK)
        assert await again.read(names) == ["a"]
        await again.close()

    async def test_awkward_name(self, tmp_path: Path) -> None:
        """A file name may have characters that are special in URLs."""
        path = tmp_path / "100% why? #1 ü" / "novitai.db"
        database = await open_database(f"sqlite:///{quote(str(path))}", CLOCK)
        await database.close()
        assert migrate.check(f"sqlite:///{quote(str(path))}") is migrate.Version.CURRENT
        assert path.is_file()

    @pytest.mark.parametrize(
        "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?uri=true"]
    )
    async def test_no_file(self, url: str) -> None:
        """A URL that names no file is refused with an example of a valid one."""
        with pytest.raises(SettingsError, match="sqlite:///relative/path"):
            await open_database(url, CLOCK)

    async def test_second_process(self, sqlite_database_url: str, tmp_path: Path) -> None:
        """A second process gets the holder's PID; the lock of a killed process is released."""
        code = (
            "import asyncio, sys\n"
            "from novitai.clock import SystemClock\n"
            "from novitai.store.opening import open_database\n"
            "async def main():\n"
            "    await open_database(sys.argv[-1], SystemClock())\n"
            "    print('open', flush=True)\n"
            "    await asyncio.sleep(60)\n"
            "asyncio.run(main())\n"
        )
        script = tmp_path / "holder.py"
        script.write_text(code)
        command = [sys.executable, str(script), "serve", sqlite_database_url]
        with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop
            command, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
            message = await refusal(sqlite_database_url)
            child.kill()
        assert f"{tmp_path / 'novitai.db'}: in use by another process (pid {child.pid}, " in message
        assert "holder.py serve, since 20" in message
        assert sqlite_database_url not in message
        database = await open_database(sqlite_database_url, CLOCK)
        await database.close()

    async def test_same_process(self, sqlite_database_url: str) -> None:
        """A second open in the same process is refused, and does not release the first lock."""
        database = await open_database(sqlite_database_url, CLOCK)
        for _ in range(2):
            assert f"pid {os.getpid()}" in await refusal(sqlite_database_url)
        await database.close()

    async def test_link(self, sqlite_database_url: str, tmp_path: Path) -> None:
        """A symbolic link to an open file is refused as the same file."""
        link = tmp_path / "link.db"
        link.symlink_to(tmp_path / "novitai.db")
        database = await open_database(sqlite_database_url, CLOCK)
        assert "in use" in await refusal(f"sqlite:///{link}")
        await database.close()

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"this is a letter, not a database" * 100, "not an SQLite database"),
            (b"short", "not an SQLite database"),
        ],
    )
    async def test_no_database(self, tmp_path: Path, content: bytes, expected: str) -> None:
        """A file that is no database is refused unchanged, and its lock is released."""
        path = tmp_path / "letter.db"
        path.write_bytes(content)
        for _ in range(2):
            assert expected in await refusal(f"sqlite:///{path}")
        assert path.read_bytes() == content

    async def test_damaged_header(self, sqlite_database_url: str, tmp_path: Path) -> None:
        """A database with a damaged header is refused."""
        with (tmp_path / "novitai.db").open("r+b") as file:
            file.write(bytes(100))
        assert "its beginning is damaged" in await refusal(sqlite_database_url)

    @pytest.mark.parametrize("page", [1, 2, 5])
    async def test_damaged_page(self, sqlite_database_url: str, tmp_path: Path, page: int) -> None:
        """A database with a damaged page is refused at start."""
        with (tmp_path / "novitai.db").open("r+b") as file:
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
        message = await refusal(sqlite_database_url)
        assert "the database is damaged" in message
        assert "Restore a backup" in message

    async def test_truncated(self, sqlite_database_url: str, tmp_path: Path) -> None:
        """A truncated database is refused."""
        path = tmp_path / "novitai.db"
        os.truncate(path, path.stat().st_size // 8192 * 4096)
        assert "the database is damaged" in await refusal(sqlite_database_url)

    async def test_long_look_is_cut_short(
        self, sqlite_database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file too large to be checked in the time limit is opened."""
        monkeypatch.setattr(sqlite_file, "PROBE_SECONDS", -1.0)
        monkeypatch.setattr(sqlite_file, "_STEPS_BETWEEN_LOOKS_AT_THE_CLOCK", 1)
        database = await open_database(sqlite_database_url, CLOCK)
        await database.close()

    async def test_locked(
        self, sqlite_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file that another program has locked is refused, and the message says what to do."""
        monkeypatch.setattr(sqlite_file, "PROBE_SECONDS", 0.01)
        other = sqlite3.connect(tmp_path / "novitai.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        assert "locked by another program" in await refusal(sqlite_database_url)
        other.close()

    async def test_another_programs(self, tmp_path: Path) -> None:
        """A database of another program is refused unchanged."""
        path = tmp_path / "theirs.db"
        other = sqlite3.connect(path)
        other.execute("CREATE TABLE recipes (name TEXT)").close()
        other.close()
        before = path.read_bytes()
        message = await refusal(f"sqlite:///{path}")
        assert "belongs to another program (it has a table recipes)" in message
        assert path.read_bytes() == before

    async def test_newer(self, sqlite_database_url: str, tmp_path: Path) -> None:
        """A database of a newer version is refused, and the lock is released."""
        other = sqlite3.connect(tmp_path / "novitai.db")
        other.execute("UPDATE alembic_version SET version_num = '9999'")
        other.execute("DELETE FROM installation WHERE name = 'schema'")
        other.commit()
        for _ in range(2):
            assert "made by a newer version of novitai" in await refusal(sqlite_database_url)
        other.close()

    async def test_folder_cannot_be_made(self, tmp_path: Path) -> None:
        """The message names a folder that cannot be created."""
        (tmp_path / "file").touch()
        message = await refusal(f"sqlite:///{tmp_path}/file/folder/novitai.db")
        assert "the folder cannot be created: Not a directory" in message

    async def test_a_folder(self, tmp_path: Path) -> None:
        """The message names a folder at the path of the file."""
        assert "cannot be opened for writing" in await refusal(f"sqlite:///{tmp_path}")

    async def test_read_only_folder(self, unprivileged: Path) -> None:
        """The message names a folder that is not writable and says what to do."""
        unprivileged.chmod(0o500)  # noqa: ASYNC240 - nothing else runs here
        message = await refusal(f"sqlite:///{unprivileged}/novitai.db")
        assert "Permission denied. Make it and its folder writable" in message
        message = await refusal(f"sqlite:///{unprivileged}/folder/novitai.db")
        assert "the folder cannot be created: Permission denied" in message

    async def test_read_only_file(self, unprivileged: Path) -> None:
        """The message names a file that is not writable and says what to do."""
        path = unprivileged / "novitai.db"
        path.touch(mode=0o400)
        message = await refusal(f"sqlite:///{path}")
        assert f"{path}: cannot be opened for writing: Permission denied" in message

    async def test_disk_full(self, small_disk: Path, sqlite_database_url: str) -> None:
        """A full disk is reported as such, for a new file and for an existing one."""
        fill(small_disk)
        assert "no space is left" in await refusal(f"sqlite:///{small_disk}/new.db")

        (small_disk / "filler").unlink()
        shutil.copyfile(urlsplit(sqlite_database_url).path, small_disk / "novitai.db")
        fill(small_disk)
        assert "no space is left" in await refusal(f"sqlite:///{small_disk}/novitai.db")

    async def test_disk_full_while_running(self, small_disk: Path) -> None:
        """When the disk fills up, writes fail with `StorageFull` and reads succeed."""
        database = await open_database(f"sqlite:///{small_disk}/novitai.db", CLOCK)
        await database.write(put("a"))
        fill(small_disk)
        with pytest.raises(StorageFull):
            await database.write(put("large", "x" * 1_000_000))
        with pytest.raises(StorageFull):
            await database.ping()
        assert await database.read(names) == ["a"]
        (small_disk / "filler").unlink()
        await database.ping()
        await database.write(put("b"))
        assert await database.read(names) == ["a", "b"]
        await database.close()


@pytest.mark.postgresql
class TestServer:
    async def test_not_migrated(self, postgresql_url: str) -> None:
        """An empty or older database is refused unchanged."""
        message = await refusal(postgresql_url)
        assert "Run `novitai migrate`" in message
        with psycopg.connect(postgresql_url) as connection:
            tables = connection.execute(
                "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
            ).fetchone()
        assert tables == (0,)

    async def test_newer(self, postgresql_database_url: str) -> None:
        """A database of a newer version is refused."""
        with psycopg.connect(postgresql_database_url) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
            connection.execute("DELETE FROM installation WHERE name = 'schema'")
        assert "made by a newer version of novitai" in await refusal(postgresql_database_url)

    async def test_missing_database(self, postgresql_url: str) -> None:
        """The message names a database that does not exist and says how to create it."""
        url = urlsplit(postgresql_url)._replace(path="/there_is_none").geturl()
        message = await refusal(url)
        assert "there is no such database" in message
        assert "createdb there_is_none" in message

    async def test_unknown_user(self, postgresql_url: str) -> None:
        """The message names a user that does not exist, and does not contain the password."""
        parts = urlsplit(postgresql_url)
        netloc = f"nobody_we_know:hunter2hunter2@{parts.hostname}:{parts.port}"
        message = await refusal(parts._replace(netloc=netloc).geturl())
        assert "nobody_we_know" in message
        assert "hunter2" not in message


class TestNoServer:
    @pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
    async def test_unreachable(self, scheme: str) -> None:
        """The message names an unreachable server, and does not contain the password."""
        message = await refusal(f"{scheme}://me:hunter2hunter2@127.0.0.1:1/novitai")
        assert "PostgreSQL at 127.0.0.1:1, database novitai as me: cannot connect" in message
        assert "Connection refused" in message
        assert "hunter2" not in message

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://me:hunter2/hunter2@host:x/novitai",
            "postgresql://me:hunter2@host:hunter2/x",
        ],
    )
    async def test_not_a_url(self, url: str) -> None:
        """The message does not quote an invalid URL, because it contains a password."""
        with pytest.raises(NovitaiError) as caught:
            await open_database(url, CLOCK)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (b"password authentication failed for user", "the password is wrong"),
            (b"sorry, too many clients; hunter2hunter2", "too many clients; ***"),
        ],
    )
    async def test_refused(self, answer: bytes, expected: str) -> None:
        """The message quotes the server's refusal, except for the password."""

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(8)  # may we encrypt?
            writer.write(b"N")
            await reader.read(4096)
            body = b"SFATAL\0VFATAL\0C28P01\0M" + answer + b"\0\0"
            writer.write(b"E" + (len(body) + 4).to_bytes(4, "big") + body)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            message = await refusal(f"postgresql://me:hunter2hunter2@127.0.0.1:{port}/novitai")
        assert expected in message
        assert "hunter2" not in message
