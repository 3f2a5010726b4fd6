# SPDX-License-Identifier: Apache-2.0
"""Cursors of lists that are ordered by a time or number and an id: the place, written out.

Whether the record that was there still is makes no difference, so every well-formed cursor is good.
"""

from __future__ import annotations

import re
from typing import Final

from novitai.errors import FieldError, ValidationFailed

PLACE: Final = r"[0-9]{1,18}\.[A-Za-z0-9_]{1,40}"
"""What a cursor looks like, as a regular expression."""

_PLACE: Final = re.compile(PLACE)


def write_place(at: int, record_id: str) -> str:
    """Write the place of a record; `at` is its time, or its number, in the order."""
    return f"{at}.{record_id}"


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
