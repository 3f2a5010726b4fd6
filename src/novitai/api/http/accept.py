# SPDX-License-Identifier: Apache-2.0
"""Parse `Accept` and `Accept-Encoding` (RFC 9110, sections 12.5.1 and 12.5.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

PROBLEM: Final = "application/problem+json"
JSON: Final = "application/json"


def wants_problem(accept: str) -> bool:
    """Return whether `Accept` names RFC 9457's media type; `*/*` does not count."""
    ranges = _read(accept)
    named = ranges.get(PROBLEM, 0.0)
    return named > 0 and named >= ranges.get(JSON, 0.0)


def preferred(accept: str, offered: Sequence[str]) -> str:
    """Choose the preferred media type; the first of `offered` if `Accept` is empty.

    If several are equally preferred, the first of them in `offered` wins.
    """
    ranges = _read(accept)
    if not ranges:
        return offered[0]
    return max(offered, key=lambda media: (_quality(ranges, media), -offered.index(media)))


def accepts_gzip(headers: Mapping[str, str]) -> bool:
    """Return whether a response may be compressed with gzip; `*` does not count."""
    return _read(headers.get("accept-encoding", "")).get("gzip", 0.0) > 0


def _quality(ranges: dict[str, float], media: str) -> float:
    for candidate in (media, media.partition("/")[0] + "/*", "*/*"):
        if candidate in ranges:
            return ranges[candidate]
    return 0.0


def _read(accept: str) -> dict[str, float]:
    ranges: dict[str, float] = {}
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if media:
            ranges[media] = max(ranges.get(media, 0.0), _weight(parameters))
    return ranges


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return min(1.0, weight) if weight >= 0 else 0.0
    return 1.0
