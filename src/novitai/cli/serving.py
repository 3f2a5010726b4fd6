# SPDX-License-Identifier: Apache-2.0
"""What the long-running processes do between their start and their end."""

from __future__ import annotations

import asyncio
import logging
from typing import Final
from urllib.parse import unquote, urlsplit

import structlog
from pydantic import SecretStr

from novitai.app import Application
from novitai.cli import starting
from novitai.cli.ending import Ending
from novitai.cli.output import note, say
from novitai.clock import SystemClock
from novitai.ids import Ids
from novitai.lifecycle import clockcheck
from novitai.settings import Environment, Settings
from novitai.telemetry import logs, streams

_SHOW_WITHIN: Final = 1.0

_log: Final = structlog.get_logger("novitai")


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
    """
    # A worker answers nobody and never loads the HTTP server.
    from novitai.cli.listening import answer, bind, is_loopback, url_of

    listening = bind(host, port)
    url = url_of(host, listening)
    try:
        app = await Application.open(settings, SystemClock(), Ids())
    except BaseException:  # the port is given back, then it is raised on
        listening.close()
        raise
    try:
        await clockcheck.insist(app.database, app.clock)
        _warn(settings, beyond_loopback=not is_loopback(listening))
        if work:
            await _show_first_key(app)
        await app.start(work=work)
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
    """
    app = await Application.open(settings, SystemClock(), Ids())
    try:
        await clockcheck.insist(app.database, app.clock)
        _warn(settings, beyond_loopback=False)
        await app.start(work=True)
        _started("novitai: working")
        await ending.asked.wait()
    finally:
        await app.stop()


def _started(line: str) -> None:
    starting.done()
    say(line)


async def _show_first_key(app: Application) -> None:
    key = await app.keys.ensure_first_key()
    if key is not None:
        note(
            "novitai: there was no API key yet, so here is one with every scope. "
            f"It is shown this once:\n{key}"
        )
        # Seen before it is said that requests are taken.
        await asyncio.to_thread(streams.flush, _SHOW_WITHIN)


def _warn(settings: Settings, *, beyond_loopback: bool) -> None:
    if settings.novita_api_key is None:
        _log.warning("NOVITA_API_KEY is not set: Novita will refuse every call")
    if beyond_loopback and settings.environment is Environment.DEVELOPMENT:
        _log.warning(
            "other machines can connect, over plain HTTP; NOVITAI_ENVIRONMENT=production insists "
            "on HTTPS"
        )


def _secrets(settings: Settings) -> list[str]:
    """List every secret of the settings, and the passwords within URLs by themselves."""
    found = [
        value.get_secret_value()
        for name in Settings.model_fields
        if isinstance(value := getattr(settings, name), SecretStr)
    ]
    passwords = [urlsplit(value).password for value in found if "://" in value]
    return found + [form for one in passwords if one for form in (one, unquote(one))]
