# SPDX-License-Identifier: Apache-2.0
"""The record of calls to the emulated API: bounded, and without any secret in it."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from novitai.emulator.faults import matches_path

KEPT = 20_000
"""How many calls are remembered; older ones are only counted."""

LONGEST_BODY = 16_384
"""A request body above this many bytes is not kept, only its size."""

_SECRET = frozenset({"password", "imageAuth", "token", "secret"})


@dataclass(slots=True)
class Entry:
    """One call; `status` is None while it runs, and 0 if its connection was dropped.

    Attributes:
        at: Real Unix seconds.
        virtual_at: The emulator's own time.
        path: Without the API's base path.
        faults: What was done to it on purpose.
    """

    seq: int
    at: float
    virtual_at: float
    method: str
    path: str
    query: Mapping[str, str]
    body: object
    caller: str
    status: int | None = None
    duration_ms: float = 0.0
    faults: tuple[str, ...] = ()


class CallLog:
    """The last calls in full, all of them as counts."""

    def __init__(self) -> None:
        self.total = 0
        self.counts: Counter[tuple[str, str]] = Counter()
        self._entries: deque[Entry] = deque(maxlen=KEPT)

    def add(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: object,
        caller: str,
        virtual_at: float,
        known: bool,
    ) -> Entry:
        """Record a call that has just come in; an unknown path is counted as `(unknown)`."""
        self.total += 1
        self.counts[method, path if known else "(unknown)"] += 1
        entry = Entry(
            self.total, time.time(), virtual_at, method, path, query, redacted(body), caller
        )
        self._entries.append(entry)
        return entry

    def find(self, path: str = "", method: str = "", after: int = 0) -> Iterator[Entry]:
        """The remembered calls that match, oldest first, from the one after number `after`."""
        for entry in self._entries:
            if entry.seq <= after or (method and entry.method != method):
                continue
            if not path or matches_path(path, entry.path):
                yield entry


@lru_cache(maxsize=1024)
def caller_label(key: str) -> str:
    """The name under which an API key appears: the start of its digest, never of itself."""
    return f"key-{hashlib.sha256(key.encode()).hexdigest()[:12]}" if key else "anonymous"


def redacted(value: object) -> object:
    """The value without passwords and without the values of environment variables."""
    if isinstance(value, dict):
        return {
            key: "***"
            if key in _SECRET and each
            else _without_values(each)
            if key in {"envs", "env"}
            else redacted(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [redacted(each) for each in value]
    return value


def _without_values(envs: object) -> object:
    if isinstance(envs, list):
        return [
            {**each, "value": "***"} if isinstance(each, dict) and "value" in each else each
            for each in envs
        ]
    return envs if envs is None else "***"
