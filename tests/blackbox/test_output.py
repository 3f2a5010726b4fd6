# SPDX-License-Identifier: Apache-2.0
"""A server whose output goes to an unread pipe still answers."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time

import httpx2
import pytest

from tests.blackbox.harness import ADMIN_KEY, NOVITAI, PATIENCE, START_WITHIN, STOP_WITHIN, Sandbox

pytestmark = pytest.mark.blackbox


def test_a_pipe_that_is_not_read_delays_no_request(sandbox: Sandbox) -> None:
    """`novitai serve 2>&1 | sleep 1000`: log lines fill the pipe, and every request is answered."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [NOVITAI, "serve", "--port", "0"],
        stdout=writing,
        stderr=writing,
        env={**sandbox.env, "NOVITAI_UPSTREAM_URL": "http://127.0.0.1:9"},
        cwd=sandbox.folder,
        start_new_session=True,
    )
    os.close(writing)
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    try:
        url = address(reading)
        with httpx2.Client(
            base_url=url, headers=headers, trust_env=False, timeout=20 * PATIENCE
        ) as http:
            # The pipe holds 65,536 bytes, about 300 lines.
            for _ in range(800):
                assert http.get("/api/instances").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_WITHIN) == 0
    finally:
        process.kill()
        process.wait(10)
        os.close(reading)


def address(reading: int) -> str:
    """Read the URL from the server's first output; nothing is read after that."""
    said = ""
    deadline = time.monotonic() + START_WITHIN * PATIENCE
    while not (found := re.search(r"listening on (http://\S+)\n", said)):
        assert select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0], said
        said += os.read(reading, 4096).decode()
    return found[1]
