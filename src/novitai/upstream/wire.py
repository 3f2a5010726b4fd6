# SPDX-License-Identifier: Apache-2.0
"""Reads single values that upstream may send in several forms, or malformed.

No function here raises: a value that cannot be read counts as absent (upstream.md §1).
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
# The last second of the year 9999, the maximum of Python's `datetime`.
_MAX_SECONDS: Final = 253_402_300_799
_EMPTY: Final[Object] = {}


def text(value: Json, limit: int = MAX_TEXT) -> str:
    """Read a string for display; a number is converted to text, anything else is `""`.

    It is cut at `limit` characters; line breaks become spaces, other unprintable characters are
    removed.
    """
    return outside.plain(verbatim(value), limit)


def verbatim(value: Json, limit: int = _MAX_INTEGER) -> str:
    """Read a string that must not be changed, such as a command, but cut it at `limit`.

    NUL characters are removed, because PostgreSQL cannot store them.
    """
    if type(value) is str:
        return (value.replace("\x00", "") if "\x00" in value else value)[:limit]
    if type(value) is int or type(value) is float:
        return str(value)[:limit]
    return ""


def secret(value: Json) -> str:
    """Read a password; `""` if it cannot be displayed unchanged: a user could not type it."""
    found = verbatim(value)
    return found if text(value, MAX_SECRET) == found else ""


def integer(value: Json) -> int | None:
    """Read a whole number, sent as a number or as decimal text; None for anything else."""
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
        # "60.0" and "6e1" are rare, so this path may be slow.
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


def quantity(value: Json, most: float) -> float | None:
    """Read a number from 0 to `most`, sent as a number or as text; None for anything else."""
    if type(value) is str and value[:1].isascii() and value[:1].isdigit():
        try:
            value = float(value)
        except ValueError:
            return None
    if type(value) is not int and type(value) is not float:
        return None
    return float(value) if 0 <= value <= most else None


def positive(value: Json, most: int = _MAX_INTEGER) -> int | None:
    """Read a whole number from 1 to `most`; None for anything else."""
    number = integer(value)
    return number if number is not None and 0 < number <= most else None


def moment(value: Json) -> int | None:
    """Read Unix seconds as Unix milliseconds; None for "0" and "-1": they mean not set (§1)."""
    seconds = integer(value)
    if seconds is None or not 0 < seconds <= _MAX_SECONDS:
        return None
    return seconds * 1000


def moment_or_never(value: Json) -> int | None:
    """Read Unix seconds as Unix milliseconds: 0 for "0", which means never; else as `moment`."""
    return 0 if integer(value) == 0 else moment(value)


def flag(value: Json) -> bool | None:
    """Read a boolean, sent as a boolean, as text or as 0 or 1; None for anything else."""
    if type(value) is bool:
        return value
    if type(value) is str:
        return {"true": True, "false": False, "1": True, "0": False}.get(value.strip().lower())
    if type(value) is int and value in {0, 1}:
        return value == 1
    return None


def mapping(value: Json) -> Object:
    """Read an object, or the first object of a list; an empty object for anything else."""
    if type(value) is dict:
        return value
    if type(value) is list and value and type(value[0]) is dict:
        return value[0]
    return _EMPTY


def objects(value: Json) -> list[Object]:
    """Read a list of objects, skipping other items; a single object becomes a list of one."""
    if type(value) is list:
        return [item for item in value if type(item) is dict]
    if type(value) is dict and value:
        return [value]
    return []
