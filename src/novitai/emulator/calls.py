# SPDX-License-Identifier: Apache-2.0
"""The log of calls to the emulated API; it is bounded and contains no secrets."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from novitai.emulator.faults import matches_path

KEPT = 20_000
"""How many calls the log keeps; older calls are only counted."""

LONGEST_BODY = 16_384
"""A request body larger than this many bytes is not kept; only its size is."""

_SECRET = frozenset({"password", "imageAuth", "token", "secret"})


@dataclass(slots=True)
class Entry:
    """A call; `status` is None while the call runs, and 0 if its connection was dropped.

    Attributes:
        at: Real Unix seconds.
        virtual_at: Virtual Unix seconds.
        path: The path without the API's base path.
        faults: The faults that were applied to the call.
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
    """Keeps the latest calls in full, and counts all calls."""

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
        """Record a call on arrival; an unknown path is counted as `(unknown)`."""
        self.total += 1
        self.counts[method, path if known else "(unknown)"] += 1
        entry = Entry(
            self.total, time.time(), virtual_at, method, path, query, redacted(body), caller
        )
        self._entries.append(entry)
        return entry

    def find(self, path: str = "", method: str = "", after: int = 0) -> Iterator[Entry]:
        """Yield the kept calls that match and whose number is above `after`, oldest first."""
        for entry in self._entries:
            if entry.seq <= after or (method and entry.method != method):
                continue
            if not path or matches_path(path, entry.path):
                yield entry


@lru_cache(maxsize=1024)
def caller_label(key: str) -> str:
    """Return the label of an API key: the start of its SHA-256 digest, never part of the key."""
    return f"key-{hashlib.sha256(key.encode()).hexdigest()[:12]}" if key else "anonymous"


def redacted(value: object) -> object:
    """Return the value with secrets and the values of environment variables masked."""
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
