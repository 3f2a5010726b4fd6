# SPDX-License-Identifier: Apache-2.0
"""The composition root: settings reach the parts, and a loop that ends is logged."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
import structlog
from pydantic import SecretStr

from novitai.app import Application
from novitai.errors import StartupError
from novitai.ids import Ids
from novitai.opening import open_store
from novitai.settings import Environment
from novitai.telemetry import logs
from novitai.testing import ManualClock
from tests.lifecycle.world import settings_for


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """The log."""
    stream = io.StringIO()
    logs.set_up(production=True, stream=stream)
    # A cached logger would keep writing to this stream in later tests.
    structlog.configure(cache_logger_on_first_use=False)
    yield stream
    structlog.reset_defaults()


@pytest.fixture
async def app(
    sqlite_database_url: str, tmp_path: Path, clock: ManualClock
) -> AsyncIterator[Application]:
    """An application that has not been started."""
    settings = settings_for(
        sqlite_database_url,
        tmp_path,
        rate_limit_per_minute=7,
        rate_limit_burst=3,
        environment=Environment.PRODUCTION,
        webhook_allow_private=True,
    )
    made = await Application.open(settings, clock, Ids())
    yield made
    await made.stop()


async def test_the_api_gets_what_the_settings_say(app: Application) -> None:
    """The API gets the rate limits, the HTTPS requirement and the rule for private receivers."""
    services = app.services()
    assert (services.quota.capacity, services.quota.per_minute) == (10, 7)
    assert services.rules.insist_on_https
    assert services.allow_private_webhooks
    assert {cache.name for cache in services.caches} >= {"products", "templates", "clusters"}
    assert services.health.cache_works()
    assert not services.health.upstream_down()
    await services.health.ping()


async def test_results_that_came_too_late_are_told(app: Application) -> None:
    """One metric counts the fenced writes of operations and of deliveries."""
    app.runner.fenced_writes = 2
    app.deliverer.metrics.fenced = 1
    key = await app.keys.ensure_first_key()
    assert key is not None
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app.api()), base_url="https://novitai"
    ) as http:
        headers = {"Accept": "text/plain", "Authorization": f"Bearer {key.text}"}
        answer = await http.get("/metrics", headers=headers)
    assert "\nnovitai_fenced_writes_total 3.0\n" in answer.text


async def test_a_loop_that_ends_by_itself_is_logged(lines: io.StringIO, app: Application) -> None:
    """A loop that ends is logged, because requests are still accepted without it."""
    await app.start(work=True)
    loop = next(task for task in asyncio.all_tasks() if task.get_name() == "jobs-sweep")
    loop.cancel()
    await asyncio.wait({loop})
    await asyncio.sleep(0)
    assert '"loop_ended"' in lines.getvalue()
    assert '"jobs-sweep"' in lines.getvalue()


async def test_a_loop_that_is_stopped_is_no_news(lines: io.StringIO, app: Application) -> None:
    """A loop that `stop` ends is not logged."""
    await app.start(work=True)
    await app.stop()
    assert "loop_ended" not in lines.getvalue()


async def test_every_loop_is_watched(app: Application) -> None:
    """The supervisor watches every task that the application starts."""
    before = asyncio.all_tasks()
    await app.start(work=True)
    begun = {task.get_name() for task in asyncio.all_tasks() - before}
    assert begun == set(app.loops.names)
    loops = {
        "sync",
        "housekeeping",
        "clock-watch",
        "fleet-count",
        "limit-sweep",
        "reconciliation",
        "jobs-sweep",
        "jobs-reminder",
    }
    assert loops == begun


async def test_another_secret_key_is_refused_at_start(
    sqlite_database_url: str, tmp_path: Path, clock: ManualClock
) -> None:
    """A wrong secret key is refused before any write, because it cannot read stored secrets."""
    settings = settings_for(sqlite_database_url, tmp_path)
    async with open_store(settings, clock):
        pass
    other = settings.model_copy(
        update={"secret_key": SecretStr("another secret of thirty-two bytes")}
    )
    with pytest.raises(StartupError, match="NOVITAI_SECRET_KEY"):
        async with open_store(other, clock):
            pass
