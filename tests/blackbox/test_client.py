# SPDX-License-Identifier: Apache-2.0
"""The Python client against real servers that are killed and restarted."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import pytest

from novitai_client import Novitai, WaitTimedOut
from novitai_client.requests import CreateFields
from tests.blackbox.harness import ADMIN_KEY, PATIENCE, Sandbox, Server, until
from tests.docs.pages import ROOT, page

CREATES: Final = int(os.environ.get("TEST_CLIENT_CREATES", "20"))
KILLS: Final = 2
FIELDS: Final[CreateFields] = {
    "name": "blackbox",
    "product_name": "gpu-basic",
    "template_id": "tmpl-12345",
    "region": "US-WEST-01",
}


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def serve(sandbox: Sandbox, port: int) -> Server:
    """Start a server on a port, and wait until it answers."""
    return sandbox.ready(sandbox.run("serve", "--port", str(port)))


def test_creates_through_kills_of_the_server_give_one_instance_each(sandbox: Sandbox) -> None:
    """While the server is killed and restarted, each create is accepted once: none more or less."""
    emulator, port = sandbox.emulator(), free_port()
    server = serve(sandbox, port)
    client = Novitai(server.url, ADMIN_KEY, timeout=100 * PATIENCE)
    accepted: list[str] = []
    over = threading.Event()
    kills = 0

    def create(number: int) -> None:
        fields: CreateFields = {**FIELDS, "name": f"blackbox-{number}"}
        accepted.append(client.instances.create(**fields).instance_id)

    def create_all() -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(create, range(CREATES)))
        over.set()

    def are_accepted(wanted: int) -> bool:
        return len(accepted) >= wanted

    with ThreadPoolExecutor(1) as work:
        creating = work.submit(create_all)
        for kill in range(1, KILLS + 1):
            wanted = CREATES * kill // (KILLS + 2)
            until(partial(are_accepted, wanted), 60, f"{wanted} creates", every=0.001)
            server.process.kill()
            kills += not over.is_set()
            server = serve(sandbox, port)
        creating.result(100 * PATIENCE)
    assert kills, "the server was killed too late to matter"
    assert len(set(accepted)) == CREATES
    listed = [one.id for one in client.instances.list(include_terminated=True)]
    assert sorted(listed) == sorted(accepted)
    until(lambda: emulator.instances()[0] >= CREATES, 60, "all are bought")
    server.until_running(accepted, 60)
    assert emulator.instances() == (CREATES, CREATES)
    client.close()


def test_a_wait_bridges_a_restart_and_one_that_runs_out_names_the_instance(
    sandbox: Sandbox,
) -> None:
    """The wait goes on with the next server; a short one ends in time with the instance."""
    sandbox.emulator(speed=30)
    port = free_port()
    server = serve(sandbox, port)
    with Novitai(server.url, ADMIN_KEY, timeout=30 * PATIENCE) as client:
        instance_id = client.instances.create(**FIELDS).instance_id
        began = time.monotonic()
        with pytest.raises(WaitTimedOut) as caught:
            client.instances.wait(instance_id, timeout=0.5)
        assert time.monotonic() - began < 3 * PATIENCE
        assert caught.value.instance is not None
        assert caught.value.instance.id == instance_id
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.instances.wait, instance_id, timeout=60 * PATIENCE)
            server.process.kill()
            serve(sandbox, port)
            assert waiting.result(60 * PATIENCE).status == "running"


def test_the_example_for_ci_runs(sandbox: Sandbox) -> None:
    """The program of the how-to page rents, runs and releases, and has at most 15 lines."""
    program = re.findall(r"```python\n(.*?)```", page("how-to/use-python.md"), re.DOTALL)[0]
    assert 10 <= len(program.splitlines()) <= 15
    assert program in (ROOT / "clients/python/README.md").read_text(encoding="utf-8")
    sandbox.emulator()
    server = sandbox.server()
    ssh = sandbox.folder / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text('#!/bin/sh\necho "connected to $1 for $2"\n')
    ssh.chmod(0o755)
    found = {"PATH": f"{ssh.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**sandbox.env, **found, "NOVITAI_URL": server.url, "NOVITAI_API_KEY": ADMIN_KEY},
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search("connected to ssh://.+ for nvidia-smi", done.stdout), done.stdout
    assert set(server.statuses().values()) <= {"terminating", "terminated"}
