# SPDX-License-Identifier: Apache-2.0
"""The wording of values for people. Text from a server is one line without control characters."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

from novitai.cli.client.failures import UsageFailed

NONE: Final = "-"
"""Shown in a table where there is no value."""
HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that move the cursor, change the direction of text, or cannot be printed."""
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION: Final = re.compile(r"(?:[0-9]{1,6}[smhdw])+")
_DURATION_PART: Final = re.compile(r"([0-9]+)([smhdw])")


def word(given: object) -> Any:
    """Return a word that the user gave, for a closed set of the API: the server checks it."""
    return given


def clean(value: object) -> str:
    """Return a value as one line in which nothing can steer a terminal."""
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in "\n\r\t":
        return " "
    return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in HIDDEN else character


def or_none(value: object) -> str:
    """Return a value as text, or the sign for none."""
    return NONE if value is None or value == "" else clean(value)


def usd(amount: float | None) -> str:
    """Return an amount in USD: two decimals, or four below a dollar if it is not in cents."""
    if amount is None:
        return NONE
    sign, amount = ("-" if amount < 0 else ""), abs(amount)
    if amount < 1 and abs(amount - round(amount, 2)) > 1e-9:
        return f"{sign}${amount:.4f}"
    return f"{sign}${amount:,.2f}"


def hourly(amount: float | None) -> str:
    """Return a price for an hour."""
    return "an unknown price" if amount is None else f"{usd(amount)} an hour"


def local(at: datetime | None, zone: tzinfo | None = None) -> str:
    """Return a time in a time zone, by default that of this machine, to the minute."""
    return NONE if at is None else at.astimezone(zone).strftime("%Y-%m-%d %H:%M %Z").strip()


def second(at: datetime | None) -> str:
    """Return a time in the time zone of this machine, to the second."""
    return NONE if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """Return a length of time in its two largest units: `2 h 14 min`."""
    left = max(round(seconds), 0)
    if left < 60:
        return f"{left} s"
    days, rest = divmod(left, 86400)
    hours, rest = divmod(rest, 3600)
    minutes = rest // 60
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min"


def until(at: datetime | None) -> str:
    """Return how long it is until a time."""
    if at is None:
        return NONE
    left = (at - datetime.now(UTC)).total_seconds()
    return f"in {span(left)}" if left > 0 else "now"


def count(number: int, noun: str) -> str:
    """Return a number of things: `1 instance`, `2 instances`."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(text: str, name: str) -> timedelta:
    """Read a length of time: `30m`, `8h`, `1h30m`, `2d`.

    Args:
        text: The text.
        name: The option or argument, for the message.

    Raises:
        UsageFailed: it is not a length of time above 0.
    """
    wanted = text.strip().lower()
    parts = _DURATION_PART.findall(wanted) if _DURATION.fullmatch(wanted) else []
    seconds = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if not seconds:
        raise UsageFailed(f"{name}: {clean(text)!r} is not a length of time such as 30m, 8h or 2d")
    return timedelta(seconds=seconds)


def minutes(text: str, name: str) -> int:
    """Read a length of time in whole minutes.

    Raises:
        UsageFailed: it is not a number of whole minutes above 0.
    """
    whole, rest = divmod(duration(text, name), timedelta(minutes=1))
    if rest:
        raise UsageFailed(f"{name}: {clean(text)!r} is not a number of whole minutes")
    return whole


def pairs(texts: list[str] | None, name: str) -> dict[str, str]:
    """Read texts of the form `name=value`.

    Raises:
        UsageFailed: one of them has no `=` or no name.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise UsageFailed(f"{name}: {clean(text)!r} is not of the form name=value")
        found[key] = value
    return found
