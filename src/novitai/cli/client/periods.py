# SPDX-License-Identifier: Apache-2.0
"""Periods in words: `last month`, `this week`, `7d`, `2026-09`, `2026-09-01..2026-09-15`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from novitai.cli.client.failures import UsageFailed
from novitai.cli.client.wording import clean

EXAMPLES: Final = "today, yesterday, this week, last month, 7d, 2026-09, 2026-09-01..2026-09-15"
_LAST: Final = re.compile(r"(?:last )?([0-9]{1,3}) ?(h|d|w|hours?|days?|weeks?)")
_MONTH: Final = re.compile(r"([0-9]{4})-([0-9]{2})")
_UNITS: Final = {"h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class Interval:
    """`[start, end)`; an end of None is now."""

    start: datetime
    end: datetime | None


def interval(text: str, zone: str, now: datetime) -> Interval:
    """Read a period.

    Args:
        text: The period in words.
        zone: The IANA name of the time zone of days, weeks and months; weeks begin on Monday.
        now: The present, with a time zone.

    Raises:
        UsageFailed: the words or the time zone are not known.
    """
    try:
        tz = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageFailed(f"--tz: there is no time zone {clean(zone)!r}") from None
    words = " ".join(text.lower().split())
    today = now.astimezone(tz).date()
    named = _named(words, today)
    if named is not None:
        first, last = named
        return Interval(_at(first, tz), None if last is None else _at(last, tz))
    match = _LAST.fullmatch(words)
    if match is not None and int(match[1]):
        return Interval(now - timedelta(**{_UNITS[match[2][0]]: int(match[1])}), None)
    dated = _dated(words)
    if dated is None:
        raise UsageFailed(f"--for: {clean(text)!r} is not a period", f"Periods are: {EXAMPLES}.")
    return Interval(_at(dated[0], tz), _at(dated[1], tz))


def _named(words: str, today: date) -> tuple[date, date | None] | None:
    """Return the first day, and the day after the last one; None is now."""
    week = today - timedelta(days=today.weekday())
    month = today.replace(day=1)
    known: dict[str, tuple[date, date | None]] = {
        "today": (today, None),
        "yesterday": (today - timedelta(days=1), today),
        "this week": (week, None),
        "last week": (week - timedelta(days=7), week),
        "this month": (month, None),
        "last month": ((month - timedelta(days=1)).replace(day=1), month),
        "this year": (today.replace(month=1, day=1), None),
    }
    return known.get(words)


def _dated(words: str) -> tuple[date, date] | None:
    try:
        month = _MONTH.fullmatch(words)
        if month is not None:
            first = date(int(month[1]), int(month[2]), 1)
            return first, (first + timedelta(days=32)).replace(day=1)
        begin, dots, end = words.partition("..")
        first = date.fromisoformat(begin)
        last = date.fromisoformat(end) if dots else first + timedelta(days=1)
    except ValueError:
        return None
    return (first, last) if first < last else None


def _at(day: date, tz: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), tz)
