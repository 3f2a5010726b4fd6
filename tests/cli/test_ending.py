# SPDX-License-Identifier: Apache-2.0
"""How a process ends: asked, asked twice, and when something hangs. In processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

WAITS = "await ending.asked.wait(); print('clean', flush=True)"
SLOW = "await ending.asked.wait(); await asyncio.sleep(1); print('clean', flush=True)"
HANGS = "await ending.asked.wait(); await asyncio.sleep(60)"
BLOCKS = "await ending.asked.wait(); time.sleep(60)"


ORPHANS = """
    import ctypes, os, subprocess
    # As process 1 does, it inherits the orphans among its descendants (PR_SET_CHILD_SUBREAPER).
    assert ctypes.CDLL(None).prctl(36, 1) == 0
    said = subprocess.run(["sh", "-c", "sleep 0.1 & echo $!"], stdout=subprocess.PIPE).stdout
    deadline, left = time.monotonic() + 5, True
    while left and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        try:
            os.kill(int(said), 0)
        except ProcessLookupError:
            left = False
    print("zombie" if left else "reaped", flush=True)
"""


def started(
    body: str,
    *,
    within: float = 30,
    before: str = "pass",
    reap: bool | None = None,
    ignored: bool = False,
) -> subprocess.Popen[str]:
    """Start a process that catches signals."""
    code = f"""
import asyncio, sys, time
from novitai.cli.ending import Ending, run_until_asked
async def process(ending):
    print('ready', flush=True)
    {body}
with Ending({within}, reap={reap}) as ending:
    {before}
    run_until_asked(ending, process(ending))
"""
    return subprocess.Popen(
        [*(["nohup"] if ignored else []), sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end; return the exit code and what was said."""
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


def ready(process: subprocess.Popen[str]) -> None:
    """Wait until it says so."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_asked_once_it_cleans_up(number: signal.Signals) -> None:
    """The event is set, what follows it runs, and the code is 0."""
    process = started(WAITS)
    ready(process)
    process.send_signal(number)
    assert ended(process) == (0, "clean\n")


@pytest.mark.parametrize("body", [HANGS, BLOCKS])
def test_asked_twice_it_is_gone(body: str) -> None:
    """The second signal waits for nothing, not even for a loop that is stuck."""
    process = started(body)
    ready(process)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (128 + signal.SIGTERM, "")


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGHUP])
def test_a_hangup_is_never_the_second_signal(first: signal.Signals) -> None:
    """It may follow SIGTERM or another of its kind by itself: the process still cleans up."""
    process = started(SLOW)
    ready(process)
    process.send_signal(first)
    time.sleep(0.2)
    process.send_signal(signal.SIGHUP)
    assert ended(process) == (0, "clean\n")


def test_a_hangup_that_was_ignored_stays_ignored() -> None:
    """Under nohup a process outlives its terminal."""
    process = started(WAITS, ignored=True)
    ready(process)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (0, "clean\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")
def test_orphans_leave_no_zombies() -> None:
    """Where the process inherits what others left behind, nothing stays of it."""
    process = started(ORPHANS, reap=True)
    ready(process)
    assert ended(process) == (0, "reaped\n")


@pytest.mark.parametrize("body", [HANGS, BLOCKS])
def test_what_hangs_is_left_behind(body: str) -> None:
    """After its time the process ends with code 0, whatever still runs."""
    process = started(body, within=0.3)
    ready(process)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (0, "")


def test_what_hangs_is_left_behind_though_its_output_is_not_read() -> None:
    """The last words wait for no reader either."""
    process = started("time.sleep(60)", within=0.3, before="sys.stderr.write('x' * 200_000)")
    ready(process)
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_signal_that_comes_early_counts() -> None:
    """One that arrives before there is a loop ends the process once there is one."""
    process = started(WAITS, before="print('early', flush=True); time.sleep(1)")
    assert process.stdout is not None
    assert process.stdout.readline() == "early\n"
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (0, "ready\nclean\n")
