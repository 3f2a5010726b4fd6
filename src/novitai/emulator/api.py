# SPDX-License-Identifier: Apache-2.0
"""The route table of the emulated API; GPU-instance paths are written without the base path."""

from __future__ import annotations

from novitai.emulator.gate import RouteTable
from novitai.emulator.routes import billing, instances, metrics, offers, operations, templates


def load_extras() -> RouteTable:
    """Load the endpoints that novitai never calls; none where they are not installed."""
    try:
        from novitai.emulator.extras import ROUTES
    except ModuleNotFoundError as error:
        if error.name != "novitai.emulator.extras":
            raise
        return {}
    return ROUTES


_EXTRAS = load_extras()

HAS_EXTRAS = bool(_EXTRAS)
"""Whether the endpoints that novitai never calls are installed."""

TABLE: RouteTable = {
    **offers.ROUTES,
    **instances.ROUTES,
    **operations.ROUTES,
    **templates.ROUTES,
    **billing.ROUTES,
    **metrics.ROUTES,
    **_EXTRAS,
}

PATHS = tuple(sorted({path for _, path in TABLE}))
