# SPDX-License-Identifier: Apache-2.0
"""What the long-running processes do between their start and their end."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from typing import Final
from urllib.parse import urlsplit

import structlog
from pydantic import SecretStr

from novitai.app import Application
from novitai.cli import starting
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
"""Prefix lengths of the largest networks that registries have given to one operator."""

_log: Final = structlog.get_logger(__name__)


def set_up_logs(settings: Settings) -> None:
    """Send log lines to standard error, without the secrets of the settings."""
    logs.set_up(
        production=settings.environment is Environment.PRODUCTION, secrets=_secrets(settings)
    )
    # Two lines about its own ways at each start, which tell a reader nothing.
    logging.getLogger("alembic").setLevel(logging.WARNING)


async def serve_http(
    settings: Settings, host: str, port: int, ending: Ending, *, work: bool
) -> None:
    """Answer requests until asked to end; with `work`, take steps too.

    Raises:
        StartupError: the port or the store cannot be used, or this machine's clock is wrong.
        StoppedEarly: it was asked to end while it was starting.
    """
    # A worker answers nobody and never loads the HTTP server.
    from novitai.cli.listening import answer, bind, is_loopback, url_of
    from novitai.cli.local_server import answer_commands

    listening = bind(host, port)
    url = url_of(host, listening)
    try:
        async with ending.starting():
            app = await Application.open(settings, SystemClock(), Ids())
    except BaseException:  # the port is given back, then it is raised on
        listening.close()
        raise
    try:
        async with ending.starting():
            await clock_check.insist(app.database, app.clock)
            _warn(settings, beyond_loopback=not is_loopback(listening))
        # Not broken off: a key that was made and not shown would lock everybody out.
        await show_first_key(app.keys)
        async with ending.starting():
            await app.start(work=work)
        async with answer_commands(app), keeping(_wind_down(app, ending)):
            await answer(
                app.api(),
                listening,
                ending.asked,
                ready=lambda: _started(f"novitai: listening on {url}"),
            )
    finally:
        await app.stop()


async def work(settings: Settings, ending: Ending) -> None:
    """Take steps until asked to end.

    Raises:
        StartupError: the store cannot be used, or this machine's clock is wrong.
        StoppedEarly: it was asked to end while it was starting.
    """
    async with ending.starting():
        app = await Application.open(settings, SystemClock(), Ids())
    try:
        async with ending.starting():
            await clock_check.insist(app.database, app.clock)
            _warn(settings, beyond_loopback=False)
            await app.start(work=True)
        _started("novitai: working")
        await ending.asked.wait()
    finally:
        await app.stop()


async def _wind_down(app: Application, ending: Ending) -> None:
    """End the steps in hand while requests in hand are answered, rather than after them."""
    await ending.asked.wait()
    await app.wind_down()


def _started(line: str) -> None:
    starting.done()
    with contextlib.suppress(OutputFailed):  # a server that nobody listens to does its work
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
            reason="NOVITAI_UPSTREAM_URL is plain HTTP to another machine: NOVITA_API_KEY can be "
            "read on the way; use https://",
        )
    if beyond_loopback and settings.environment is Environment.DEVELOPMENT:
        _log.warning(
            "listening_over_plain_http",
            reason="other machines can connect, over plain HTTP; "
            "NOVITAI_ENVIRONMENT=production insists on HTTPS",
        )
    if any(_is_boundless(network) for network in settings.trusted_proxies):
        _log.warning(
            "trusted_proxies_too_wide",
            reason="NOVITAI_TRUSTED_PROXIES holds a large part of the internet: anybody there can "
            "claim any address and HTTPS with X-Forwarded-* headers; name the proxies' own "
            "networks",
        )


def _is_boundless(network: IpNetwork) -> bool:
    """Tell whether no operator can own all of a network: it is public, and larger than any is."""
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
    """List every secret of the settings, and what is secret within URLs by itself."""
    found = [
        value.get_secret_value()
        for name in Settings.model_fields
        if isinstance(value := getattr(settings, name), SecretStr)
    ]
    within = [secret for value in found for secret in secrets_of(value)]
    return found + within
