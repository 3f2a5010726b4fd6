# SPDX-License-Identifier: Apache-2.0
"""Lengths of time, periods, amounts, and text that cannot steer a terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from novitai.cli.client import wording
from novitai.cli.client.failures import UsageFailed
from novitai.cli.client.periods import interval

NOW = datetime(2026, 9, 16, 22, 30, tzinfo=UTC)  # a Wednesday


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("8h", 28800), ("1h30m", 5400), ("2d", 172800), ("1W", 604800)],
)
def test_lengths_of_time_are_read(text: str, seconds: int) -> None:
    """A number with a unit, or several of them."""
    assert wording.duration(text, "--x") == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "8", "h", "0h", "-1h", "1.5h", "1y", "8 h", "٣h", "9999999h"])
def test_other_lengths_are_refused(text: str) -> None:
    """A number without a unit could be minutes or seconds, so it is not guessed."""
    with pytest.raises(UsageFailed, match="--x"):
        wording.duration(text, "--x")


def test_minutes_are_whole() -> None:
    """The API counts limits in minutes."""
    assert wording.minutes("120s", "--x") == 2
    with pytest.raises(UsageFailed, match="whole minutes"):
        wording.minutes("90s", "--x")


@pytest.mark.parametrize(
    ("words", "zone", "start", "end"),
    [
        ("today", "UTC", "2026-09-16T00:00+00:00", None),
        ("today", "Asia/Tokyo", "2026-09-17T00:00+09:00", None),
        ("yesterday", "UTC", "2026-09-15T00:00+00:00", "2026-09-16T00:00+00:00"),
        ("this week", "UTC", "2026-09-14T00:00+00:00", None),
        ("last week", "UTC", "2026-09-07T00:00+00:00", "2026-09-14T00:00+00:00"),
        ("this month", "UTC", "2026-09-01T00:00+00:00", None),
        ("Last  Month", "UTC", "2026-08-01T00:00+00:00", "2026-09-01T00:00+00:00"),
        ("this year", "UTC", "2026-01-01T00:00+00:00", None),
        ("7d", "UTC", "2026-09-09T22:30+00:00", None),
        ("last 24 hours", "UTC", "2026-09-15T22:30+00:00", None),
        ("2026-02", "UTC", "2026-02-01T00:00+00:00", "2026-03-01T00:00+00:00"),
        ("2026-12", "UTC", "2026-12-01T00:00+00:00", "2027-01-01T00:00+00:00"),
        ("2026-09-01", "UTC", "2026-09-01T00:00+00:00", "2026-09-02T00:00+00:00"),
        (
            "2026-03-01..2026-04-01",
            "Europe/Berlin",
            "2026-03-01T00:00+01:00",
            "2026-04-01T00:00+02:00",
        ),
    ],
)
def test_periods_are_read(words: str, zone: str, start: str, end: str | None) -> None:
    """Days, weeks and months are those of the time zone."""
    found = interval(words, zone, NOW)
    assert found.start == datetime.fromisoformat(start)
    assert found.end == (None if end is None else datetime.fromisoformat(end))


@pytest.mark.parametrize(
    ("words", "zone"),
    [
        ("someday", "UTC"),
        ("2026-13", "UTC"),
        ("2026-02-30", "UTC"),
        ("2026-02-03..2026-02-01", "UTC"),
        ("0d", "UTC"),
        ("today", "Mars/Olympus"),
        ("today", "../etc/passwd"),
        ("today", ""),
    ],
)
def test_other_periods_are_refused(words: str, zone: str) -> None:
    """A wrong word, date or time zone is a usage error that names the option."""
    with pytest.raises(UsageFailed, match=r"--for|--tz"):
        interval(words, zone, NOW)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0.0, "$0.00"),
        (0.35, "$0.35"),
        (0.00123, "$0.0012"),
        (12.5, "$12.50"),
        (1234.567, "$1,234.57"),
        (-2.5, "-$2.50"),
        (None, "-"),
    ],
)
def test_amounts_keep_what_matters(amount: float | None, shown: str) -> None:
    """Cents, and more digits for small amounts."""
    assert wording.usd(amount) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(5, "5 s"), (59.6, "1 min"), (840, "14 min"), (8040, "2 h 14 min"), (7200, "2 h"),
     (187200, "2 d 4 h"), (-3, "0 s")],
)  # fmt: skip
def test_lengths_of_time_have_two_units(seconds: float, shown: str) -> None:
    """The two largest units are enough."""
    assert wording.span(seconds) == shown


def test_text_cannot_steer_the_terminal() -> None:
    """Control, bidirectional and line characters are replaced; other scripts are kept."""
    assert wording.clean("\x1b[31mred\nblue\u202e\u2028x\x9b") == "�[31mred blue��x�"
    assert wording.clean("Вася 東京 é") == "Вася 東京 é"
