# SPDX-License-Identifier: Apache-2.0
"""A lock file: one process at a time, and whoever comes second learns who was first."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from pathlib import Path

from novitai.clock import Clock, iso
from novitai.errors import StartupError

_TEMPORARY = 75  # EX_TEMPFAIL of sysexits(3)
_IO = 74  # EX_IOERR


class FileLock:
    """Held from `acquire` to `release`, or until the process is gone: the kernel sees to that."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock and write down who has it.

        The file stays when the lock is given back: to delete it would let two processes hold locks
        on two files of one name.

        Raises:
            StartupError: another process has it, or the file cannot be written.
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
            raise StartupError(
                f"{self._path.with_suffix('')}: in use by another process"
                f" ({holder or 'which has not said its name'}). Stop that one first, or give"
                " each its own NOVITAI_DATA_DIR; several processes share a database on PostgreSQL.",
                exit_code=_TEMPORARY,
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise refused_by_system(self._path, "cannot be written", error) from None
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back. Twice is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def refused_by_system(path: Path, what: str, error: OSError) -> StartupError:
    """Make the error of a file or folder that the system refused to make, open or write."""
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
    # Not the whole command line: it might hold a password.
    command = " ".join([Path(sys.argv[0] or "python").name, *sys.argv[1:2]])
    return f"pid {os.getpid()}, {command}, since {iso(now)}\n"
