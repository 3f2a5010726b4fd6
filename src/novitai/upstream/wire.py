# SPDX-License-Identifier: Apache-2.0
"""Reading single values that upstream may send in more than one form, or wrongly.

Nothing here raises: what cannot be read is absent (upstream.md §1).
"""

from __future__ import annotations

import math
from typing import Final, TypeAlias

from novitai.domain import outside

Json: TypeAlias = (
    "dict[str, Json] | list[Json] | str | int | float | bool | None"  # what decoding returns
)
Object: TypeAlias = dict[str, Json]

MAX_TEXT: Final = 255
MAX_SECRET: Final = 1_024
_MAX_INTEGER: Final = 2**63 - 1
_MAX_DIGITS: Final = 19
# The last second of the year 9999: beyond it no calendar of ours can go.
_MAX_SECONDS: Final = 253_402_300_799
_EMPTY: Final[Object] = {}


def text(value: Json, limit: int = MAX_TEXT) -> str:
    """Read a string to be shown; a number becomes its digits, anything else `""`.

    It is cut at `limit` characters; line breaks become spaces, other characters that do not show
    are dropped.
    """
    return outside.plain(verbatim(value), limit)


def verbatim(value: Json, limit: int = _MAX_INTEGER) -> str:
    """Read a string that must stay as it is, such as a command; it is only cut at `limit`.

    NUL characters are dropped: PostgreSQL cannot store them.
    """
    if type(value) is str:
        return (value.replace("\x00", "") if "\x00" in value else value)[:limit]
    if type(value) is int or type(value) is float:
        return str(value)[:limit]
    return ""


def secret(value: Json) -> str:
    """Read a password; `""` for one that could not be shown, and so not be typed, as it is."""
    found = verbatim(value)
    return found if text(value, MAX_SECRET) == found else ""


def integer(value: Json) -> int | None:
    """Read a whole number sent as a number or as decimal text; None if it is neither."""
    if type(value) is int:
        return value if -_MAX_INTEGER <= value <= _MAX_INTEGER else None
    if type(value) is str:
        return _decimal(value.strip())
    if type(value) is float and math.isfinite(value) and value == int(value):
        return integer(int(value))
    return None


def _decimal(digits: str) -> int | None:
    unsigned = digits.removeprefix("-")
    if not (unsigned.isascii() and unsigned.isdigit()):
        # "60.0" and "6e1" are seldom, so they may be slow.
        return _fraction(digits) if unsigned[:1].isascii() and unsigned[:1].isdigit() else None
    if len(unsigned) > _MAX_DIGITS:
        return None
    return integer(int(digits))


def _fraction(digits: str) -> int | None:
    try:
        number = float(digits)
    except ValueError:
        return None
    return integer(number)


def positive(value: Json, most: int = _MAX_INTEGER) -> int | None:
    """Read a whole number above zero; None for anything else, zero and beyond `most` included."""
    number = integer(value)
    return number if number is not None and 0 < number <= most else None


def moment(value: Json) -> int | None:
    """Read Unix seconds into Unix milliseconds; `"0"` and `"-1"` mean not set (§1)."""
    seconds = integer(value)
    if seconds is None or not 0 < seconds <= _MAX_SECONDS:
        return None
    return seconds * 1000


def flag(value: Json) -> bool | None:
    """Read a truth value sent as such, as text or as 0 and 1; None if it is none of these."""
    if type(value) is bool:
        return value
    if type(value) is str:
        return {"true": True, "false": False, "1": True, "0": False}.get(value.strip().lower())
    if type(value) is int and value in {0, 1}:
        return value == 1
    return None


def mapping(value: Json) -> Object:
    """Read an object; the first one of a list; an empty one for anything else."""
    if type(value) is dict:
        return value
    if type(value) is list and value and type(value[0]) is dict:
        return value[0]
    return _EMPTY


def objects(value: Json) -> list[Object]:
    """Read a list of objects, dropping what is none; a bare object counts as a list of one."""
    if type(value) is list:
        return [item for item in value if type(item) is dict]
    if type(value) is dict and value:
        return [value]
    return []
