# SPDX-License-Identifier: Apache-2.0
"""Long lists of ids in parts: a statement takes a bounded number of parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

CHUNK: Final = 500
"""Parameters of one statement: under the 999 that an old SQLite takes, and quick to compile."""


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Cut a list into parts of at most `size` items, in order; an empty list has none."""
    return (items[start : start + size] for start in range(0, len(items), size))
