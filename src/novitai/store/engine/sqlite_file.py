# SPDX-License-Identifier: Apache-2.0
"""The SQLite database file: opens or creates it, locks it and checks it before use.

Each failure becomes a `StartupError` that says what is wrong and what to do.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from novitai.clock import Clock
from novitai.errors import SettingsError, StartupError
from novitai.store.engine import file_lock
from novitai.store.engine.file_lock import FileLock, refused_by_system
from novitai.store.engine.file_watch import FileWatch

PROBE_SECONDS: Final = 2.0
"""How long the check of the file may take; a large file is checked only in part."""
_STEPS_BETWEEN_LOOKS_AT_THE_CLOCK: Final = 10_000
ROOM_BYTES: Final = 256 * 1024
"""Less free space than this counts as a full disk: one group of writes may need this much."""
_IO: Final = 74  # EX_IOERR of sysexits(3)
_TEMPORARY: Final = 75  # EX_TEMPFAIL


class DatabaseFile:
    """A database file that only this process uses."""

    def __init__(self, path: Path, lock: FileLock, descriptor: int) -> None:
        """Use `claim` instead."""
        self.path = path
        self.watch = FileWatch(path, descriptor)
        self._lock = lock
        self._descriptor: int | None = descriptor

    @classmethod
    def claim(cls, path: Path, clock: Clock) -> DatabaseFile:
        """Create the folder and the file if they are missing, lock the file and check it.

        Raises:
            StartupError: any of these fails.
        """
        make_folder(path.parent)
        lock = FileLock(path.with_name(path.name + ".lock"), clock)
        lock.acquire()
        descriptor = None
        try:
            _refuse_log_alone(path)
            descriptor = _open(path)
            # The lock file may have been deleted, and then it does not keep others out.
            file_lock.lock_database(descriptor, path)
            _probe(path, clock)
        except BaseException:  # release the locks, then re-raise
            if descriptor is not None:
                os.close(descriptor)
            lock.release()
            raise
        return cls(path, lock, descriptor)

    def turn_on_wal(self) -> None:
        """Switch the file to WAL mode, which is stored in the file.

        Raises:
            StartupError: the disk does not support it.
        """
        with explained(self.path), closing(sqlite3.connect(self.path)) as connection:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StartupError(
                f"{self.path}: this disk does not support a write-ahead log; network disks do not."
                " Set NOVITAI_DATA_DIR to a folder on a local disk.",
                exit_code=_IO,
            )

    def mark(self) -> None:
        """Write a random mark into the file, so that a copy written over it is noticed.

        The mark is SQLite's `user_version` in the file's header. A checkpoint writes it, and all
        that an earlier process left in the log, to the file.

        Raises:
            StartupError: the file cannot be written.
        """
        with explained(self.path), closing(sqlite3.connect(self.path)) as connection:
            connection.execute(f"PRAGMA user_version = {secrets.randbelow(2**31)}").close()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()

    def restore_lock(self) -> None:
        """Recreate the lock file if it was deleted."""
        self._lock.restore()

    def keep_log(self) -> None:
        """Keep SQLite from removing the log when the last connection of this process closes."""
        if self._descriptor is not None:
            file_lock.keep_open(self._descriptor)

    def release(self) -> None:
        """Close the file and release the locks. Idempotent.

        All SQLite connections to the file must be closed first: see `file_watch`.
        """
        self.watch.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._lock.release()


def path_of(url: str) -> Path:
    """Return the file that an SQLite URL names, as an absolute path.

    `%` and `?` in the file name must be percent-encoded, as in any URL.

    Raises:
        SettingsError: the URL names no file, or one in a home folder that this user has not, or it
            has a host or a query.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = URL.create("sqlite")
    database = parsed.database
    if not database or parsed.host or parsed.query or database.startswith((":memory:", "file:")):
        raise SettingsError(
            "NOVITAI_DATABASE_URL: must name a file and nothing else: sqlite:///relative/path or "
            "sqlite:////absolute/path"
        )
    try:
        return Path(database).expanduser().resolve()
    except RuntimeError:
        raise SettingsError(
            "NOVITAI_DATABASE_URL: must name the file by its whole path, because this user has no "
            "home folder"
        ) from None


