# SPDX-License-Identifier: Apache-2.0
"""`novitai webhooks`: the secret with which receivers verify webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from novitai.cli.examples import example
from novitai.cli.output import say

if TYPE_CHECKING:
    from novitai.settings import Settings

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Manage standing webhooks, and show the secret of this machine's server."""


@app.command("secret", epilog=example("novitai webhooks secret"))
def secret() -> None:
    """Print the secret that signs webhooks; without a setting, it is created on first use."""
    from novitai.settings import load

    secrets = asyncio.run(_secrets(load()))
    for one in secrets:
        say(one)


async def _secrets(settings: Settings) -> Sequence[str]:
    """Return the secret, or both secrets during a rotation."""
    from novitai.cli.local_client import LocalServer, open_store_or_server
    from novitai.clock import SystemClock
    from novitai.ids import Ids
    from novitai.lifecycle.webhooks.installation_secret import signing_secrets

    configured = settings.webhook_secret
    if configured is not None:
        return configured.get_secret_value().split()
    otherwise = "To choose the secret yourself, set NOVITAI_WEBHOOK_SECRET."
    async with open_store_or_server(settings, SystemClock(), otherwise=otherwise) as found:
        if isinstance(found, LocalServer):
            secrets: list[str] = await found.call("signing_secrets")
            return secrets
        return await signing_secrets(None, found.database, found.vault, Ids())
