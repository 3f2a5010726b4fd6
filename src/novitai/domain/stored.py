# SPDX-License-Identifier: Apache-2.0
"""Values of stored JSON objects. A value of another type counts as absent."""

from __future__ import annotations

from collections.abc import Mapping


def integer(stored: Mapping[str, object], name: str) -> int | None:
    """Return an integer of a stored object; None if it is absent or anything else."""
    value = stored.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text(stored: Mapping[str, object], name: str) -> str | None:
    """Return a text of a stored object; None if it is absent or anything else."""
    value = stored.get(name)
    return value if isinstance(value, str) else None
