# SPDX-License-Identifier: Apache-2.0
"""Upstreams of three kinds: the emulator, a stub in this process, and a socket that misbehaves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from novitai.emulator.config import EmulatorConfig
from novitai.emulator.server import serve
from novitai.ids import Ids
from novitai.testing import ManualClock
from novitai.upstream.models import CreateInstance
from tests.upstream.servers import Calls, Maker, RawServer, T


@pytest.fixture
async def raw() -> AsyncIterator[RawServer]:
    """A server on a real socket that follows a script."""
    raw_server = RawServer()
    server = await asyncio.start_server(raw_server.handle, "127.0.0.1", 0)
    raw_server.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield raw_server
    server.close()
    await raw_server.drop_idle()
    await server.wait_closed()


@pytest.fixture
def ids() -> Ids:
    """Identifiers and jitter from a fixed seed."""
    return Ids(random.Random(7))


@pytest.fixture
def calls() -> Calls:
    """An observer."""
    return Calls()


@pytest.fixture
async def make(clock: ManualClock, ids: Ids) -> AsyncIterator[Maker]:
    """Makes clients."""
    maker = Maker(clock, ids)
    yield maker
    await maker.aclose()


@pytest.fixture
async def emulator_url() -> AsyncIterator[str]:
    """An emulator on a real socket, with short delays."""
    async with serve(EmulatorConfig(port=0, speed=20_000, seed=1)) as url:
        yield url


@pytest.fixture
def finish(clock: ManualClock) -> Callable[[Coroutine[Any, Any, T]], Awaitable[T]]:
    """Run a coroutine to its end, advancing virtual time while it waits."""

    async def run(work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work)
        for _ in range(10_000):
            if task.done():
                break
            await clock.advance(0.25)
            await asyncio.sleep(0.0005)
        return await task

    return run


@pytest.fixture
def wanted() -> CreateInstance:
    """A create with every kind of secret."""
    return CreateInstance(
        name="trainer-nv",
        product_id="4090.16c62g",
        gpu_num=1,
        rootfs_size=60,
        image_url="pytorch/pytorch:latest",
        envs=(("TOKEN", "env-secret-value"),),
    )
