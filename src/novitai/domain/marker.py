# SPDX-License-Identifier: Apache-2.0
"""The upstream name: the user's name with a marker that identifies the create call.

Novita has no idempotency key and its names need not be unique (upstream.md §1), so the name
is the only value of ours that a listing returns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from novitai.ids import ATTEMPT_ID_LENGTH, INSTALLATION_ID_LENGTH

MARKER_LENGTH: Final = len("-nv") + INSTALLATION_ID_LENGTH + ATTEMPT_ID_LENGTH
MAX_UPSTREAM_NAME: Final = 255
_MARKER: Final = re.compile(
    rf"-nv([a-z0-9]{{{INSTALLATION_ID_LENGTH}}})([a-z0-9]{{{ATTEMPT_ID_LENGTH}}})\Z"
)


@dataclass(frozen=True, slots=True)
class Marker:
    """The installation that owns an instance, and the create call that made it."""

    installation_id: str
    attempt_id: str


def upstream_stem(name: str) -> str:
    """Return the part of the upstream name before the marker, for an instance called `name`."""
    return name.replace("_", "-")[: MAX_UPSTREAM_NAME - MARKER_LENGTH]


def upstream_name(name: str, marker: Marker) -> str:
    """Return the instance's name at Novita: letters, digits and hyphens, with the marker last."""
    return f"{upstream_stem(name)}-nv{marker.installation_id}{marker.attempt_id}"


def without_marker(upstream_name: str) -> str:
    """Return the part before the marker; the whole name if there is no marker."""
    return upstream_name[:-MARKER_LENGTH] if read_marker(upstream_name) else upstream_name


def read_marker(upstream_name: str) -> Marker | None:
    """Return the marker of an upstream name; None if there is none."""
    match = _MARKER.search(upstream_name)
    return Marker(match[1], match[2]) if match else None
