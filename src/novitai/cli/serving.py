# SPDX-License-Identifier: Apache-2.0
"""The main coroutines of the long-running processes."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import sys
from typing import Final
from urllib.parse import urlsplit

import structlog
from pydantic import SecretStr

from novitai.app import Application
from novitai.cli import starting
from novitai.cli.dashboard_address import dashboard_address
from novitai.cli.ending import Ending
from novitai.cli.first_key import show_first_key
from novitai.cli.output import OutputFailed, say
from novitai.clock import SystemClock
from novitai.ids import Ids
from novitai.jobs.waiting import keeping
from novitai.lifecycle.maintenance import clock_check
from novitai.settings import Environment, IpNetwork, Settings
from novitai.telemetry import logs
from novitai.urls import secrets_of

_LARGEST_V4: Final = 8
_LARGEST_V6: Final = 16
"""Prefix lengths of the largest networks that registries have allocated to one operator."""

_log: Final = structlog.get_logger(__name__)


def set_up_logs(settings: Settings) -> None:
    """Log to standard error; secrets of the settings are masked."""
    logs.set_up(
        production=settings.environment is Environment.PRODUCTION, secrets=_secrets(settings)
    )
    # Alembic logs two lines at each start that are of no use to an operator.
    logging.getLogger("alembic").setLevel(logging.WARNING)


async def serve_http(
    settings: Settings, host: str, port: int, ending: Ending, *, work: bool
) -> None:
    """Serve requests until a shutdown signal; with `work`, run a worker too.

    Raises:
        StartupError: the port or the store cannot be used, or this machine's clock is wrong.
        StoppedEarly: a shutdown signal arrived during startup.
    """
    # Imported here because a worker that does not listen needs no HTTP server.
    from novitai.cli.listening import answer, bind, is_loopback, url_of
    from novitai.cli.local_server import answer_commands

    listening = bind(host, port)
    url = url_of(host, listening)
    try:
        async with ending.starting():
            app = await Application.open(settings, SystemClock(), Ids())
    except BaseException:  # close the socket and re-raise
        listening.close()
        raise
    try:
        async with ending.starting():
            await clock_check.insist(app.database, app.clock)
            _warn(settings, beyond_loopback=not is_loopback(listening))
        # Not cancelled by a signal: if a key were created but not shown, no client could log in.
        await show_first_key(app.keys)
        async with ending.starting():
            await app.start(work=work)
            lines = [f"novitai: listening on {url}"]
            if sys.stdout.isatty():
                lines += await _dashboard(app, listening, host)
        async with answer_commands(app), keeping(_wind_down(app, ending)):
            await answer(
                app.api(),
                listening,
                ending.asked,
                count=app.connections,
                ready=lambda: _started("\n".join(lines)),
            )
    finally:
        await app.stop()


async def work(settings: Settings, ending: Ending, *, host: str, port: int | None) -> None:
    """Run a worker until a shutdown signal; with a port, show its metrics and health there.

    Raises:
        StartupError: the port or the store cannot be used, or this machine's clock is wrong.
        StoppedEarly: a shutdown signal arrived during startup.
    """
    async with contextlib.AsyncExitStack() as stack:
        listening = None
        if port is not None:
            # Imported here because a worker that does not listen needs no HTTP server.
            from novitai.cli.listening import answer, bind, is_loopback, url_of

            listening = bind(host, port)
            stack.callback(listening.close)
        async with ending.starting():
            app = await Application.open(settings, SystemClock(), Ids())
        stack.push_async_callback(app.stop)
        async with ending.starting():
            await clock_check.insist(app.database, app.clock)
            _warn(settings, beyond_loopback=listening is not None and not is_loopback(listening))
            await app.start(work=True)
        if listening is None:
            _started("novitai: working")
            await ending.asked.wait()
            return
        await stack.enter_async_context(keeping(_wind_down(app, ending)))
        url = url_of(host, listening)
        await answer(
            app.monitoring_api(),
            listening,
            ending.asked,
            count=app.connections,
            ready=lambda: _started(f"novitai: working, metrics at {url}/metrics"),
        )


async def _wind_down(app: Application, ending: Ending) -> None:
    """Finish running steps while running requests are answered, rather than after them."""
    await ending.asked.wait()
    await app.wind_down()


async def _dashboard(app: Application, listening: socket.socket, host: str) -> list[str]:
    """Return what tells the user at the terminal how to open the dashboard."""
    address = await dashboard_address(app, listening, host=host)
    if address is None:
        return []
    return [f"novitai: the dashboard, logged in, once and within 60 s: {address}"]


def _started(line: str) -> None:
    starting.done()
    with contextlib.suppress(OutputFailed):  # the server also works without standard output
        say(line)


def _warn(settings: Settings, *, beyond_loopback: bool) -> None:
    if settings.novita_api_key is None:
        _log.warning(
            "upstream_key_missing",
            reason="NOVITA_API_KEY is not set: Novita will refuse every call",
        )
    if _travels_in_the_clear(settings.upstream_url):
        _log.warning(
            "upstream_over_plain_http",
            reason="NOVITAI_UPSTREAM_URL is plain HTTP to another machine: NOVITA_API_KEY is sent "
            "unencrypted; use https://",
        )
    if beyond_loopback and settings.environment is Environment.DEVELOPMENT:
        _log.warning(
            "listening_over_plain_http",
            reason="other machines can connect over plain HTTP; "
            "NOVITAI_ENVIRONMENT=production requires HTTPS",
        )
    if any(_is_boundless(network) for network in settings.trusted_proxies):
        _log.warning(
            "trusted_proxies_too_wide",
            reason="NOVITAI_TRUSTED_PROXIES contains a large part of the internet: any host there "
            "can forge its address and HTTPS with X-Forwarded-* headers; list only your proxies",
        )


def _is_boundless(network: IpNetwork) -> bool:
    """Whether a network is public and larger than any network of a single operator."""
    most = _LARGEST_V4 if network.version == 4 else _LARGEST_V6
    return network.prefixlen < most and not network.is_private


def _travels_in_the_clear(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http" or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def _secrets(settings: Settings) -> list[str]:
    """List every secret setting, and separately the secrets inside those that are URLs."""
    found = [
        value.get_secret_value()
        for name in Settings.model_fields
        if isinstance(value := getattr(settings, name), SecretStr)
    ]
    within = [secret for value in found for secret in secrets_of(value)]
    return found + within
