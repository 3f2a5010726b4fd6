# SPDX-License-Identifier: Apache-2.0
"""Standard output and error of a process that must not wait for their readers.

A write to a full pipe, or to a terminal that was paused with Ctrl-S, blocks until the reader
continues. After `detach`, all text that Python code writes to `sys.stdout` and `sys.stderr` goes
to a bounded queue, which a thread writes out. Text that does not fit is dropped and counted.
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
"""Bytes that may wait for the reader of one stream: about 10,000 log lines."""
EXIT_SECONDS: Final = 2.0
"""Seconds that a process waits at exit for its queued output to be written."""
_MAX_HELD: Final = 64 * 1024
_RETRY_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.005
"""How long texts are collected after a write; the first text after a pause is written at once."""
# Writes of up to this size to a pipe are atomic, so lines do not mix with those of another process
# (pipe(7), PIPE_BUF).
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
            write: Writes all bytes it is given and may block; on `OSError` they count as dropped.
            recovered: Called from the thread with the number of dropped texts, once the queue is
                at most half full.
            most: Bytes that the queue may hold.
        """
        self._write = write
        self._recovered = recovered
        self._most = most
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._busy = False
        self._untold = 0
        self.dropped = 0
        # Reentrant: a finaliser that runs during `put` may log.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, text: bytes) -> None:
        """Queue a text, or drop it if the queue is full; never blocks."""
        with self._lock:
            if self._queue and self._size + len(text) > self._most:
                self._drop(1)
                return
            self._queue.append(text)
            self._size += len(text)
            if not self._busy:
                self._changed.notify_all()

    def flush(self, until: float) -> bool:
        """Wait until the queue is written; False if it is not by `until`, in monotonic seconds."""
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
            except OSError:  # the reader has closed the pipe, or the disk is full
                lost = True
            if not self._queue:
                # To be woken for each line would cost more than to write it.
                time.sleep(_PAUSE_SECONDS)
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
        """Wait for texts; take as many as fit into one atomic write."""
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
    """A text stream that puts whole lines into a sink; `flush` also puts an incomplete line."""

    def __init__(self, sink: Sink, original: TextIO) -> None:
        self._sink = sink
        self._original = original
        self._encoding = original.encoding
        self._held = ""
        self._lock = threading.RLock()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute in typeshed
        """The encoding of the original stream."""
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]  # an attribute in typeshed
        """The error handler: characters that cannot be encoded are written as escapes."""
        return "backslashreplace"

    def isatty(self) -> bool:
        """Whether the original stream is a terminal."""
        return self._original.isatty()

    def fileno(self) -> int:
        """Return the file descriptor of the original stream."""
        return self._original.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str, /) -> int:
        """Queue the complete lines, and an incomplete one that is longer than 64 KiB."""
        with self._lock:
            if not self._held and text.endswith("\n"):
                self._put(text)
                return len(text)
            held = self._held + text
            end = len(held) if len(held) > _MAX_HELD else held.rfind("\n") + 1
            self._held = held[end:]
            self._put(held[:end])
        return len(text)

    def flush(self) -> None:
        """Queue the incomplete line; does not wait."""
        if not self._held:
            return
        with self._lock:
            held, self._held = self._held, ""
            self._put(held)

    def _put(self, text: str) -> None:
        if text:
            self._sink.put(text.encode(self._encoding, "backslashreplace"))


_sinks: list[Sink] = []
"""The sinks of this process, one for each standard stream."""


def detach() -> None:
    """Make standard output and error non-blocking for the rest of the process.

    At exit, the process waits up to `EXIT_SECONDS` for queued output to be written.
    """
    if _sinks:
        return
    for name in ("stdout", "stderr"):
        original: TextIO | None = getattr(sys, name)
        if original is None:  # closed before the start: its descriptor may be another file now
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
            continue
        original.flush()
        sink = Sink(name, _writer(original), recovered=_Recovery(name))
        _sinks.append(sink)
        setattr(sys, name, Detached(sink, original))
        atexit.register(_give_back, name, original)
    atexit.register(flush, EXIT_SECONDS)


def flush(seconds: float) -> bool:
    """Wait until all output is written; False if it is not within `seconds`."""
    until = time.monotonic() + seconds
    if _sinks:
        sys.stdout.flush()
        sys.stderr.flush()
    return all(sink.flush(until) for sink in _sinks)


def dropped() -> int:
    """Return the number of texts, nearly all of them log lines, that were dropped."""
    return sum(sink.dropped for sink in _sinks)


class _Recovery:
    """Logs how many lines were dropped."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, count: int) -> None:
        import structlog

        structlog.get_logger(__name__).warning(
            "output_dropped", stream=self._name, lines=count, reason="no reader took them in time"
        )


def _give_back(name: str, original: TextIO) -> None:
    """At exit, restore the original stream for later output if the queue is empty."""
    if flush(0):
        setattr(sys, name, original)


def _writer(stream: TextIO) -> Callable[[bytes], None]:
    """Return a function that writes bytes to the descriptor of a stream, if it has one."""
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
                # Another process that shares the pipe has set O_NONBLOCK.
                waiting = select.poll()
                waiting.register(descriptor, select.POLLOUT)
                waiting.poll(_RETRY_SECONDS * 1000)

    return write
