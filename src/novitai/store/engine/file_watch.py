# SPDX-License-Identifier: Apache-2.0
"""Compares the database files that this process has open with the files at their paths.

It must not open the database or its index by path: closing any descriptor of a file drops all POSIX
locks of the process on that file, SQLite's included (https://www.sqlite.org/howtocorrupt.html).
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# https://www.sqlite.org/fileformat.html, "The Database Header" and "The Write-Ahead Log".
_HEADER_BYTES: Final = 100
_MAGIC: Final = b"SQLite format 3\0"
_LARGEST_PAGE: Final = 65_536
_LOG_HEADER_BYTES: Final = 32
_LOG_MAGIC: Final = {b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"}

_Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem with the files.

    `whole` is true if all stored data can still be read through the open files, and the file at the
    path is still the database, so that the log can be written back to it.
    """

    text: str
    whole: bool = False


class FileWatch:
    """Watches one open database: its file, its write-ahead log, and the log's index.

    Safe to use from any thread. A checkpoint may run in another thread between any two system
    calls, so nothing is concluded from a size that changes meanwhile.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        """Prepare to watch the file at `path`, open as `descriptor`; `begin` starts it."""
        self._path = path
        self._descriptor = descriptor
        self._log_path = path.with_name(path.name + "-wal")
        self._index_path = path.with_name(path.name + "-shm")
        self._log: int | None = None
        self._index: _Identity | None = None
        self._mark: bytes | None = None
        self._size = 0
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Record the identity of the files.

        A connection must keep the log open as long as the files are watched: SQLite removes the log
        when the last connection closes.

        Raises:
            OSError: the log or its index cannot be read.
        """
        self._log = os.open(self._log_path, os.O_RDONLY | os.O_CLOEXEC)
        self._index = _identity(self._index_path.stat())
        self._mark = _mark(os.pread(self._descriptor, _HEADER_BYTES, 0))

    def finding(self) -> Finding | None:
        """Return the first problem found with the files; None if there is none.

        Takes eight system calls, independent of the size of the database.

        Raises:
            OSError: the files cannot be checked; their state is unknown.
        """
        with self._lock:
            text = self._of_database() or self._of_log()
            if text is not None:
                return Finding(text)
            text = self._of_names_beside()
            return None if text is None else Finding(text, whole=True)

    def close(self) -> None:
        """Close the log's descriptor; the caller owns the database's. Idempotent."""
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def _of_database(self) -> str | None:
        status = os.fstat(self._descriptor)
        moved = _moved(self._path, _identity(status))
        if moved is not None:
            return moved
        header = os.pread(self._descriptor, _HEADER_BYTES, 0)
        size = status.st_size
        if os.fstat(self._descriptor).st_size == size:
            # VACUUM shrinks the file, and on a full disk the file may be smaller than its header
            # says: only both together mean a truncation.
            if size < self._size and size < _size_in(header):
                return f"{self._path} was truncated"
            self._size = size
        if self._mark is not None and _mark(header) != self._mark:
            return f"{self._path} was overwritten"
        return None

    def _of_log(self) -> str | None:
        if self._log is None:
            return None
        # A checkpoint leaves the log empty. A log with content but no valid header is unreadable.
        size = os.fstat(self._log).st_size
        head = os.pread(self._log, 4, 0)
        unchanged = os.fstat(self._log).st_size == size
        if unchanged and size > _LOG_HEADER_BYTES and head not in _LOG_MAGIC:
            return f"{self._log_path} was truncated or overwritten"
        return None

    def _of_names_beside(self) -> str | None:
        if self._log is None or self._index is None:
            return None
        log = _identity(os.fstat(self._log))
        return _moved(self._log_path, log) or _moved(self._index_path, self._index)


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _moved(path: Path, identity: _Identity) -> str | None:
    try:
        found = _identity(path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return f"{path} was removed"
    return None if found == identity else f"another file lies at {path}"


def _size_in(header: bytes) -> int:
    """Return the size in bytes that a header states; a huge number if it is not a valid header."""
    if not header.startswith(_MAGIC) or len(header) < _HEADER_BYTES:
        return 1 << 62
    page = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big")
    return pages * (_LARGEST_PAGE if page == 1 else page)


def _mark(header: bytes) -> bytes:
    """Return the bytes that identify the file: the magic and `PRAGMA user_version`."""
    return header[: len(_MAGIC)] + header[60:64]
