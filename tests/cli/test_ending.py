# SPDX-License-Identifier: Apache-2.0
"""How a process shuts down after one signal, after two, and when it hangs; in subprocesses."""

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


STARTS = """
    try:
        async with ending.starting(): await asyncio.sleep(60)
    finally:
        print('cleaned up', flush=True)
"""
# A signal just before a call that blocks is handled after the call, as in any Python program. So
# the process says "hangs" from another thread, once the call has begun.
_HANGS = "threading.Timer(0.3, print, ['hangs'], {'flush': True}).start()"
HANGING = f"{_HANGS}; time.sleep(60)"
STARTS_ON_A_THREAD = f"""async with ending.starting():
        {_HANGS}; await asyncio.to_thread(time.sleep, 60)"""
STARTS_AND_BLOCKS = f"async with ending.starting(): {HANGING}"
LEFT_EARLY = "novitai: asked to stop before it had started\n"


ORPHANS = """
    import ctypes, os, subprocess
    # Like process 1, it inherits orphaned descendants (PR_SET_CHILD_SUBREAPER).
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
    stopped_early: int = 0,
) -> subprocess.Popen[str]:
    """Start a process that handles the signals."""
    code = f"""
import asyncio, sys, threading, time
from novitai.cli.ending import Ending, run_until_asked
async def process(ending):
    print('ready', flush=True)
    {body}
with Ending({within}, start_within=0.3, stopped_early={stopped_early}, reap={reap}) as ending:
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
    """Wait for the exit; return the exit code and standard output."""
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


def told(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the exit; return the exit code, standard output and standard error."""
    said, complained = process.communicate(timeout=120)
    return process.returncode, said, complained


def ready(process: subprocess.Popen[str]) -> None:
    """Wait until the process prints `ready`."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def hangs(process: subprocess.Popen[str]) -> None:
    """Wait until the process prints `hangs`: the call that hangs has begun."""
    assert process.stdout is not None
    assert process.stdout.readline() == "hangs\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_asked_once_it_cleans_up(number: signal.Signals) -> None:
    """After one signal the event is set, the clean-up runs, and the exit code is 0."""
    process = started(WAITS)
    ready(process)
    process.send_signal(number)
    assert ended(process) == (0, "clean\n")


@pytest.mark.parametrize("body", [HANGS, BLOCKS])
def test_asked_twice_it_is_gone(body: str) -> None:
    """The second signal ends the process at once, even if the event loop is blocked."""
    process = started(body)
    ready(process)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (128 + signal.SIGTERM, "")


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGHUP])
def test_a_hangup_is_never_the_second_signal(first: signal.Signals) -> None:
    """SIGHUP may follow SIGTERM or another SIGHUP; the process still cleans up."""
    process = started(SLOW)
    ready(process)
    process.send_signal(first)
    time.sleep(0.2)
    process.send_signal(signal.SIGHUP)
    assert ended(process) == (0, "clean\n")


def test_a_hangup_that_was_ignored_stays_ignored() -> None:
    """Under nohup a process survives its terminal."""
    process = started(WAITS, ignored=True)
    ready(process)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (0, "clean\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")
def test_orphans_leave_no_zombies() -> None:
    """Exited orphans that the process inherits are reaped."""
    process = started(ORPHANS, reap=True)
    ready(process)
    assert ended(process) == (0, "reaped\n")


@pytest.mark.parametrize("body", [HANGS, BLOCKS])
def test_what_hangs_is_left_behind(body: str) -> None:
    """After the time limit the process exits with code 0, even if tasks are still running."""
    process = started(body, within=0.3)
    ready(process)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (0, "")


def test_what_hangs_is_left_behind_though_its_output_is_not_read() -> None:
    """The last message does not block on a reader either."""
    process = started(HANGING, within=0.3, before="sys.stderr.write('x' * 200_000)")
    ready(process)
    hangs(process)
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_signal_before_there_is_a_loop_ends_at_once() -> None:
    """Before the event loop runs, a signal ends the process with one line and code 0."""
    process = started(WAITS, before=HANGING)
    hangs(process)
    process.send_signal(signal.SIGTERM)
    assert told(process) == (0, "", LEFT_EARLY)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_start_is_broken_off(number: signal.Signals) -> None:
    """A signal during startup cleans up, prints one line, and exits with the given code."""
    process = started(STARTS, stopped_early=7)
    ready(process)
    process.send_signal(number)
    assert told(process) == (7, "cleaned up\n", LEFT_EARLY)


@pytest.mark.parametrize("body", [STARTS_ON_A_THREAD, STARTS_AND_BLOCKS])
def test_a_start_that_hangs_is_left_behind(body: str) -> None:
    """A thread that does not end, or a blocked loop, delays the exit only briefly."""
    process = started(body)
    ready(process)
    hangs(process)
    process.send_signal(signal.SIGTERM)
    assert told(process) == (0, "", LEFT_EARLY)


def test_a_start_that_has_paused_is_not_gone_on_with() -> None:
    """A signal between two parts of the startup aborts it at the next part, without a traceback."""
    body = "await ending.asked.wait()\n    async with ending.starting(): print('starts')"
    process = started(body)
    ready(process)
    process.send_signal(signal.SIGTERM)
    assert told(process) == (0, "", LEFT_EARLY)


def test_a_timeout_within_a_start_stays_one() -> None:
    """Only a signal aborts the startup; any other timeout is raised unchanged."""
    process = started("async with ending.starting(): raise TimeoutError('late')")
    code, _, said = told(process)
    assert (code, said.splitlines()[-1]) == (1, "TimeoutError: late")


@pytest.mark.parametrize("command", ["serve", "api", "worker", "demo", "emulator"])
def test_a_command_that_is_still_loading_is_stopped(command: str) -> None:
    """From the first import on, a signal prints one line and exits with the documented code."""
    loading = [sys.executable, "-X", "importtime", "-m", "novitai", command]
    with subprocess.Popen(
        loading, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "typer" in line:  # the first large import
                break
        process.send_signal(signal.SIGTERM)
        said = [line for line in process.stderr if not line.startswith("import time:")]
    assert (process.returncode, said) == (130 if command == "demo" else 0, [LEFT_EARLY])
