# SPDX-License-Identifier: Apache-2.0
"""Compare a scrape of `/metrics` on a database with 10,000 instances with one on an empty database.

Run it with `python -m benchmarks.scrape`; PostgreSQL is measured too if it answers. The scrapes
alternate, so both meet the same load of the machine; the ratio of the fastest tenth of each is
printed, with the time of a count by the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import mean
from typing import Final

import httpx2
from pydantic import SecretStr

from benchmarks.stores import (
    POSTGRESQL,
    SQLITE,
    Store,
    fill,
    postgresql_is_missing,
    postgresql_url,
)
from novitai.app import Application
from novitai.clock import SystemClock
from novitai.ids import Ids
from novitai.settings import Settings
from novitai.store import migrate

_KEY: Final = "admin-key-of-the-benchmark"
_SECRET: Final = "5" * 64
_INSTANCES: Final = 10_000
_ROUNDS: Final = 500
_MOST: Final = 1.1


async def _no_balance() -> float | None:
    return None


async def _opened(stack: AsyncExitStack, folder: Path, kind: str, instances: int) -> Application:
    url = (
        stack.enter_context(postgresql_url())
        if kind == POSTGRESQL
        else f"sqlite:///{folder}/{instances}.db"
    )
    settings = Settings(
        database_url=SecretStr(url),
        data_dir=folder,
        admin_api_key=SecretStr(_KEY),
        secret_key=SecretStr(_SECRET) if kind == POSTGRESQL else None,
        rate_limit_per_minute=1_000_000,
    )
    await asyncio.to_thread(migrate.upgrade, settings.database, SystemClock())
    app = await Application.open(settings, SystemClock(), Ids())
    stack.push_async_callback(app.stop)
    fill(Store(kind, settings.database), [f"up-{number}" for number in range(instances)])
    app.fleet_count._balance = _no_balance  # noqa: SLF001 - Novita is not asked here
    began = time.perf_counter()
    await app.fleet_count.once()
    took = (time.perf_counter() - began) * 1000
    print(f"{instances:6} instances: the worker counts in {took:.1f} ms")
    return app


async def _scrape(client: httpx2.AsyncClient) -> float:
    began = time.perf_counter()
    answer = await client.get("/metrics")
    took = time.perf_counter() - began
    answer.raise_for_status()
    return took


async def _compare(folder: Path, kind: str) -> float:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx2.AsyncClient(
                    transport=httpx2.ASGITransport(app=app.api()),
                    base_url="http://novitai",
                    headers={"Authorization": f"Bearer {_KEY}", "Accept": "text/plain"},
                )
            )
            for app in [await _opened(stack, folder, kind, number) for number in (0, _INSTANCES)]
        ]
        times: list[list[float]] = [[], []]
        with contextlib.redirect_stdout(io.StringIO()):  # without the log line of each request
            for number in range(_ROUNDS):
                for which in (0, 1) if number % 2 else (1, 0):
                    times[which].append(await _scrape(clients[which]))
        empty, full = (mean(sorted(one)[: _ROUNDS // 10]) * 1000 for one in times)
        print(f"empty: {empty:.2f} ms, {_INSTANCES} instances: {full:.2f} ms a scrape")
        return full / empty


def main() -> int:
    """Print the ratio of each store; return 1 if one is above the promise."""
    missing = postgresql_is_missing()
    if missing is not None:
        print(missing)
    worst = 0.0
    for kind in (SQLITE,) if missing is not None else (SQLITE, POSTGRESQL):
        with tempfile.TemporaryDirectory() as folder:
            ratio = asyncio.run(_compare(Path(folder), kind))
        print(f"{kind}: ratio {ratio:.3f}, promised: at most {_MOST}")
        worst = max(worst, ratio)
    return int(worst > _MOST)


if __name__ == "__main__":
    sys.exit(main())
