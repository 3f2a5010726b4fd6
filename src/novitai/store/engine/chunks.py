# SPDX-License-Identifier: Apache-2.0
"""Splits long lists of IDs, because a statement takes a limited number of parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

CHUNK: Final = 500
"""Parameters of one statement: below SQLite's old limit of 999, and quick to compile."""


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Split a list into parts of at most `size` items, in order; an empty list gives no parts."""
    return (items[start : start + size] for start in range(0, len(items), size))
