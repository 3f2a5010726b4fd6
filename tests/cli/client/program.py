# SPDX-License-Identifier: Apache-2.0
"""Run `novitai` as a user does: as a process, on a terminal, or in this process to save time."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from typer.testing import CliRunner

from novitai.cli.main import app
from tests.blackbox.harness import ADMIN_KEY, NOVITAI, Emulator, Sandbox, Server

WITHIN: Final = 120.0
"""Seconds for one command, on a busy machine."""
PRODUCT: Final = "RTX 4090 24GB"
TEMPLATE: Final = "tmpl-12345"


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Served:
    """The processes that the tests of one run share."""

    sandbox: Sandbox
    emulator: Emulator
    server: Server

    @property
    def url(self) -> str:
        """The URL of the server."""
        return self.server.url

    def key(self, *scopes: str, **more: object) -> str:
        """Make an API key."""
        body = {"name": "for a test", "scopes": list(scopes), **more}
        made = self.server.http.post("/api/keys", json=body)
        assert made.status_code == 201, made.text
        text: str = made.json()["key"]
        return text


class Program:
    """`novitai` with the configuration of one test.

    Attributes:
        env: The environment.
        server: The server that it calls.
    """

    def __init__(self, server: Served, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "NOVITAI_URL": server.url,
            "NOVITAI_API_KEY": ADMIN_KEY,
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        }

    def run(
        self, *arguments: str, stdin: str | None = None, env: Mapping[str, str] | None = None
    ) -> Ran:
        """Run a command in this process, without a terminal; an empty value unsets a variable."""
        settings: dict[str, str | None] = {name: None for name in os.environ if "NOVITA" in name}
        settings |= {**self.env, **(env or {})}
        settings = {name: value or None for name, value in settings.items()}
        result = CliRunner().invoke(app, list(arguments), input=stdin, env=settings)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    def ok(self, *arguments: str, **options: Any) -> str:
        """Run a command that succeeds, in this process; return its standard output."""
        ran = self.run(*arguments, **options)
        assert ran.code == 0, (arguments, ran)
        return ran.out

    def process(self, *arguments: str, env: Mapping[str, str] | None = None) -> Ran:
        """Run a command as a process of its own, without a terminal."""
        ended = subprocess.run(
            [NOVITAI, *arguments],
            env=self._with(env),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        assert "Traceback" not in ended.stderr + ended.stdout, ended
        return Ran(ended.returncode, ended.stdout, ended.stderr)

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a command that does not end by itself."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # A background job of a shell ignores Ctrl-C, and so would its children.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            [NOVITAI, *arguments],
            env=self._with(None),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # a line that Python has read ahead is invisible to `select`
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=30)

    def on_terminal(
        self,
        *arguments: str,
        columns: int = 80,
        keys: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> Ran:
        """Run a command on a terminal, which shows both outputs together."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        process = subprocess.Popen(
            [NOVITAI, *arguments],
            env={**self._with(env), "TERM": "xterm-256color"},
            cwd=self.folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        os.write(master, keys)
        try:
            shown = _read(master)
            return Ran(process.wait(WITHIN), shown, "")
        finally:
            process.kill()
            process.wait(30)
            os.close(master)

    def create(self, name: str, *more: str) -> str:
        """Create an instance and return its ID, before it runs."""
        made = self.ok(
            "create", name, "--product", PRODUCT, "--template", TEMPLATE, *more, "--json"
        )
        found = re.search(r"inst_\w+", made)
        assert found is not None, made
        return found[0]

    def rent(self, name: str, *more: str) -> str:
        """Create an instance, wait until it runs, and return its ID."""
        instance_id = self.create(name, *more)
        self.ok("wait", instance_id, "--timeout", "2m")
        return instance_id

    def _with(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return {name: value for name, value in {**self.env, **(env or {})}.items() if value}


def next_line(stream: IO[bytes] | None, within: float = WITHIN) -> str:
    """Read a line of a running process; fail if none comes."""
    assert stream is not None
    assert select.select([stream], [], [], within)[0], "it says nothing"
    line = stream.readline()
    assert line, "it has ended"
    return line.decode()


def _read(master: int) -> str:
    """Read a terminal until the process has closed it."""
    shown, deadline = b"", time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 1.0)[0]:
            continue
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux reports the end of a terminal as an error
            break
        if not part:
            break
        shown += part
    return shown.decode().replace("\r\n", "\n")
