# SPDX-License-Identifier: Apache-2.0
"""How long work lies still after a disturbance, read from the database and asked of the API.

A disturbance is over for the work once each step and each line of messages that was due or under
way when it struck has been taken up by a living process: claimed, renewed, put off or ended; and
once the account has been listed again. It is over for clients once a process answers a read.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
import psycopg

from tests.blackbox.harness import ADMIN_KEY

_EVERY: Final = 0.1
_OPEN_ROWS: Final = """
    SELECT id, token, coalesce(next_step_at, 0), coalesce(lease_until, 0)
    FROM operations WHERE NOT done
    UNION ALL
    SELECT id, token, next_try_at, coalesce(lease_until, 0)
    FROM webhook_lines WHERE next_try_at IS NOT NULL
    UNION ALL
    SELECT 'listing', 0, coalesce(complete_at, 0), 0 FROM listings WHERE name = 'last'
"""

_UNREADABLE: Final = (psycopg.Error, sqlite3.Error)

Row = tuple[int, int, int]
"""Token, due time and end of the lease; times are Unix milliseconds."""
Rows = dict[str, Row]
Connect = Callable[[], Any]
"""Opens a connection to the database with `execute`, in which each statement is a transaction."""


@dataclass
class Strike:
    """A disturbance whose work is not yet taken up.

    Attributes:
        kind: The kind of disturbance.
        at: When it struck, by the monotonic clock.
        waiting: The rows that were due or under way; None until they were read.
        began: The same in Unix milliseconds.
        answered: Whether a process has answered since.
        listed: Whether the account was listed since.
    """

    kind: str
    at: float
    began: int
    waiting: Rows | None = None
    answered: bool = False
    listed: bool = False


@dataclass
class Watch:
    """Samples the rows of work in a thread of its own.

    Attributes:
        connect: Opens a connection to the database, past any pooler.
        urls: Returns the URLs of the processes that serve.
        took: The kind of each disturbance that is over, and its seconds.
    """

    connect: Connect
    urls: Callable[[], Sequence[str]]
    took: list[tuple[str, float]] = field(default_factory=list)
    _open: list[Strike] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ending: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to sample."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def strike(self, kind: str) -> None:
        """Note that a disturbance has just struck."""
        with self._lock:
            self._open.append(Strike(kind, time.monotonic(), int(time.time() * 1000)))

    def end(self, within: float) -> list[Strike]:
        """Stop once no work lies still; return the disturbances after which it still does."""
        deadline = time.monotonic() + within
        while self._open and time.monotonic() < deadline:
            time.sleep(_EVERY)
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        return self._open

    def _run(self) -> None:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        with httpx2.Client(headers=headers, trust_env=False, timeout=1) as http:
            while not self._ending.is_set():
                # While the database is down or not made yet, there is nothing to read.
                with suppress(*_UNREADABLE), closing(self.connect()) as connection:
                    while not self._ending.wait(_EVERY):
                        with self._lock:
                            strikes = list(self._open)
                        if strikes:
                            self._sample(strikes, connection, http)
                self._ending.wait(_EVERY)

    def _sample(self, strikes: Sequence[Strike], connection: Any, http: httpx2.Client) -> None:
        answered_at = time.monotonic()
        answers = self._answers(http)
        found = connection.execute(_OPEN_ROWS).fetchall()
        rows: Rows = {one[0]: (one[1], one[2], one[3]) for one in found}
        listed_at = rows.pop("listing", (0, 0, 0))[1]
        now, real = time.monotonic(), int(time.time() * 1000)
        for strike in strikes:
            strike.answered = strike.answered or (answers and answered_at > strike.at)
            strike.listed = strike.listed or listed_at >= strike.began
            if strike.waiting is None:
                strike.waiting = {
                    key: row for key, row in rows.items() if row[1] <= real or row[2] > real
                }
            else:
                strike.waiting = {
                    key: row for key, row in strike.waiting.items() if rows.get(key) == row
                }
            if strike.answered and strike.listed and not strike.waiting:
                with self._lock:
                    self._open.remove(strike)
                self.took.append((strike.kind, now - strike.at))

    def _answers(self, http: httpx2.Client) -> bool:
        for url in self.urls():
            with suppress(httpx2.HTTPError):
                if http.get(f"{url}/api/instances?limit=1").status_code == 200:
                    return True
        return False
