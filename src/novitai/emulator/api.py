# SPDX-License-Identifier: Apache-2.0
"""The route table of the emulated API; GPU-instance paths are written without the base path."""

from __future__ import annotations

from novitai.emulator.gate import RouteTable
from novitai.emulator.routes import (
    account,
    changes,
    instances,
    jobs,
    networks,
    offers,
    operations,
    registries,
    storages,
    templates,
)

TABLE: RouteTable = {
    **offers.ROUTES,
    **instances.ROUTES,
    **operations.ROUTES,
    **changes.ROUTES,
    **templates.ROUTES,
    **registries.ROUTES,
    **storages.ROUTES,
    **networks.ROUTES,
    **jobs.ROUTES,
    **account.ROUTES,
}

PATHS = tuple(sorted({path for _, path in TABLE}))
