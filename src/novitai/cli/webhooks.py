# SPDX-License-Identifier: Apache-2.0
"""`novitai webhooks`: what receivers of webhooks need to know."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from novitai.cli.output import TEMPORARY, say
from novitai.errors import StartupError

if TYPE_CHECKING:
    from novitai.settings import Settings

app = typer.Typer(help="What receivers of webhooks need to know.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """What receivers of webhooks need to know."""


@app.command("secret")
def secret() -> None:
    """Print the secret that signs webhooks; where no setting names one, it is made once."""
    from novitai.settings import load

    settings = load()
    try:
        secrets = asyncio.run(_secrets(settings))
    except StartupError as error:
        if not settings.embedded or error.exit_code != TEMPORARY:
            raise
        raise StartupError(
            f"{error}\nTo know the secret beforehand, set NOVITAI_WEBHOOK_SECRET.",
            exit_code=error.exit_code,
        ) from None
    for one in secrets:
        say(one)


async def _secrets(settings: Settings) -> Sequence[str]:
    """Return the secret, or both of them while one replaces the other."""
    from novitai.app import open_store
    from novitai.clock import SystemClock
    from novitai.ids import Ids
    from novitai.lifecycle.webhook_secret import signing_secrets

    configured = settings.webhook_secret
    if configured is not None:
        return configured.get_secret_value().split()
    async with open_store(settings, SystemClock()) as store:
        return await signing_secrets(None, store.database, store.vault, Ids())
