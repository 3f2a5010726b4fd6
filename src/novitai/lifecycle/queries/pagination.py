# SPDX-License-Identifier: Apache-2.0
"""Pages of lists in the order of a time or number and an id: a cursor is the place, written out.

Whether the record that was there still is makes no difference, so every well-formed cursor is good.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from novitai.errors import FieldError, ValidationFailed

T = TypeVar("T")

MAX_PAGE: Final = 1000
"""How many records a page holds at most."""
PLACE: Final = r"[0-9]{1,18}\.[A-Za-z0-9_]{1,40}"
"""What a cursor looks like, as a regular expression."""

_PLACE: Final = re.compile(PLACE)


def read_place(cursor: str | None) -> tuple[int, str] | None:
    """Read a place; None where there is no cursor.

    Raises:
        ValidationFailed: it is no cursor of such a list.
    """
    if cursor is None:
        return None
    if not _PLACE.fullmatch(cursor):
        raise ValidationFailed(
            "Validation failed",
            details=[FieldError("cursor", "Cursor is not one that a list returned", cursor)],
        )
    at, _, record_id = cursor.partition(".")
    return int(at), record_id


def cut(
    found: Sequence[T], limit: int, place: Callable[[T], tuple[int, str]]
) -> tuple[Sequence[T], str | None]:
    """Make a page of what was read with one record beyond `limit`, to know whether it goes on.

    Args:
        found: What was read, in order.
        limit: How many the page shows at most.
        place: Tells where a record stands: its time, or its number, and its id.

    Returns:
        What the page shows, and the cursor of the next one; None where there are no more.
    """
    if len(found) <= limit:
        return found, None
    shown = found[:limit]
    at, record_id = place(shown[-1])
    return shown, f"{at}.{record_id}"
