# SPDX-License-Identifier: Apache-2.0
"""Applications to test: one over in-memory services, one over the whole control plane."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Never

import httpx2
import pytest
import structlog

from novitai.app import Application, Outside
from novitai.ids import Ids
from novitai.settings import Settings
from novitai.testing import ManualClock
from tests.api.application import Api, ApiFactory
from tests.api.client import ApiProcess, Http
from tests.lifecycle.world import NO_CERTIFICATES, Emulator, World


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Suppress log output; `capture_logs` still sees the lines."""

    def drop(_logger: object, _method: str, _line: object) -> Never:
        raise structlog.DropEvent

    structlog.configure(processors=[drop])
    yield
    structlog.reset_defaults()


@pytest.fixture
async def idle(
    settings: Settings, clock: ManualClock, emulator: Emulator
) -> AsyncIterator[Application]:
    """Return a whole control plane that has not been started."""
    transport = httpx2.ASGITransport(app=emulator.app, raise_app_exceptions=False)
    outside = Outside(upstream=transport, tls=NO_CERTIFICATES)
    app = await Application.open(settings, clock, Ids(), outside=outside)
    yield app
    await app.stop()


@pytest.fixture
async def factory(idle: Application, clock: ManualClock) -> AsyncIterator[ApiFactory]:
    """Build applications."""
    built = ApiFactory(idle, clock)
    yield built
    await built.close()


@pytest.fixture
async def api(factory: ApiFactory) -> Api:
    """Return an application with default settings."""
    return await factory.make()


@pytest.fixture
async def api_process(idle: Application, clock: ManualClock) -> AsyncIterator[ApiProcess]:
    """Return the whole application without workers."""
    made = await ApiProcess.over(idle, clock)
    yield made
    await made.aclose()


@pytest.fixture
async def http(world: World) -> AsyncIterator[Http]:
    """Return a client of a control plane with workers."""
    made = await Http.open(world.app)
    yield made
    await made.aclose()
