# SPDX-License-Identifier: Apache-2.0
"""The composition root: what the settings say reaches the rooms, and a dead loop is told of."""

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
    """What is logged."""
    stream = io.StringIO()
    logs.set_up(production=True, stream=stream)
    # A logger that is kept would write to this stream in other tests, where nobody looks.
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
    """Limits, the insistence on HTTPS and the permission for private receivers are handed on."""
    services = app.services()
    assert (services.quota.capacity, services.quota.per_minute) == (10, 7)
    assert services.rules.insist_on_https
    assert services.allow_private_webhooks
    assert {cache.name for cache in services.caches} >= {"products", "templates", "clusters"}
    assert services.health.cache_works()
    assert not services.health.upstream_down()
    await services.health.ping()


async def test_results_that_came_too_late_are_told(app: Application) -> None:
    """One number for what was fenced off, of operations and of deliveries."""
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
    """Nothing else would tell: requests are still accepted when nobody works on them."""
    await app.start(work=True)
    loop = next(task for task in asyncio.all_tasks() if task.get_name() == "jobs-sweep")
    loop.cancel()
    await asyncio.wait({loop})
    await asyncio.sleep(0)
    assert '"loop_ended"' in lines.getvalue()
    assert '"jobs-sweep"' in lines.getvalue()


async def test_a_loop_that_is_stopped_is_no_news(lines: io.StringIO, app: Application) -> None:
    """An orderly end is not reported as a defect."""
    await app.start(work=True)
    await app.stop()
    assert "loop_ended" not in lines.getvalue()


async def test_every_loop_is_watched(app: Application) -> None:
    """Every task that the application begins is handed to the supervisor."""
    before = asyncio.all_tasks()
    await app.start(work=True)
    begun = {task.get_name() for task in asyncio.all_tasks() - before}
    assert begun == set(app.loops.names)
    assert {"sync", "housekeeping", "clock-watch", "jobs-sweep", "jobs-reminder"} == begun


async def test_another_secret_key_is_refused_at_start(
    sqlite_database_url: str, tmp_path: Path, clock: ManualClock
) -> None:
    """With it nothing that was stored could be read, so it is said before anything is changed."""
    settings = settings_for(sqlite_database_url, tmp_path)
    async with open_store(settings, clock):
        pass
    other = settings.model_copy(
        update={"secret_key": SecretStr("another secret of thirty-two bytes")}
    )
    with pytest.raises(StartupError, match="NOVITAI_SECRET_KEY"):
        async with open_store(other, clock):
            pass
