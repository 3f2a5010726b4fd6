# SPDX-License-Identifier: Apache-2.0
"""PgBouncer before the PostgreSQL server of the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.services import unavailable


@contextmanager
def pgbouncer(url: str, mode: str) -> Iterator[str]:
    """Run PgBouncer before the server; yield the database's URL through it."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        unavailable("pgbouncer is not on the PATH (Debian's package: pgbouncer)")
    parts = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # The user is forced, so that PgBouncer needs no passwords: these servers trust the loopback.
    settings = f"""
        [databases]
        * = host={parts.hostname} port={parts.port or 5432} user={parts.username}
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = any
        pool_mode = {mode}
        server_login_retry = 1
    """
    with (
        memory_file(settings) as file,
        subprocess.Popen(
            [program, "-q", *(["-u", "nobody"] if os.geteuid() == 0 else []), file],
            stderr=subprocess.DEVNULL,
            pass_fds=[int(file.rpartition("/")[2])],
        ) as process,
    ):
        try:
            await_port(port, process)
            yield parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}").geturl()
        finally:
            process.terminate()


@contextmanager
def memory_file(text: str) -> Iterator[str]:
    """Create a file that another user can read, unlike one in the test's temporary folder."""
    descriptor = os.memfd_create("pgbouncer.ini")
    try:
        os.write(descriptor, "\n".join(line.strip() for line in text.splitlines()).encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process accepts connections."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, "it ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise TimeoutError("it does not accept connections")
