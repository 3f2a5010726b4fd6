# SPDX-License-Identifier: Apache-2.0
"""Both surfaces have exact types: `make check` fails if a call has another type than stated."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, assert_type

import pytest

from novitai_client import AsyncNovitai, Event, Gap, Instance, Novitai
from novitai_client.models.money import Budget
from novitai_client.surface import run
from tests.client.documented import DocumentedServer
from tests.client.scripted import CREATE, URL


def test_the_blocking_surface_is_typed(documented: DocumentedServer) -> None:
    """Methods return results, iterators and context managers."""
    with documented.client() as client:
        assert_type(client, Novitai)
        assert_type(client.instances.get("inst_1"), Instance)
        assert_type(client.instances.list(), Iterator[Instance])
        assert_type(client.events.stream(), Iterator[Event | Gap])
        assert_type(client.instances.rent(**CREATE), AbstractContextManager[Instance, None])
        assert_type(client.budgets.create(name="ci", amount=5, period="day"), Budget)
        with pytest.raises(TypeError):
            client.instances.get()  # type: ignore[call-arg]  # the ID is missing


async def test_the_concurrent_surface_is_typed() -> None:
    """The same methods return coroutines, asynchronous iterators and context managers."""
    async with AsyncNovitai(URL, "nvt_x") as client:
        getting = assert_type(client.instances.get("inst_1"), Coroutine[Any, Any, Instance])
        getting.close()
        assert_type(client.instances.list(), AsyncIterator[Instance])
        assert_type(client.events.stream(), AsyncIterator[Event | Gap])
        assert_type(client.instances.rent(**CREATE), AbstractAsyncContextManager[Instance, None])


def test_a_blocking_call_never_needs_an_event_loop() -> None:
    """A coroutine that suspends is an error of ours, and is told as one."""

    class Suspends:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def wait() -> None:
        await Suspends()

    with pytest.raises(RuntimeError, match="must not suspend"):
        run(wait())
