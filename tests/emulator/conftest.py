# SPDX-License-Identifier: Apache-2.0
"""An emulator whose time passes only when a test advances it, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from novitai.emulator import EmulatorConfig, create_app
from tests.emulator.client import KEY, Client, ManualTime


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client of a new in-process emulator whose clock is stopped."""
    time = ManualTime()
    app = create_app(EmulatorConfig(seed=7, time_source=time))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://emulator.test", headers=KEY
    ) as http:
        yield Client(http, app.state.emulator, time)
