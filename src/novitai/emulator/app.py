# SPDX-License-Identifier: Apache-2.0
"""The emulator as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount, Route

from novitai.emulator import proxy
from novitai.emulator.api import TABLE
from novitai.emulator.config import EmulatorConfig
from novitai.emulator.control.app import control_routes
from novitai.emulator.dating import Dated
from novitai.emulator.gate import Gate
from novitai.emulator.routes.operations import accepted
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator


def create_app(config: EmulatorConfig | None = None) -> Starlette:
    """Create an emulator; its state is `app.state.emulator`.

    TCP ports are real sockets only if the server runs the application's lifespan.
    """
    emulator = Emulator(config or EmulatorConfig())
    rows = Rows(emulator)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await emulator.listeners.start()
        try:
            yield
        finally:
            await emulator.listeners.stop()

    app = Starlette(
        routes=[
            *control_routes(),
            Route("/_proxy/{instance_id}/log/{kind}", proxy.log, methods=["GET"]),
            Route(
                "/_proxy/{instance_id}/{port:int}/{rest:path}",
                proxy.answer,
                methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
            ),
            Mount("/", app=Gate(emulator, rows, TABLE, accepted)),
        ],
        middleware=[Middleware(Dated, emulator=emulator)],
        lifespan=lifespan,
    )
    app.state.emulator = emulator
    app.state.rows = rows
    return app
