# SPDX-License-Identifier: Apache-2.0
"""Keyset pagination. A cursor contains the sort key of a record: a time or number, and an ID.

A cursor stays valid after its record is deleted, so every well-formed cursor is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from novitai.errors import FieldError, ValidationFailed

T = TypeVar("T")

MAX_PAGE: Final = 1000
"""The most records on a page."""
PLACE: Final = r"[0-9]{1,18}\.[A-Za-z0-9_]{1,40}"
"""The format of a cursor, as a regular expression."""

_PLACE: Final = re.compile(PLACE)


def read_place(cursor: str | None) -> tuple[int, str] | None:
    """Parse a cursor; return None if there is none.

    Raises:
        ValidationFailed: it is not a valid cursor.
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
    """Make a page of records that were read with a limit of `limit` + 1.

    Args:
        found: The records, in order.
        limit: The most records on the page.
        place: Returns the sort key of a record: its time or number, and its ID.

    Returns:
        The records of the page, and the cursor of the next page; None on the last page.
    """
    if len(found) <= limit:
        return found, None
    shown = found[:limit]
    at, record_id = place(shown[-1])
    return shown, f"{at}.{record_id}"
