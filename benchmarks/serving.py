# SPDX-License-Identifier: Apache-2.0
"""Serve an application as novitai is served: one process, httptools, uvloop, no access log."""

from __future__ import annotations

import socket

import uvicorn
from starlette.types import ASGIApp


def serve(app: ASGIApp) -> None:
    """Listen on a free port of the loopback, print the URL, and serve until a signal."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        print(f"listening on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        config = uvicorn.Config(
            app,
            http="httptools",
            loop="uvloop",
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=75,
        )
        uvicorn.Server(config).run(sockets=[listening])
