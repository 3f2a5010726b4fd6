# SPDX-License-Identifier: Apache-2.0
"""Requests per second of one process: get an instance, list a hundred, and `/health`.

The yardstick is a bare Starlette route that dumps the same object with orjson, without key, limit,
database or log. Both are called as ASGI applications without sockets, so the ratio compares only
the work of the code; with sockets the ratio is better. The process uses SQLite and handles one
request at a time.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import orjson
from pydantic import SecretStr
from sqlalchemy import Connection
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from benchmarks.report import Result
from novitai.app import Application
from novitai.clock import SystemClock
from novitai.domain.instance import BillingMode, Instance, InstanceStatus
from novitai.ids import Ids
from novitai.settings import Settings
from novitai.store.queries import instances
from novitai.telemetry import logs

_KEY: Final = "a-key-of-the-benchmarks"
_INSTANCES: Final = 1_000
_LISTED: Final = 100
_REQUESTS: Final = {"one": 2_000, "list": 200, "health": 1_000}


def run() -> list[Result]:
    """Measure in a new directory."""
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        logs.set_up(production=True, stream=nowhere)
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> list[Result]:
    settings = Settings.model_construct(
        **{
            **{
                name: field.get_default(call_default_factory=True)
                for name, field in Settings.model_fields.items()
            },
            "data_dir": folder,
            "admin_api_key": SecretStr(_KEY),
            "rate_limit_per_minute": 1_000_000,
        }
    )
    app = await Application.open(settings, SystemClock(), Ids(random.Random(1)))
    try:
        ids = await app.database.write(partial(_fill, now=app.clock.now()))
        return await _compare(app.api(), ids)
    finally:
        await app.stop()


async def _compare(ours: ASGIApp, ids: list[str]) -> list[Result]:
    paths: dict[str, Callable[[int], tuple[str, str]]] = {
        "one": lambda number: (f"/api/instances/{ids[number % 50]}", ""),
        "list": lambda _number: ("/api/instances", f"limit={_LISTED}"),
        "health": lambda _number: ("/health", ""),
    }
    results = []
    for name, path in paths.items():
        body = orjson.loads(await _get(ours, *path(0)))

        async def bare(_request: Request, body: object = body) -> Response:
            return Response(orjson.dumps(body), media_type="application/json")

        yardstick = Starlette(routes=[Route("/{rest:path}", bare)])
        count = _REQUESTS[name]
        rates = [await _rate(app, path, count) for app in (ours, yardstick)]
        results.append(Result(f"api: GET, {name}", rates[0], rates[1], "1/s"))
    return results


async def _rate(app: ASGIApp, path: Callable[[int], tuple[str, str]], count: int) -> float:
    for number in range(50):
        await _get(app, *path(number))
    began = time.perf_counter()
    for number in range(count):
        await _get(app, *path(number))
    return count / (time.perf_counter() - began)


async def _get(app: ASGIApp, path: str, query: str) -> bytes:
    chunks: list[bytes] = []
    status = 0

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)
        chunks.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"authorization", f"Bearer {_KEY}".encode()), (b"host", b"novitai")],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8080),
    }
    await app(scope, receive, send)
    if status != 200:
        raise RuntimeError(f"{path} returned status {status}")
    return b"".join(chunks)


def _fill(connection: Connection, now: int) -> list[str]:
    ids = [f"inst_1_{number:010}" for number in range(_INSTANCES)]
    for number, instance_id in enumerate(ids):
        instance = Instance(
            id=instance_id,
            name=f"instance-{number}",
            status=InstanceStatus.RUNNING,
            product_name="gpu-basic",
            template_id="tmpl-12345",
            gpu_num=1,
            rootfs_size=60,
            region="US-WEST-01",
            billing_mode=BillingMode.ON_DEMAND,
            created_at=now + number,
            updated_at=now,
        )
        instances.insert(connection, instance, b"sealed")
        instances.update_columns(
            connection,
            instance_id,
            {
                "status": "running",
                "ready_at": now,
                "obs_status": "running",
                "obs_at": now,
                "obs_ssh": "ssh://root@gpu-1.example.com:2222",
                "obs_port_mappings": '[[8888,"https://gpu-1.example.com:8888","http"]]',
            },
        )
    return ids
