# SPDX-License-Identifier: Apache-2.0
"""Output of a process never waits for its reader, is bounded, and reports dropped lines."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable

import pytest

from novitai.telemetry.streams import Sink

WITHIN = 60.0


class Reader:
    """A reader of the output that reads only while `reads` is set."""

    def __init__(self) -> None:
        self.reads = threading.Event()
        self.fails = False
        self.read: list[bytes] = []
        self.told: list[int] = []

    def sink(self, most: int = 1000) -> Sink:
        """Make a sink that writes to this reader."""
        return Sink("test", self._write, recovered=self.told.append, most=most)

    def _write(self, data: bytes) -> None:
        assert self.reads.wait(WITHIN)
        if self.fails:
            raise BrokenPipeError
        self.read += data.splitlines()


def within(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def soon() -> float:
    """Return the deadline of a flush that must succeed."""
    return time.monotonic() + WITHIN


def test_lines_arrive_whole_and_in_order() -> None:
    """A reader that keeps up gets all lines, unchanged and in order."""
    reader = Reader()
    reader.reads.set()
    sink = reader.sink(1_000_000)
    lines = [b"line %d" % number for number in range(5000)]
    for line in lines:
        sink.put(line + b"\n")
    assert sink.flush(soon())
    assert reader.read == lines
    assert sink.dropped == 0


def test_no_reader_blocks_a_writer_and_what_is_lost_is_counted() -> None:
    """Text that does not fit is dropped; once there is room, the number is reported once."""
    reader = Reader()
    sink = reader.sink(most=1000)
    for _ in range(50):
        sink.put(b"x" * 99 + b"\n")
    lost = sink.dropped
    assert 35 <= lost <= 40
    reader.reads.set()
    assert sink.flush(soon())
    within(lambda: bool(reader.told))
    sink.put(b"after\n")
    assert sink.flush(soon())
    assert len(reader.read) == 50 - lost + 1
    assert reader.told == [lost]
    assert sink.dropped == lost


def test_a_flush_ends_in_time() -> None:
    """A process does not wait forever at exit for a reader that does not read."""
    reader = Reader()
    sink = reader.sink()
    sink.put(b"last words\n")
    assert not sink.flush(time.monotonic() + 0.05)
    reader.reads.set()
    assert sink.flush(soon())


def test_a_reader_that_has_gone_is_no_error() -> None:
    """Text lost to a broken pipe or a full disk is counted and reported later."""
    reader = Reader()
    reader.reads.set()
    reader.fails = True
    sink = reader.sink()
    sink.put(b"lost\n")
    assert sink.flush(soon())
    assert sink.dropped == 1
    reader.fails = False
    sink.put(b"read\n")
    assert sink.flush(soon())
    within(lambda: reader.told == [1])
    assert reader.read == [b"read"]


def test_a_finaliser_that_logs_in_the_middle_of_a_line_does_not_hang() -> None:
    """A finaliser that the garbage collector runs in the same thread may log during `put`."""
    reader = Reader()
    reader.reads.set()
    sink = reader.sink()
    with sink._changed:
        sink.put(b"from a finaliser\n")
    assert sink.flush(soon())


def run(
    code: str, *, stdout: int | None = None, stderr: int | None = None
) -> subprocess.Popen[bytes]:
    """Run code in a process whose output is detached."""
    begin = "import sys; from novitai.telemetry import streams; streams.detach()\n"
    return subprocess.Popen([sys.executable, "-c", begin + code], stdout=stdout, stderr=stderr)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_pipe_that_is_not_read_stops_nothing(name: str) -> None:
    """A process that writes a megabyte to an unread pipe still exits."""
    code = f"for _ in range(20000): print('x' * 50, file=sys.{name})"
    pipe = subprocess.PIPE
    with run(code, stdout=pipe) if name == "stdout" else run(code, stderr=pipe) as process:
        try:
            assert process.wait(120) == 0
        finally:
            process.kill()


def test_all_that_was_written_is_read() -> None:
    """At exit all queued output is written, incomplete lines and those of exit handlers too."""
    code = (
        "import atexit\n"
        "for n in range(3000): print('line', n)\n"
        "sys.stdout.write('half'); sys.stderr.write('a \\u0431 b')"
    )
    before = "import atexit, sys; atexit.register(lambda: print('late', file=sys.stderr))\n"
    begin = "from novitai.telemetry import streams; streams.detach()\n"
    done = subprocess.run(
        [sys.executable, "-c", before + begin + code],
        check=True,
        capture_output=True,
        timeout=120,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.stdout.decode() == "".join(f"line {n}\n" for n in range(3000)) + "half"
    assert done.stderr == b"a \\u0431 blate\n"


def waiting_bytes(pipe: int) -> int:
    """Return how many bytes a pipe holds."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_descriptor_that_somebody_else_made_non_blocking_is_waited_for() -> None:
    """If another process sets O_NONBLOCK on a shared pipe, no output is lost."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with run("for n in range(5000): print('x' * 99)\nstreams.flush(30)", stdout=writing) as process:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            within(lambda: waiting_bytes(reading) > 32_768)
            assert len(pipe.read().splitlines()) == 5000
        assert process.wait(120) == 0


def test_closed_standard_streams_are_no_error() -> None:
    """With closed standard streams, output goes nowhere, even if a file reuses the descriptor."""
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" 1>&- 2>&-', sys.executable, CLOSED],
        check=False,
        timeout=120,
    )
    assert done.returncode == 7


CLOSED = """
import os, sys, tempfile
from novitai.telemetry import streams
streams.detach()
with tempfile.TemporaryFile() as file:
    print("out")
    print("err", file=sys.stderr)
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(7 if not file.read() else 1)
"""
