# SPDX-License-Identifier: Apache-2.0
"""The routes of the control API, and the endpoint that lists them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from novitai.emulator.calling import JsonObject
from novitai.emulator.control import (
    accounts,
    billing,
    breaking,
    observing,
    pricing,
    running,
    steering,
    utilization,
)
from novitai.emulator.control.endpoint import (
    PREFIX,
    Context,
    Endpoint,
    Given,
    Nothing,
    endpoint,
    routes,
)
from novitai.emulator.state import Emulator

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def index(context: Context, _given: Nothing) -> JsonObject:
    """List all control endpoints."""
    emulator = context.emulator
    return {
        "about": "The control API of the emulator; see docs/reference/emulator.md.",
        "endpoints": [
            {
                "method": each.method,
                "path": PREFIX + each.path,
                "summary": each.summary,
                "takes": _fields(each),
            }
            for each in ENDPOINTS
        ],
        "state": {
            "instances": len(emulator.instances),
            "faults": len(emulator.faults.rules),
            "calls": emulator.calls.total,
            "speed": emulator.clock.speed,
            "tcpSockets": emulator.listeners.open,
            "tcpSocketsRefused": emulator.listeners.refused,
        },
    }


ENDPOINTS: list[Endpoint] = [
    endpoint("GET", "/", Nothing, index),
    *running.ENDPOINTS,
    *observing.ENDPOINTS,
    *breaking.ENDPOINTS,
    *steering.ENDPOINTS,
    *accounts.ENDPOINTS,
    *pricing.ENDPOINTS,
    *billing.ENDPOINTS,
    *utilization.ENDPOINTS,
]


def control_routes() -> list[Route]:
    """Return the routes of the control API, including a 404 for unknown paths."""
    return [
        *routes(ENDPOINTS, _settle),
        Route(PREFIX, _no_such_endpoint, methods=_METHODS),
        Route(PREFIX + "/{rest:path}", _no_such_endpoint, methods=_METHODS),
    ]


async def _no_such_endpoint(request: Request) -> Response:
    message = f"no control endpoint {request.method} {request.url.path}; GET {PREFIX}/ lists them"
    return JSONResponse({"error": message, "details": []}, 404)


async def _settle(emulator: Emulator) -> None:
    """Apply due effects and update the sockets before a control call is answered."""
    emulator.settle()
    await emulator.listeners.reconcile()


def _fields(this: Endpoint) -> list[str]:
    if not issubclass(this.takes, Given):
        return ["kind", "..."]
    return [field.alias or name for name, field in this.takes.model_fields.items()]
