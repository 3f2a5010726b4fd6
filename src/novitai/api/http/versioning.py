# SPDX-License-Identifier: Apache-2.0
"""Versions in the path, and how a route is declared deprecated (API reference, "Versioning")."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

CURRENT: Final = "/v1"
MIN_NOTICE: Final = timedelta(days=183)
"""The reference promises 6 months between the deprecation of a route and its end."""


def without_version(path: str) -> str:
    """Strip `/v1`, which every path may have in front; another version stays, and is no route."""
    if path == CURRENT:
        return "/"
    return path[len(CURRENT) :] if path.startswith(CURRENT + "/") else path


@dataclass(frozen=True, slots=True)
class Deprecation:
    """Declares that a route goes away: since when that is known, when it ends, where to read why.

    Raises:
        ValueError: less than 183 days of notice, or a time without an offset.
    """

    since: datetime
    sunset: datetime
    link: str

    def __post_init__(self) -> None:
        if self.since.tzinfo is None or self.sunset.tzinfo is None:
            raise ValueError("a deprecation's times need an offset")
        if self.sunset - self.since < MIN_NOTICE:
            raise ValueError(f"a deprecated route stays for at least {MIN_NOTICE.days} days")

    def headers(self) -> list[tuple[str, str]]:
        """Say it in headers: `Deprecation` (RFC 9745), `Sunset` (RFC 8594), and a link for each."""
        return [
            ("Deprecation", f"@{int(self.since.timestamp())}"),
            ("Sunset", format_datetime(self.sunset.astimezone(UTC), usegmt=True)),
            ("Link", f'<{self.link}>; rel="deprecation"; type="text/html"'),
            ("Link", f'<{self.link}>; rel="sunset"; type="text/html"'),
        ]
