# SPDX-License-Identifier: Apache-2.0
"""`novitai webhooks`: what receivers of webhooks need to know."""

from __future__ import annotations

import asyncio

import typer

from novitai.cli.output import say

app = typer.Typer(help="What receivers of webhooks need to know.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """What receivers of webhooks need to know."""


@app.command("secret")
def secret() -> None:
    """Print the secret that signs webhooks; where no setting names one, it is made once."""
    from novitai.settings import load

    settings = load()
    if settings.webhook_secret is not None:
        say(settings.webhook_secret.get_secret_value())
        return

    async def stored() -> str:
        from novitai.app import open_store
        from novitai.cli.signing import signing_secret
        from novitai.clock import SystemClock

        async with open_store(settings, SystemClock()) as store:
            return await signing_secret(store)

    say(asyncio.run(stored()))
