# SPDX-License-Identifier: Apache-2.0
"""Real processes in a temporary folder: start them, call them over HTTP, kill them, read output.

Every wait has a deadline. The output of the processes goes to files, so that tests can read it at
any time and no pipe fills up.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx2

NOVITAI: Final = Path(sys.executable).with_name("novitai")
START_WITHIN: Final = 40.0
PATIENCE: Final = 4
"""Factor for waits that are not a promise of the product, because the machine may be busy."""
STOP_WITHIN: Final = 9.0
"""Seconds from SIGTERM to the end, as promised."""
ADMIN_KEY: Final = "canary-admin-key-5f3a9c"
UPSTREAM_KEY: Final = "canary-upstream-key-77b1e0"
SECRET_KEY: Final = "canary-secret-key-that-is-32-bytes-long"
ENV_VALUE: Final = "canary-value-of-an-env-e2d9"
CANARIES: Final = (ADMIN_KEY, UPSTREAM_KEY, SECRET_KEY, ENV_VALUE)
REQUEST: Final[dict[str, object]] = {
    "name": "blackbox",
    "productName": "gpu-basic",
    "templateId": "tmpl-12345",
    "gpuNum": 1,
    "rootfsSize": 60,
    "region": "US-WEST-01",
}


def until(condition: Callable[[], bool], within: float, what: str, *, every: float = 0.1) -> None:
    """Wait until a condition holds; on timeout, fail and name `what`."""
    deadline = time.monotonic() + within * PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {within * PATIENCE:g} s: {what}"
        time.sleep(every)


class Process:
    """One `novitai` command."""

    def __init__(
        self,
        folder: Path,
        number: int,
        arguments: list[str],
        env: Mapping[str, str],
        before: Sequence[str] = (),
    ):
        self.arguments = arguments
        self._out = folder / f"{number}-{arguments[0]}.out"
        self._err = folder / f"{number}-{arguments[0]}.err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self._popen = subprocess.Popen(
                [*before, NOVITAI, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={name: value for name, value in env.items() if value},
                cwd=folder,
                # Its own session, so that Ctrl-C in the terminal reaches only the test run.
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        """Its standard output so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """Its standard error so far."""
        return self._err.read_text()

    @property
    def pid(self) -> int:
        """Its process ID."""
        return self._popen.pid

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._popen.poll()

    def says(self, pattern: str, within: float = START_WITHIN) -> re.Match[str]:
        """Wait until its standard output matches a pattern; return the match."""
        deadline = time.monotonic() + within * PATIENCE
        while (found := re.search(pattern, self.out)) is None:
            assert self.code is None, f"{self.arguments} ended with {self.code}: {self.err}"
            assert time.monotonic() < deadline, f"{self.arguments} never said {pattern}: {self.err}"
            time.sleep(0.02)
        return found

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._popen.send_signal(number)

    def wait(self, within: float = STOP_WITHIN) -> int:
        """Wait until it ends; return the exit code."""
        return self._popen.wait(within)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._popen.kill()
        self._popen.wait(10)


