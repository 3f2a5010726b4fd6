# SPDX-License-Identifier: Apache-2.0
"""Jobs for the database threads: a transaction function, its result and the waiting caller.

This module runs no SQL and is independent of the kind of database.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import traceback
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Final, Generic, TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import Result, ScalarResult

from novitai.clock import Clock
from novitai.errors import RequestTimeout
from novitai.store.engine.errors import StoreUnavailable
from novitai.store.engine.metrics import StoreMetrics

T = TypeVar("T")
Callback = Callable[[], object]

_JOB: Final = "novitai.job"


class Mode(Enum):
    """The kind of a transaction: read, snapshot read, or write."""

    READ = auto()
    SNAPSHOT = auto()
    WRITE = auto()


class Job(Generic[T]):
    """One call of `fn(connection)` in a transaction, and the future its caller awaits."""

    __slots__ = (
        "_callbacks",
        "_savepoints",
        "deadline",
        "error",
        "fn",
        "future",
        "loop",
        "metrics",
        "mode",
        "result",
    )

    def __init__(
        self,
        fn: Callable[[Connection], T],
        mode: Mode,
        deadline: int | None = None,
        *,
        metrics: StoreMetrics | None = None,
    ) -> None:
        """Create a job for the running event loop.

        Args:
            fn: The transaction function.
            mode: The kind of the transaction.
            deadline: Unix milliseconds after which it is not committed.
            metrics: Counts what it commits.
        """
        self.fn = fn
        self.mode = mode
        self.deadline = deadline
        self.metrics = metrics or StoreMetrics()
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()
        self.result: T
        self.error: BaseException | None = None
        self._callbacks: list[Callback] = []
        self._savepoints: list[int] = []

    @property
    def abandoned(self) -> bool:
        """Whether the caller cancelled its await; a job that has not begun is then dropped."""
        return self.future.cancelled()

    def expired(self, clock: Clock) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and clock.now() > self.deadline

    def check_deadline(self, clock: Clock) -> None:
        """Raise `RequestTimeout` if the deadline has passed."""
        if self.expired(clock):
            raise late()

    def run(self, connection: Connection) -> None:
        """Call `fn`, discarding the error and the callbacks of an earlier call.

        Raises:
            TypeError: `fn` returned an open result, which cannot be read after the commit.
        """
        self.error = None
        self._callbacks = []
        self._savepoints = []
        info = connection.info
        info[_JOB] = self
        try:
            self.result = self.fn(connection)
        except BaseException as error:  # clear its frames, then re-raise
            # An open result in a frame would keep the snapshot of SQLite beyond the rollback, and
            # the error and this job refer to each other until the collector runs.
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            info[_JOB] = None
        if isinstance(self.result, Result | ScalarResult):
            raise TypeError("a transaction function returns rows, not an open result")

    def after_commit(self, callback: Callback) -> None:
        """Keep `callback` until the commit has succeeded.

        Raises:
            RuntimeError: the job only reads, so it has no commit.
        """
        if self.mode is not Mode.WRITE:
            raise RuntimeError("a read has no commit")
        self._callbacks.append(callback)

    def savepoint(self) -> None:
        """Record how many callbacks existed when a savepoint was set."""
        self._savepoints.append(len(self._callbacks))

    def end_savepoint(self, *, undone: bool) -> None:
        """Leave the innermost savepoint; if it was rolled back, discard the callbacks since."""
        stood = self._savepoints.pop()
        if undone:
            del self._callbacks[stood:]

    def settle(self) -> None:
        """Give the caller its result or error. Runs on the event loop."""
        if self.error is not None:
            if not self.future.done():
                self.future.set_exception(_presentable(self.error))
            return
        for callback in self._callbacks:
            # Not `callback()`: if one fails, the others and the result must still be delivered.
            self.loop.call_soon(callback)
        if not self.future.done():
            self.future.set_result(self.result)


AnyJob = Job[object]


def late() -> RequestTimeout:
    """Return the error for a deadline that passed before the commit."""
    return RequestTimeout("The request could not be finished in time; nothing was done.")


def job_of(connection: Connection) -> AnyJob:
    """Return the job that is running on `connection`.

    Raises:
        RuntimeError: no job is; the connection is not that of a running transaction function.
    """
    job = job_on(connection)
    if job is None:
        raise RuntimeError("this needs the connection of a running transaction function")
    return job


def job_on(connection: Connection) -> AnyJob | None:
    """Return the job that is running on `connection`; None if no job is."""
    # A connection that was lost or closed has no info.
    if connection.invalidated or connection.closed:
        return None
    job: AnyJob | None = connection.info.get(_JOB)
    return job


def guard_transactions(engine: Engine) -> None:
    """Make `engine` refuse commit and rollback by transaction functions, and track savepoints."""

    def refuse(connection: Connection) -> None:
        if job_on(connection) is not None:
            raise RuntimeError("a transaction function must not commit or roll back; raise instead")

    def begin(connection: Connection, _name: None) -> None:
        if (job := job_on(connection)) is not None:
            job.savepoint()

    def undo(connection: Connection, _name: str, _context: None) -> None:
        if (job := job_on(connection)) is not None:
            job.end_savepoint(undone=True)

    def release(connection: Connection, _name: str, _context: None) -> None:
        if (job := job_on(connection)) is not None:
            job.end_savepoint(undone=False)

    event.listen(engine, "commit", refuse)
    event.listen(engine, "rollback", refuse)
    event.listen(engine, "savepoint", begin)
    event.listen(engine, "rollback_savepoint", undo)
    event.listen(engine, "release_savepoint", release)


def settle(jobs: Iterable[AnyJob]) -> None:
    """Give all callers their results, with one wake-up for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[AnyJob]] = {}
    for job in jobs:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, theirs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle_all, theirs)
        except RuntimeError:  # the loop is closed, so no caller is waiting
            continue


