# SPDX-License-Identifier: Apache-2.0
"""The address of the dashboard with a one-time code, for the user who starts a server."""

from __future__ import annotations

import ipaddress
import socket

from novitai import web
from novitai.app import Application
from novitai.domain.session import login_url


async def dashboard_address(
    app: Application, listening: socket.socket, *, host: str = ""
) -> str | None:
    """Return an address that logs a browser in once, within 60 seconds.

    The code is one of `NOVITAI_ADMIN_API_KEY` or else of the oldest usable admin key.

    Args:
        app: The application of the server.
        listening: The listening socket of the server.
        host: The host that the user chose.

    Returns:
        None if the dashboard is not built, if browsers may not use the address of the server, or if
        there is no admin key.
    """
    url = app.settings.public_url or _local(listening, host)
    if url is None or not web.is_built():
        return None
    made = await app.sessions.admin_code()
    return None if made is None else login_url(url, made.text)


def _local(listening: socket.socket, host: str) -> str | None:
    """Return the loopback address of a server; None if it does not listen there."""
    address, port = listening.getsockname()[:2]
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if not (parsed.is_loopback or parsed.is_unspecified):
        return None
    if host == "localhost":
        place = host
    elif parsed.version == 4:
        place = str(parsed) if parsed.is_loopback else "127.0.0.1"
    else:
        place = "[::1]"
    return f"http://{place}:{port}"
