# SPDX-License-Identifier: Apache-2.0
"""The yardstick of reads: bare Starlette routes that encode the same objects with msgspec.

It has no key, limit, database, ETag or log, and uvicorn is configured as novitai configures it.
Run as a process: `python -m benchmarks.yardstick BODIES`, where BODIES is a JSON file with the
objects by path and query.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from benchmarks.serving import serve


def application(bodies: dict[str, Any]) -> ASGIApp:
    """Build the routes."""
    encode = msgspec.json.encode
    prefix = "/api/instances/"
    instances = {
        path.removeprefix(prefix): body for path, body in bodies.items() if path.startswith(prefix)
    }
    lists = {path.partition("?")[2]: body for path, body in bodies.items() if "?" in path}

    async def one(request: Request) -> Response:
        found = instances[request.path_params["id"]]
        return Response(encode(found), media_type="application/json")

    async def page(request: Request) -> Response:
        found = lists[request.scope["query_string"].decode()]
        return Response(encode(found), media_type="application/json")

    return Starlette(routes=[Route("/api/instances/{id}", one), Route("/api/instances", page)])


if __name__ == "__main__":
    serve(application(msgspec.json.decode(Path(sys.argv[1]).read_bytes())))
