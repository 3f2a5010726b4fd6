# SPDX-License-Identifier: Apache-2.0
"""Entity tags: `ETag`, `If-Match` and `If-None-Match` (RFC 9110, sections 8.8.3 and 13.1)."""

from __future__ import annotations

from collections.abc import Sequence


def weak_tag(digest: str) -> str:
    """Return the weak entity tag of a digest."""
    return f'W/"{digest}"'


def matches(given: Sequence[str], tag: str) -> bool:
    """Return whether the values of a header name a tag, or are `*`.

    Only the opaque parts are compared. For `If-Match` the RFC asks for strong tags, but the tags of
    instances are weak: they leave out the fields that each listing changes.
    """
    if not given:
        return False
    opaque = tag.removeprefix("W/")
    tags = [part.strip() for value in given for part in value.split(",")]
    return "*" in tags or opaque in [part.removeprefix("W/") for part in tags]
