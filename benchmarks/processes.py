# SPDX-License-Identifier: Apache-2.0
"""Real server processes on the loopback: start them, read their CPU time and memory, end them."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
import psutil

from benchmarks.machine import BenchmarkFailed, on_core

NOVITAI: Final = str(Path(sys.executable).with_name("novitai"))
KEY: Final = secrets.token_hex(20)
"""The admin key of all servers of this run."""
START_WITHIN: Final = 90.0
_END_WITHIN: Final = 20.0
_LISTING_WITHIN: Final = 180.0
_POLL: Final = 0.1


@dataclass(frozen=True, slots=True)
class Process:
    """A running process that listens on `url`, or a worker, which has none."""

    name: str
    url: str
    seen: psutil.Process

    def cpu(self) -> float:
        """Return the seconds of CPU time that it has used, in user and in system mode."""
        times = self.seen.cpu_times()
        return float(times.user + times.system)

    def end(self) -> None:
        """Ask it to end, and wait until it has.

        Raises:
            BenchmarkFailed: it did not end in time.
        """
        self.seen.terminate()
        try:
            self.seen.wait(_END_WITHIN)
        except psutil.TimeoutExpired:
            raise BenchmarkFailed(f"{self.name} did not end") from None

    def rss(self) -> float:
        """Return its resident memory in MB."""
        return float(self.seen.memory_info().rss) / 1_000_000


@dataclass
class House:
    """Starts processes with common settings and log files, and ends them all."""

    folder: Path
    stack: ExitStack
    env: dict[str, str] = field(default_factory=dict)
    started: int = 0

    def run(
        self,
        name: str,
        command: Sequence[str],
        *,
        says: str,
        core: int | None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a process and wait until its standard output matches `says`.

        The first group of `says`, if there is one, is the URL.

        Raises:
            BenchmarkFailed: it ended, or it was not ready in time.
        """
        self.started += 1
        out = self.folder / f"{self.started}-{name.replace(' ', '-')}.out"
        log = out.with_suffix(".log")
        with out.open("wb") as to, log.open("wb") as errors, on_core(core):
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=to,
                stderr=errors,
                env={**self.env, **(env or {})},
                cwd=self.folder,  # a .env of the working directory must not change the servers
                start_new_session=True,
            )
        self.stack.callback(_end, process)
        deadline = time.monotonic() + START_WITHIN
        while (found := re.search(says, out.read_text(errors="replace"))) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                why = "ended" if process.returncode is not None else "is not ready"
                raise BenchmarkFailed(f"{name} {why}: {_last_line(log)}")
            time.sleep(0.01)
        url = found[1] if found.re.groups else ""
        return Process(name, url, psutil.Process(process.pid))

    def novitai(
        self, command: str, *, core: int | None, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start `novitai serve`, `novitai api` or `novitai worker`."""
        if command == "worker":
            says, arguments = r"novitai: working", []
        else:
            says, arguments = r"novitai: listening on (http://\S+)\n", ["--port", "0"]
        argv = [NOVITAI, command, *arguments]
        return self.run(f"novitai {command}", argv, says=says, core=core, env=env)

    def emulator(self, *, core: int | None) -> Process:
        """Start an emulator; servers that are started after it use it."""
        argv = [NOVITAI, "emulator", "--port", "0", "--seed", "1"]
        says = r"listening on (http://\S+)"
        made = self.run("novitai emulator", argv, says=says, core=core)
        self.env["NOVITAI_UPSTREAM_URL"] = made.url
        return made

    def ended(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Run a command to its end.

        Raises:
            BenchmarkFailed: it failed; the message has the last line that it wrote.
        """
        done = subprocess.run(
            command,
            env={**self.env, **env},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=START_WITHIN,
        )
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["no message"]
            raise BenchmarkFailed(f"{' '.join(command[-2:])} failed: {said[-1]}")


@contextmanager
def house(folder: Path) -> Iterator[House]:
    """Start processes for one group; they end with the block."""
    with ExitStack() as stack:
        yield House(folder, stack, settings(folder))


def settings(folder: Path) -> dict[str, str]:
    """Return the environment of all processes: production behind a proxy that ends TLS."""
    paths = [str(Path(__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "HOME": str(folder),
        "NOVITAI_DATA_DIR": str(folder / "data"),
        "NOVITAI_ADMIN_API_KEY": KEY,
        "NOVITAI_SECRET_KEY": secrets.token_hex(32),
        "NOVITA_API_KEY": secrets.token_hex(16),
        "NOVITAI_ENVIRONMENT": "production",
        "NOVITAI_TRUSTED_PROXIES": "127.0.0.1/32",
        "NOVITAI_RATE_LIMIT_PER_MINUTE": "1000000",
        "NOVITAI_RATE_LIMIT_BURST": "1000000",
    }


def headers() -> dict[str, str]:
    """Return the headers of every request: the key, and what the proxy adds."""
    return {"Authorization": f"Bearer {KEY}", "X-Forwarded-Proto": "https"}


def call(
    url: str, method: str, path: str, body: object = None
) -> tuple[http.client.HTTPMessage, Any]:
    """Send one request and return the headers and the JSON body of the response.

    Raises:
        BenchmarkFailed: the status is not one of success.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    sent = None if body is None else orjson.dumps(body)
    try:
        with contextlib.closing(connection):
            connection.request(
                method, path, sent, {**headers(), "Content-Type": "application/json"}
            )
            response = connection.getresponse()
            read = response.read()
    except OSError as error:
        raise BenchmarkFailed(f"{method} {path}: {error}") from None
    if response.status >= 300:
        raise BenchmarkFailed(f"{method} {path} was answered {response.status}: {read[:200]!r}")
    return response.headers, orjson.loads(read) if read else None


def list_account(server: Process) -> None:
    """List the account now, and wait until the listing has been written."""
    operation = call(server.url, "POST", "/api/instances/sync", {})[1]["operationId"]
    deadline = time.monotonic() + _LISTING_WITHIN
    while not call(server.url, "GET", f"/api/operations/{operation}")[1]["done"]:
        if time.monotonic() > deadline:
            raise BenchmarkFailed(f"a listing was not written within {_LISTING_WITHIN:g} s")
        time.sleep(_POLL)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_END_WITHIN)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it wrote nothing"
