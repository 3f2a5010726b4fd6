# SPDX-License-Identifier: Apache-2.0
"""Queries of auto-stop: which samples of GPU use are due, and what is known about use."""

from __future__ import annotations

from typing import Final

from novitai.domain.idle import IdleMemory, idle_memory_from_json, idle_memory_to_json
from novitai.store.queries.memories import Memories
from novitai.store.tables import instances as table

_MEMORIES: Final[Memories[IdleMemory]] = Memories(
    table.c.auto_stop_memory,
    table.c.sample_due_at,
    idle_memory_from_json,
    idle_memory_to_json,
)
due: Final = _MEMORIES.due
sample_due_at: Final = _MEMORIES.due_at
memory: Final = _MEMORIES.load
store_memory: Final = _MEMORIES.store
dump_memory: Final = _MEMORIES.dump
pull_back: Final = _MEMORIES.pull_back