def url_of(path: Path) -> str:
    """Return the URL of a file; `path_of` reads it."""
    return f"sqlite:///{quote(str(path.absolute()))}"


def quoted(path: Path | str) -> str:
    """Escape a path for a `file:` URI of SQLite."""
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def is_disk_full(path: Path) -> bool:
    """Whether a file's disk has less than `ROOM_BYTES` free; False if that cannot be found out."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < ROOM_BYTES


def make_folder(folder: Path) -> None:
    """Create the folder with mode 0700 if it does not exist.

    Raises:
        StartupError: the folder cannot be created.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise refused_by_system(folder, "the folder cannot be created", error) from None


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Convert errors of SQLite within the block into a `StartupError` about `path`."""
    try:
        yield
    except sqlite3.Error as error:
        raise _startup_error(path, error) from None
    except DBAPIError as error:
        if not isinstance(error.orig, sqlite3.Error):
            raise
        raise _startup_error(path, error.orig) from None


def _refuse_log_alone(path: Path) -> None:
    """Refuse a log whose database is missing or empty: SQLite would discard it and start empty.

    SQLite writes the first page of the database before it logs anything, so no crash causes this.
    """
    log = path.with_name(path.name + "-wal")
    if _size(path) == 0 and _size(log) > 0:
        raise StartupError(
            f"{path}: the file is missing or empty, but its log {log.name} exists: the file was "
            "removed. Restore both from a backup, or move the log away to start with an empty "
            "database.",
            exit_code=_IO,
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # missing; opening the file reports any other error
        return 0


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise refused_by_system(path, "cannot be opened for writing", error) from None


def _probe(path: Path, clock: Clock) -> None:
    """Check that the file is an undamaged SQLite database that is writable and not locked."""
    with explained(path):
        connection = sqlite3.connect(path, timeout=PROBE_SECONDS, isolation_level=None)
        with closing(connection):
            connection.execute("BEGIN IMMEDIATE").close()
            connection.execute("ROLLBACK").close()
            finding = _quick_check(connection, clock)
    if finding != "ok":
        raise _damaged(path, finding)


def _quick_check(connection: sqlite3.Connection, clock: Clock) -> str:
    stop_at = clock.monotonic() + PROBE_SECONDS
    connection.set_progress_handler(
        lambda: clock.monotonic() > stop_at, _STEPS_BETWEEN_LOOKS_AT_THE_CLOCK
    )
    try:
        return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return "ok"  # as far as it got; checking the rest would delay the start
        raise
    finally:
        connection.set_progress_handler(None, 0)


def _startup_error(path: Path, error: sqlite3.Error) -> StartupError:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_IOERR if is_disk_full(path):  # as when the log's index cannot grow
            return _full(path)
        case sqlite3.SQLITE_NOTADB:
            return StartupError(
                f"{path}: this is not an SQLite database, or its beginning is damaged. "
                "Restore a backup, or move the file away to start with an empty one.",
                exit_code=_IO,
            )
        case sqlite3.SQLITE_CORRUPT:
            return _damaged(path, str(error))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StartupError(
                f"{path}: locked by another program, such as a backup or an SQLite shell. "
                "Wait until it has finished, or stop it, and try again.",
                exit_code=_TEMPORARY,
            )
        case sqlite3.SQLITE_FULL:
            return _full(path)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StartupError(
                f"{path}: the file or its folder cannot be written ({error}). "
                "Make both writable for this user, or set NOVITAI_DATA_DIR to a folder that is.",
                exit_code=_IO,
            )
    return StartupError(f"{path}: cannot be used: {error}.", exit_code=_IO)


def _full(path: Path) -> StartupError:
    return StartupError(
        f"{path}: no space is left on the disk. Free some and try again.", exit_code=_IO
    )


def _damaged(path: Path, finding: str) -> StartupError:
    return StartupError(
        f"{path}: the database is damaged ({' '.join(finding.split())}). Restore a backup; "
        "`sqlite3 FILE .recover` may save what is left.",
        exit_code=_IO,
    )
