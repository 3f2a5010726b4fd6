# SPDX-License-Identifier: Apache-2.0
"""`novitai demo`: one instance from request to running, and commands that work when pasted."""

from __future__ import annotations

import re
import signal
import socket
import subprocess

from tests.blackbox.harness import Sandbox


def test_once_it_runs_it_ends(sandbox: Sandbox) -> None:
    """`--once` goes from creating to running and exits 0; the environment has no effect."""
    demo = sandbox.ended(
        "demo", "--once", NOVITAI_UPSTREAM_URL="http://127.0.0.1:1", NOVITAI_XYZ="1"
    )
    assert demo.code == 0, demo.err
    states = re.findall(r"^ +[\d.]+ s +(\w+)", demo.out, re.MULTILINE)
    assert states[0] == "creating"
    assert states[-1] == "running"
    assert not sandbox.data.exists()
    # The key and the curl commands stop working when the demo ends, so they are not printed.
    assert "nvt_" not in demo.out
    assert "curl -s" not in demo.out


def test_it_shows_what_is_special(sandbox: Sandbox) -> None:
    """It shows running at Novita, then running, the price, and the webhooks received."""
    demo = sandbox.ended("demo", "--once")
    assert demo.code == 0, demo.err
    lines = demo.out.splitlines()
    assert lines[0].startswith("Starting a stand-in for Novita")
    assert any(line.startswith("Starting novitai") for line in lines)
    shown = [" ".join(line.split()[2:]) for line in lines if re.match(r" +[\d.]+ s ", line)]
    assert shown[-2:] == ["starting (at Novita: running)", "running (at Novita: running)"]
    assert re.search(r"^Price: 0\.\d+ USD an hour$", demo.out, re.MULTILINE)
    received = next(line for line in lines if line.startswith("Webhooks received"))
    assert "instance.created, instance.starting, instance.running" in received


def test_its_lines_work_when_pasted(sandbox: Sandbox) -> None:
    """With its port in use, the demo takes another; its curl lines work; Ctrl-C ends it."""
    with socket.socket() as taken:
        # Port 8080 must be in use: by another process, or by this test.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if taken.connect_ex(("127.0.0.1", 8080)) != 0:
            taken.close()
            blocker = socket.create_server(("127.0.0.1", 8080))
        else:
            blocker = taken
        with blocker:
            demo = sandbox.run("demo")
            demo.says("Ctrl-C ends it", 60)
    lines = dict(re.findall(r"^(List|Look|Create|Delete) .*:\n(curl .*)$", demo.out, re.MULTILINE))
    assert ":8080/" not in lines["List"]
    answers = {
        name: subprocess.run(
            ["sh", "-c", line], check=True, capture_output=True, text=True, timeout=120
        ).stdout
        for name, line in lines.items()
    }
    assert '"total":1' in answers["List"]
    assert '"status":"running"' in answers["Look"]
    assert '"instanceId":"inst_' in answers["Create"]
    assert '"status":"terminating"' in answers["Delete"]
    demo.send(signal.SIGINT)
    assert demo.wait() == 0, demo.err
