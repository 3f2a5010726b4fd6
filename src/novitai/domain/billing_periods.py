# SPDX-License-Identifier: Apache-2.0
"""Calendar periods in a time zone, and amounts by period. Pure.

A period is half open. A day of a zone may have 23 or 25 hours; a week begins on Monday.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from novitai.domain.billing import HOUR_MS


class Bucket(StrEnum):
    """The length of a period."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def zone(name: str) -> ZoneInfo | None:
    """Return a time zone by its IANA name; None if there is none of that name."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


def begin_of(bucket: Bucket, at: int, tz: ZoneInfo) -> int:
    """Return the begin of the period that contains a time, in Unix milliseconds."""
    local = datetime.fromtimestamp(at / 1000, tz)
    if bucket is Bucket.HOUR:
        # Whole hours of the zone's clock, also where its offset is not a whole hour.
        past = timedelta(minutes=local.minute, seconds=local.second).total_seconds()
        return at // 1000 * 1000 - int(past) * 1000
    return _midnight(_first_day(bucket, local), tz)


def end_of(bucket: Bucket, at: int, tz: ZoneInfo) -> int:
    """Return the end of the period that contains a time, in Unix milliseconds."""
    if bucket is Bucket.HOUR:
        return begin_of(bucket, at, tz) + HOUR_MS
    day = _first_day(bucket, datetime.fromtimestamp(at / 1000, tz))
    if bucket is Bucket.MONTH:
        following = (day + timedelta(days=32)).replace(day=1)
    else:
        following = day + timedelta(days=7 if bucket is Bucket.WEEK else 1)
    return _midnight(following, tz)


def periods(bucket: Bucket, since: int, until: int, tz: ZoneInfo) -> Iterator[tuple[int, int]]:
    """Yield begin and end of the periods that cover `[since, until)`, cut at its ends."""
    while since < until:
        end = min(until, end_of(bucket, since, tz))
        yield since, end
        since = end


def _first_day(bucket: Bucket, local: datetime) -> datetime:
    day = datetime(local.year, local.month, local.day)  # noqa: DTZ001 - a day, not a moment
    if bucket is Bucket.MONTH:
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if bucket is Bucket.WEEK else day


def _midnight(day: datetime, tz: ZoneInfo) -> int:
    """Return when a day begins; where the clock skips midnight, the first moment after it."""
    begin = day.replace(tzinfo=tz)
    moment = begin.astimezone(UTC)
    if moment.astimezone(tz).date() < begin.date():  # a midnight that does not exist
        moment += timedelta(hours=1)
    return int(moment.timestamp() * 1000)
