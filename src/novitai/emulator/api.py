# SPDX-License-Identifier: Apache-2.0
"""The whole emulated API as one table; paths are written without the API's base path."""

from __future__ import annotations

from novitai.emulator.gate import RouteTable
from novitai.emulator.routes import instances, offers, operations, registries, templates

TABLE: RouteTable = {
    **offers.ROUTES,
    **instances.ROUTES,
    **operations.ROUTES,
    **templates.ROUTES,
    **registries.ROUTES,
}

PATHS = tuple(sorted({path for _, path in TABLE}))