def _settle_all(jobs: list[AnyJob]) -> None:
    for job in jobs:
        job.settle()


def _presentable(error: BaseException) -> BaseException:
    # A future refuses StopIteration, which would end the caller's generator.
    if isinstance(error, StopIteration):
        return RuntimeError("a transaction function raised StopIteration")
    return error


class Crew:
    """Threads that take jobs from one queue, in order."""

    def __init__(self, name: str, size: int, work: Callable[[Crew], None]) -> None:
        """Start `size` threads that each run `work`, which serves and then ends."""
        self._queue: queue.SimpleQueue[AnyJob | None] = queue.SimpleQueue()
        self._closed = False
        # Without the lock a job could be queued behind the end mark and never run.
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=work, args=(self,), name=f"{name}-{number}", daemon=True)
            for number in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, job: Job[T]) -> None:
        """Queue a job.

        Raises:
            StoreUnavailable: the database has been closed.
        """
        with self._lock:
            if self._closed:
                raise StoreUnavailable("The database is closed: the server is shutting down.")
            self._queue.put(job)  # type: ignore[arg-type]  # the queue ignores the result's type

    def serve(self, work: Callable[[list[AnyJob]], None], limit: int = 1) -> None:
        """Call `work` with up to `limit` jobs at a time until the crew is closed.

        No job is held while the thread waits for the next one, because a result may be large.
        """
        while jobs := self._take(limit):
            work(jobs)
            del jobs

    def serve_each(self, run: Callable[[AnyJob], None]) -> None:
        """Call `run` with one job at a time, and settle it, until the crew is closed."""

        def work(jobs: list[AnyJob]) -> None:
            for job in jobs:
                run(job)
            settle(jobs)

        self.serve(work)

    def _take(self, limit: int) -> list[AnyJob]:
        """Wait for a job and take up to `limit` queued ones; an empty list means stop."""
        while True:
            taken = self._queue.get()
            if taken is None:
                return []
            jobs = [] if taken.abandoned else [taken]
            while len(jobs) < limit:
                try:
                    taken = self._queue.get_nowait()
                except queue.Empty:
                    break
                if taken is None:
                    self._queue.put(None)
                    break
                if not taken.abandoned:
                    jobs.append(taken)
            if jobs:
                return jobs
            del taken  # abandoned, but what it would have done may refer to much

    def close(self) -> None:
        """Refuse new jobs, finish the queued ones and stop the threads."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._queue.put(None)
        for thread in self._threads:
            thread.join()
