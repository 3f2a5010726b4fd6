# SPDX-License-Identifier: Apache-2.0
"""Watches the files of the SQLite database while it is open.

A thread with its own connection compares the files with their paths every second, and checkpoints
the log when there are few writes. If the files are damaged or gone, the store is lost: it refuses
all reads and writes until a person has restored it.
"""

from __future__ import annotations

import sqlite3
import threading
from typing import Final

import structlog

from novitai.store.engine.errors import (
    CommitUnknown,
    StorageFull,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
)
from novitai.store.engine.file_lock import refused_by_system
from novitai.store.engine.file_watch import Finding
from novitai.store.engine.sqlite_file import DatabaseFile, is_disk_full, quoted

LOOK_EVERY: Final = 1.0
"""Seconds between two checks of the files while nothing is written."""
QUIET_COMMITS: Final = 10
"""The log is checkpointed if at most this many commits happened between two checks."""

_log = structlog.get_logger(__name__)


class Keeper:
    """Watches one open database; safe to use from any thread."""

    def __init__(self, file: DatabaseFile) -> None:
        """Open the connection and record the files; `start` begins the checks.

        Raises:
            sqlite3.Error: the file cannot be opened.
            StartupError: the log beside it cannot be opened.
        """
        self._file = file
        self._lock = threading.Lock()
        self._lost: Finding | None = None
        self._commits = 0
        self._seen_commits = 0
        self._written_back = 0
        self._closing = threading.Event()
        # Opened here, used by the thread, and closed by the thread that calls `close`.
        self._connection = sqlite3.connect(
            f"file:{quoted(file.path)}?mode=rw",
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            # A connection opens the log when it first reads.
            self._connection.execute("PRAGMA synchronous = FULL").close()
            self._connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            file.watch.begin()
        except OSError as error:
            self._connection.close()
            raise refused_by_system(file.path, "its log cannot be read", error) from None
        except BaseException:  # close the connection, then re-raise
            self._connection.close()
            raise
        self._thread = threading.Thread(target=self._run, name="novitai-keeper", daemon=True)

    def start(self) -> None:
        """Start the thread that checks the files every second."""
        self._thread.start()

    def committed(self) -> None:
        """Check that the last commit went to the files at the database's paths.

        Raises:
            CommitUnknown: it did not, or that is unknown; it must not be acknowledged.
        """
        self._commits += 1
        try:
            self.insist()
        except StoreError as error:
            raise CommitUnknown(
                "The database file was damaged, gone or unreadable when the change was stored. "
                "Check whether it was stored before you send it again."
            ) from error

    def insist(self) -> None:
        """Check that the files at the paths are those that were opened.

        Raises:
            StoreCorrupt: the store is lost.
            StoreUnavailable: the files cannot be checked.
        """
        self.refuse_if_lost()
        try:
            finding = self._file.watch.finding()
        except OSError as error:
            raise StoreUnavailable(
                f"The database file cannot be checked: {error.strerror}.", retry_after=5
            ) from error
        if finding is not None:
            self.lose(finding)
            self.refuse_if_lost()

    def refuse_if_lost(self) -> None:
        """Raise if the store is lost.

        Raises:
            StoreCorrupt: the store is lost.
        """
        if self._lost is not None:
            raise StoreCorrupt(
                "The database file is damaged or gone: nothing is read or stored until it has been "
                "restored and the server has been restarted."
            )

    def insist_on_room(self) -> None:
        """Check that the disk has space for the next group of writes.

        Raises:
            StorageFull: it has not.
        """
        if is_disk_full(self._file.path):
            raise StorageFull("No space is left for the database.", retry_after=30)

    def lose(self, finding: Finding) -> None:
        """Mark the store as lost, permanently; log the finding once, with the action to take."""
        with self._lock:
            if self._lost is not None:
                return
            self._lost = finding
        file = self._file.path
        if finding.whole and self._write_back():
            action = (
                "All that was acknowledged has been written to the database file. Stop this "
                f"process, remove {file}-wal and {file}-shm if they are there, and start again."
            )
        else:
            action = (
                "Stop this process, restore the database file together with its -wal file from a "
                "backup, and start again."
            )
        # Otherwise the last connection to close would remove the log at the path, which may belong
        # to another file by then.
        self._file.keep_log()
        _log.critical(
            "store_lost",
            finding=finding.text,
            file=str(file),
            action=f"Nothing is read or stored any more. {action}",
        )

    def look(self) -> None:
        """Compare the files with their paths; if little was written since, checkpoint the log.

        Does not raise: a finding is logged, and later reads and writes are refused.
        """
        try:
            self.insist()
        except (StoreCorrupt, StoreUnavailable):
            return
        self._file.restore_lock()
        commits, seen = self._commits, self._seen_commits
        self._seen_commits = commits
        quiet = commits - seen <= QUIET_COMMITS
        if quiet and commits != self._written_back and self._write_back():
            self._written_back = commits

    def close(self) -> None:
        """Stop the thread and close the connection. Idempotent."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while not self._closing.wait(LOOK_EVERY):
            self.look()

    def _write_back(self) -> bool:
        """Checkpoint and truncate the log; False if that must be retried."""
        try:
            # PASSIVE does most of the work without blocking writers; TRUNCATE does the rest.
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            if is_damage(error):
                self.lose(Finding(f"{self._file.path} is damaged ({error})"))
            else:
                _log.warning("checkpoint_failed", error=str(error))
            return False
        return not busy


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error means that the files are damaged, rather than that the disk failed."""
    code = getattr(error, "sqlite_errorcode", 0)
    return (
        # The low byte is the primary result code: https://www.sqlite.org/rescode.html
        code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
        or code == sqlite3.SQLITE_IOERR_SHORT_READ
    )
