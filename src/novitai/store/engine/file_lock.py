# SPDX-License-Identifier: Apache-2.0
"""Locks that keep a second process out: a lock file that names its holder, and the database file.

The database file is locked with open file description locks, which only Linux has: they belong to
one descriptor, not to the process, so closing another descriptor of the file does not drop them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import sys
from pathlib import Path
from typing import Final

import structlog

from novitai.clock import Clock, iso
from novitai.errors import StartupError

_TEMPORARY: Final = 75  # EX_TEMPFAIL of sysexits(3)
_IO: Final = 74  # EX_IOERR
# Byte ranges that SQLite locks, from os_unix.c and sqlite3.h, and one byte that it does not use.
_SQLITE_PENDING: Final = 0x4000_0000
_SQLITE_SHARED: Final = (_SQLITE_PENDING + 2, 510)
_OURS: Final = (_SQLITE_PENDING + 1024, 1)

_log = structlog.get_logger(__name__)


class FileLock:
    """A lock file; the kernel releases the lock if the process ends without `release`."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock and write the holder into the file.

        The file is not deleted on release: otherwise two processes could hold locks on two files
        of the same name.

        Raises:
            StartupError: another process holds the lock, or the file cannot be written.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise refused_by_system(self._path, "cannot be opened for writing", error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, _describe_self(self._clock.now()).encode(), 0)
        except BlockingIOError:
            holder = os.pread(descriptor, 4096, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise _in_use(self._path.with_suffix(""), holder) from None
        except OSError as error:
            os.close(descriptor)
            raise refused_by_system(self._path, "cannot be written", error) from None
        self._descriptor = descriptor

    def restore(self) -> None:
        """Recreate the file if it was deleted, so that a second process sees the holder.

        A failure is only logged: another process may hold the new file until it fails to lock the
        database and ends.
        """
        if self._descriptor is None or _same(self._path, self._descriptor):
            return
        deleted, self._descriptor = self._descriptor, None
        try:
            self.acquire()
        except StartupError as error:
            self._descriptor = deleted
            _log.warning("lock_file_lost", file=str(self._path), error=str(error))
            return
        os.close(deleted)
        _log.warning("lock_file_made_again", file=str(self._path))

    def release(self) -> None:
        """Release the lock. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def lock_database(descriptor: int, path: Path) -> None:
    """Lock an open database file against other novitai processes, until the descriptor is closed.

    Raises:
        StartupError: another process holds the lock.
    """
    try:
        _lock(descriptor, fcntl.F_WRLCK, _OURS)
    except BlockingIOError:
        holder = _holder(descriptor)
        raise _in_use(
            path, f"{f'pid {holder}' if holder else 'unknown'}, whose lock file was deleted"
        ) from None


def keep_open(descriptor: int) -> None:
    """Hold SQLite's shared lock, so that no closing connection is the last one."""
    with contextlib.suppress(BlockingIOError):
        _lock(descriptor, fcntl.F_RDLCK, _SQLITE_SHARED)


def _lock(descriptor: int, kind: int, span: tuple[int, int]) -> None:
    if sys.platform != "linux":
        return
    # struct flock of <fcntl.h>: type, whence, start, length, pid (0 for this kind of lock).
    request = struct.pack("hhqqi0q", kind, os.SEEK_SET, *span, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            raise BlockingIOError(error.errno, error.strerror) from None
        # The file system lacks these locks; the lock file still protects the database.


def _same(path: Path, descriptor: int) -> bool:
    status = os.fstat(descriptor)
    try:
        return os.path.samestat(path.stat(), status)
    except OSError:
        return False


def _holder(descriptor: int) -> str | None:
    """Find a process of this user that has the file open; the kernel does not report the holder."""
    status = os.fstat(descriptor)
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        pid = link.parts[2]
        with contextlib.suppress(OSError):
            if pid != str(os.getpid()) and os.path.samestat(link.stat(), status):
                return pid
    return None


def _in_use(path: Path, holder: str) -> StartupError:
    return StartupError(
        f"{path}: in use by another process ({holder or 'unknown'}). Stop that process first, or "
        "give each its own NOVITAI_DATA_DIR. Only a PostgreSQL database can be shared by several "
        "processes.",
        exit_code=_TEMPORARY,
    )


def refused_by_system(path: Path, what: str, error: OSError) -> StartupError:
    """Return the error for a file or folder that the system refused to create, open or write."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StartupError(
            f"{path}: {what}: no space is left on the disk. Free some and try again.", exit_code=_IO
        )
    return StartupError(
        f"{path}: {what}: {error.strerror}. Make it and its folder writable for this user, "
        "or set NOVITAI_DATA_DIR to a folder that is.",
        exit_code=_IO,
    )


def _describe_self(now: int) -> str:
    # Not the whole command line, because it may contain a password.
    command = " ".join([Path(sys.argv[0] or "python").name, *sys.argv[1:2]])
    return f"pid {os.getpid()}, {command}, since {iso(now)}\n"
