# SPDX-License-Identifier: Apache-2.0
"""The endpoints of Novita's API that novitai never calls, for clients other than novitai.

They are part of the source tree and not of the wheel: what a server installs has no code that only
development uses. The emulator runs without them.
"""

from __future__ import annotations

from novitai.emulator.extras import changes, jobs, networks, registries, storages
from novitai.emulator.gate import RouteTable

ROUTES: RouteTable = {
    **changes.ROUTES,
    **jobs.ROUTES,
    **networks.ROUTES,
    **registries.ROUTES,
    **storages.ROUTES,
}
