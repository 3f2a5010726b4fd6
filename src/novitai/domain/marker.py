# SPDX-License-Identifier: Apache-2.0
"""The upstream name: the user's name with a marker by which a create call is found again.

Novita has no idempotency key and its names need not be unique (upstream.md §1), so the name
is the only thing of ours that a listing gives back.
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
    """Whose instance it is, and which create call made it."""

    installation_id: str
    attempt_id: str


def upstream_stem(name: str) -> str:
    """Return what stands before the marker in the upstream name of an instance of this name."""
    return name.replace("_", "-")[: MAX_UPSTREAM_NAME - MARKER_LENGTH]


def upstream_name(name: str, marker: Marker) -> str:
    """Make the name an instance bears at Novita: letters, digits and hyphens, marker last."""
    return f"{upstream_stem(name)}-nv{marker.installation_id}{marker.attempt_id}"


def without_marker(upstream_name: str) -> str:
    """Return what stands before the marker; the whole name where there is none."""
    return upstream_name[:-MARKER_LENGTH] if read_marker(upstream_name) else upstream_name


def read_marker(upstream_name: str) -> Marker | None:
    """Find the marker in an upstream name; None where there is none."""
    match = _MARKER.search(upstream_name)
    return Marker(match[1], match[2]) if match else None
