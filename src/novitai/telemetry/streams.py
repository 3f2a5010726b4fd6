# SPDX-License-Identifier: Apache-2.0
"""Standard output and error of a process that must not wait for their readers.

A write to a pipe that is full blocks until somebody reads it, and a terminal that was paused with
Ctrl-S does the same. After `detach`, whatever Python code writes to `sys.stdout` and `sys.stderr`
goes to a bounded queue, from which a thread writes it. What does not fit is dropped and counted.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, TextIO

MAX_QUEUED: Final = 4 * 1024 * 1024
"""Bytes that may wait for the reader of one stream: some 10,000 log lines."""
EXIT_SECONDS: Final = 2.0
"""How long a process that ends waits until what it wrote has been taken."""
_MAX_HELD: Final = 64 * 1024
_RETRY_SECONDS: Final = 1.0
# Whole lines that come to no more than this are never mixed with those of another process that
# writes to the same pipe (pipe(7), PIPE_BUF).
_CHUNK: Final = select.PIPE_BUF


class Sink:
    """A bounded queue of texts, and the thread that hands them to a function that may block."""

    def __init__(
        self,
        name: str,
        write: Callable[[bytes], None],
        *,
        recovered: Callable[[int], None],
        most: int = MAX_QUEUED,
    ) -> None:
        """Start the thread.

        Args:
            name: The thread's name.
            write: Writes all of it, for as long as that takes; an `OSError` means that it is lost.
            recovered: Called from the thread with the number of texts that were dropped, once
                there is room for more.
            most: Bytes that may wait.
        """
        self._write = write
        self._recovered = recovered
        self._most = most
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._busy = False
        self._untold = 0
        self.dropped = 0
        # Reentrant: a finaliser that runs in the middle of `put` may log.
        self._changed = threading.Condition(threading.RLock())
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, text: bytes) -> None:
        """Queue a text, or drop it where too much waits already; never blocks."""
        with self._changed:
            if self._queue and self._size + len(text) > self._most:
                self._drop(1)
                return
            self._queue.append(text)
            self._size += len(text)
            self._changed.notify_all()

    def flush(self, until: float) -> bool:
        """Wait until everything was written; False if it was not by `until`, in steady seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._queue or self._busy), max(0.0, until - time.monotonic())
            )

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._untold += count

    def _run(self) -> None:
        while True:
            texts = self._take()
            try:
                self._write(b"".join(texts))
                lost = False
            except OSError:  # the reader has gone, or the disk is full
                lost = True
            untold = 0
            with self._changed:
                self._busy = False
                if lost:
                    self._drop(len(texts))
                elif self._size <= self._most // 2:
                    untold, self._untold = self._untold, 0
                self._changed.notify_all()
            if untold:
                self._recovered(untold)

    def _take(self) -> list[bytes]:
        """Wait for texts; take as many as are written at once."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._queue))
            self._busy = True
            texts = [self._queue.popleft()]
            size = len(texts[0])
            while self._queue and size + len(self._queue[0]) <= _CHUNK:
                texts.append(self._queue.popleft())
                size += len(texts[-1])
            self._size -= size
            return texts


class Detached(io.TextIOBase):
    """A text stream that puts whole lines into a sink; without a newline, what `flush` finds."""

    def __init__(self, sink: Sink, original: TextIO) -> None:
        self._sink = sink
        self._original = original
        self._held = ""
        self._lock = threading.RLock()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute, says typeshed
        """The encoding of the stream that is written to."""
        return self._original.encoding

    @property
    def errors(self) -> str:  # type: ignore[override]  # as above
        """A character that cannot be encoded is written as an escape."""
        return "backslashreplace"

    def isatty(self) -> bool:
        """Whether a terminal is written to."""
        return self._original.isatty()

    def fileno(self) -> int:
        """Return the file descriptor that is written to."""
        return self._original.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str, /) -> int:
        """Queue the lines that are complete."""
        with self._lock:
            held = self._held + text
            end = len(held) if len(held) > _MAX_HELD else held.rfind("\n") + 1
            self._held = held[end:]
            self._put(held[:end])
        return len(text)

    def flush(self) -> None:
        """Queue what there is of a line; waits for nothing."""
        with self._lock:
            held, self._held = self._held, ""
            self._put(held)

    def _put(self, text: str) -> None:
        if text:
            self._sink.put(text.encode(self.encoding, self.errors))


_sinks: list[Sink] = []
"""Those of this process, which has its standard streams only once."""


def detach() -> None:
    """Let nothing that this process writes wait for a reader, from now on and until it ends.

    At the end of the process, what is queued gets `EXIT_SECONDS` to be taken.
    """
    if _sinks:
        return
    for name in ("stdout", "stderr"):
        original: TextIO | None = getattr(sys, name)
        if original is None:  # closed before the start: the descriptor may be another file's now
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
            continue
        original.flush()
        sink = Sink(name, _writer(original), recovered=_Recovery(name))
        _sinks.append(sink)
        setattr(sys, name, Detached(sink, original))
        atexit.register(_give_back, name, original)
    atexit.register(flush, EXIT_SECONDS)


def flush(seconds: float) -> bool:
    """Wait until what was written has been taken; False if it was not within `seconds`."""
    until = time.monotonic() + seconds
    if _sinks:
        sys.stdout.flush()
        sys.stderr.flush()
    return all(sink.flush(until) for sink in _sinks)


def dropped() -> int:
    """Count the texts, nearly all of them log lines, that no reader took in time."""
    return sum(sink.dropped for sink in _sinks)


class _Recovery:
    """Says how many lines are missing, in the log itself."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, count: int) -> None:
        import structlog

        structlog.get_logger(__name__).warning(
            "output_dropped", stream=self._name, lines=count, reason="no reader took them in time"
        )


def _give_back(name: str, original: TextIO) -> None:
    """At exit, where the reader keeps up, let what still comes be written at once."""
    if flush(0):
        setattr(sys, name, original)


def _writer(stream: TextIO) -> Callable[[bytes], None]:
    """Make what writes bytes to a stream: to its descriptor, where it has one."""
    try:
        descriptor = stream.fileno()
    except OSError:

        def write_text(data: bytes) -> None:
            with contextlib.suppress(ValueError):  # closed in the meantime
                stream.write(data.decode(stream.encoding or "utf-8", "replace"))
                stream.flush()

        return write_text

    def write(data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(descriptor, left) :]
            except BlockingIOError:
                # Whoever shares the descriptor with us has made it so.
                waiting = select.poll()
                waiting.register(descriptor, select.POLLOUT)
                waiting.poll(_RETRY_SECONDS * 1000)

    return write