class Emulator:
    """A running emulator, and its control API."""

    def __init__(self, process: Process, url: str) -> None:
        self.process = process
        self.url = url
        self._http = httpx2.Client(
            base_url=f"{url}/_emulator", trust_env=False, timeout=30 * PATIENCE
        )

    def call(
        self, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> dict[str, Any]:
        """Call the control API."""
        response = self._http.request(method, path, json=body)
        assert response.is_success, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def fault(self, **fault: object) -> None:
        """Set a fault."""
        self.call("POST", "/faults", fault)

    def create_calls(self) -> int:
        """Return the number of create calls that arrived."""
        counts: dict[str, int] = self.call("GET", "/counts")["counts"]
        return counts.get("POST /gpu/instance/create", 0)

    def instances(self) -> tuple[int, int]:
        """Return the number of instances ever created, and of live ones."""
        answer = self.call("GET", "/instances")
        return answer["total"], answer["live"]

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


class Server:
    """A running server, and a client with an admin key."""

    def __init__(self, process: Process, url: str) -> None:
        self.process = process
        self.url = url
        self.http = httpx2.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {ADMIN_KEY}"},
            trust_env=False,
            timeout=35 * PATIENCE,
            limits=httpx2.Limits(max_connections=60),
        )

    def create(self, **changes: object) -> str:
        """Create an instance; return its ID."""
        response = self.http.post("/api/instances", json={**REQUEST, **changes})
        assert response.status_code == 201, response.text
        instance_id: str = response.json()["instanceId"]
        return instance_id

    def create_many(self, count: int) -> list[str]:
        """Create `count` instances at the same time; return their IDs."""
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda n: self.create(name=f"blackbox-{n}"), range(count)))

    def statuses(self) -> dict[str, str]:
        """Return the status of every instance, by ID."""
        response = self.http.get("/api/instances", params={"limit": 1000})
        assert response.status_code == 200, response.text
        return {one["id"]: one["status"] for one in response.json()["instances"]}

    def until_running(self, ids: list[str], within: float) -> None:
        """Wait until these instances run; fail at once if one fails."""

        def all_run() -> bool:
            statuses = self.statuses()
            assert not {"failed", "terminated"} & set(statuses.values()), statuses
            return all(statuses.get(one) == "running" for one in ids)

        until(all_run, within, f"{len(ids)} instances run", every=0.2)

    def close(self) -> None:
        """Close the connections."""
        self.http.close()


class Sandbox:
    """Starts processes that share a folder and settings, and ends those still running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.processes: list[Process] = []
        self._closing: list[Emulator | Server] = []
        self.env = {
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            "HOME": str(folder),
            "NOVITAI_DATA_DIR": str(self.data),
            "NOVITAI_ADMIN_API_KEY": ADMIN_KEY,
            "NOVITAI_SECRET_KEY": SECRET_KEY,
            "NOVITA_API_KEY": UPSTREAM_KEY,
            "NOVITAI_UPSTREAM_CALLS_PER_MINUTE": "60000",
            "NOVITAI_UPSTREAM_TIMEOUT_SECONDS": "4",
            "NOVITAI_SYNC_INTERVAL_SECONDS": "0.2",
            "NOVITAI_ABSENT_AFTER_SECONDS": "2",
            "NOVITAI_RATE_LIMIT_PER_MINUTE": "100000",
        }

    def run(self, *arguments: str, before: Sequence[str] = (), **settings: str) -> Process:
        """Start a command; `settings` are added to the environment, and empty ones are unset.

        `before` is put before the command, for example a shell that sets limits and executes it.
        """
        env = {**self.env, **settings}
        process = Process(self.folder, len(self.processes), list(arguments), env, before)
        self.processes.append(process)
        return process

    def ended(self, *arguments: str, **settings: str) -> Process:
        """Run a command to its end."""
        process = self.run(*arguments, **settings)
        process.wait(START_WITHIN * PATIENCE)
        return process

    def emulator(self, *, speed: float = 60) -> Emulator:
        """Start an emulator; servers started after it use it."""
        process = self.run("emulator", "--port", "0", "--speed", str(speed))
        emulator = Emulator(process, process.says(r"listening on (http://\S+)")[1])
        self.env["NOVITAI_UPSTREAM_URL"] = emulator.url
        self._closing.append(emulator)
        return emulator

    def server(self, command: str = "serve") -> Server:
        """Start a server and wait until it answers."""
        return self.ready(self.run(command, "--port", "0"))

    def ready(self, process: Process) -> Server:
        """Wait until a server answers."""
        server = Server(process, process.says(r"novitai: listening on (http://\S+)\n")[1])
        self._closing.append(server)
        return server

    def close(self) -> None:
        """End all processes, and check that none wrote a secret or a traceback."""
        for one in self._closing:
            one.close()
        for process in self.processes:
            process.kill()
        for process in self.processes:
            said = process.out + process.err
            told = [canary for canary in CANARIES if canary in said]
            assert not told, f"{process.arguments} said {told}"
            assert "Traceback (most recent call last)" not in said, said
