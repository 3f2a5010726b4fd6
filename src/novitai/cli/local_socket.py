# SPDX-License-Identifier: Apache-2.0
"""The socket beside the embedded database, over which commands reach the server that has it open.

Requests and answers are one JSON object per line. Only the user of the server can connect: the
socket has mode 0600, and both sides check the peer's user ID where the platform reports it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MAX_LINE: Final = 4 * 1024 * 1024
"""Maximum bytes of one message; a page of keys is the longest."""
# sockaddr_un holds 108 bytes on Linux and 104 elsewhere, including the final zero byte.
_LONGEST_ADDRESS: Final = 103


def socket_path(database: Path) -> Path:
    """Return the path of the socket of a database file."""
    return database.with_name(database.name + ".sock")


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """Yield an address to bind or connect to, even if the path is too long for a socket address.

    Raises:
        OSError: the directory cannot be opened.
    """
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def peer_uid(connection: socket.socket) -> int | None:
    """Return the user ID of the peer; None if the platform does not report it."""
    if sys.platform != "linux":
        return None
    form = "iII"  # struct ucred: pid, uid, gid
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(form)
    )
    uid: int = struct.unpack(form, credentials)[1]
    return uid
