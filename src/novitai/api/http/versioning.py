# SPDX-License-Identifier: Apache-2.0
"""API versions in the path, and deprecation of routes (API reference, "Versioning")."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

CURRENT: Final = "/v1"
MIN_NOTICE: Final = timedelta(days=183)
"""The API reference promises 6 months between the deprecation and the removal of a route."""


def without_version(path: str) -> str:
    """Strip the optional prefix `/v1`; a path with another version matches no route."""
    if path == CURRENT:
        return "/"
    return path[len(CURRENT) :] if path.startswith(CURRENT + "/") else path


@dataclass(frozen=True, slots=True)
class Deprecation:
    """The deprecation of a route: when it was announced, when it is removed, and the page about it.

    Raises:
        ValueError: the notice is shorter than 183 days, or a time has no offset.
    """

    since: datetime
    sunset: datetime
    link: str

    def __post_init__(self) -> None:
        if self.since.tzinfo is None or self.sunset.tzinfo is None:
            raise ValueError("the times of a deprecation need an offset")
        if self.sunset - self.since < MIN_NOTICE:
            raise ValueError(f"a deprecated route must remain for at least {MIN_NOTICE.days} days")

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers `Deprecation` (RFC 9745), `Sunset` (RFC 8594) and a link for each."""
        sunset = format_datetime(self.sunset.astimezone(UTC), usegmt=True)
        return [
            (b"deprecation", b"@%d" % int(self.since.timestamp())),
            (b"sunset", sunset.encode()),
            (b"link", f'<{self.link}>; rel="deprecation"; type="text/html"'.encode("latin-1")),
            (b"link", f'<{self.link}>; rel="sunset"; type="text/html"'.encode("latin-1")),
        ]
