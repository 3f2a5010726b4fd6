# SPDX-License-Identifier: Apache-2.0
"""`novitai doctor`: check the server of this machine and the way to the server that is called.

On the machine of a server it checks the server, and the client too if one is set up there. With
`--confirm` a person accepts what the checks of the account show.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from novitai.cli.client import profiles, tables
from novitai.cli.client.diagnosis import COLUMNS, CheckResult, Diagnosis, client_checks
from novitai.cli.client.failures import CommandFailed, ExitCode
from novitai.cli.client.invocation import Invocation, command
from novitai.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Mapping

_DOTENV: Final = Path(".env")

app = typer.Typer()


@command(app, "doctor", example="novitai doctor")
def doctor(
    invocation: Invocation,
    confirm: Annotated[
        bool,
        typer.Option(
            "--confirm",
            help="After a restore, or if instances are gone: accept what the checks show.",
        ),
    ] = False,
) -> int:
    """Check the server of this machine, and the way to the server that commands call.

    Each line is ok, a warning or wrong, and says what to do. Exit code 1 if anything is wrong.
    """
    here = _is_server()
    if invocation.curl:
        invocation.client.server.live()
    findings: list[Diagnosis] = []
    for finding in _checks(invocation, here=here):
        findings.append(finding)
        if not invocation.as_json:
            tables.show(COLUMNS, [finding], header=False)
    if invocation.as_json and not confirm:
        tables.show_json({"checks": [one.as_json() for one in findings]})
    if confirm:
        count = asyncio.run(_confirm_here()) if here else _confirm_there(invocation)
        told = f"confirmed: {count} records were ended, write calls are sent again"
        if invocation.as_json:
            checks = [one.as_json() for one in findings]
            tables.show_json({"checks": checks, "confirmed": count})
        else:
            say(told)
        return ExitCode.DONE
    wrong = any(one.verdict is CheckResult.WRONG for one in findings)
    return ExitCode.FAILED if wrong else ExitCode.DONE


def _is_server() -> bool:
    from novitai.cli.server_checks import is_server

    return is_server(os.environ, _dotenv())


def _dotenv() -> Mapping[str, str]:
    from dotenv import dotenv_values

    if not _DOTENV.is_file():
        return {}
    return {name: value or "" for name, value in dotenv_values(_DOTENV, interpolate=False).items()}


def _checks(invocation: Invocation, *, here: bool) -> Iterator[Diagnosis]:
    if here:
        from novitai.cli.server_checks import checks
        from novitai.clock import SystemClock

        yield from checks(SystemClock())
    yield from client_checks(invocation, calls=not here or _is_client(invocation))


def _is_client(invocation: Invocation) -> bool:
    """Whether a server to call is set up here."""
    if invocation.url or invocation.profile or os.environ.get("NOVITAI_URL"):
        return True
    try:
        return bool(profiles.names())
    except CommandFailed:
        return True  # the check of the configuration says what is wrong


async def _confirm_here() -> int:
    """Confirm through the running server, or in the store if none runs."""
    from novitai.app import Application
    from novitai.cli.local_client import LocalServer
    from novitai.cli.local_socket import socket_path
    from novitai.clock import SystemClock
    from novitai.domain.actor import OPERATOR
    from novitai.ids import Ids
    from novitai.settings import load
    from novitai.store.engine.sqlite_file import path_of

    settings = load()
    if settings.embedded:
        server = await LocalServer.connect(socket_path(path_of(settings.database)))
        if server is not None:
            try:
                shown = await server.call("missing_digest")
                confirmed: int = await server.call("confirm_account", digest=shown)
                return confirmed
            finally:
                await server.close()
    app = await Application.open(settings, SystemClock(), Ids())
    try:
        digest = (await app.ownership.overview()).missing_digest
        return await app.commands.apply(app.ownership.confirm(digest, actor=OPERATOR))
    finally:
        await app.stop()


def _confirm_there(invocation: Invocation) -> int:
    client = invocation.client
    held = client.account.get().hold
    digest = None if held is None else held.missing_digest
    return client.account.confirm(digest).confirmed
