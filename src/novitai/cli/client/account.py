# SPDX-License-Identifier: Apache-2.0
"""`novitai login`, `logout`, `whoami`: the profiles, and what a key may do."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

import typer

from novitai.cli.client import profiles
from novitai.cli.client.failures import CommandFailed, UsageFailed
from novitai.cli.client.invocation import Invocation, command, connect
from novitai.cli.client.profiles import ServerAccess
from novitai.cli.client.tables import show_json
from novitai.cli.client.wording import clean, hourly, local, usd
from novitai.cli.output import note

if TYPE_CHECKING:
    from novitai_client.models.keys import CurrentKey, KeyLimits

_USUAL: Final = "http://127.0.0.1:8080"
"""The address of `novitai serve` without options."""

app = typer.Typer()


@command(
    app,
    "login",
    schema="CurrentKey",
    example=[
        "novitai login http://127.0.0.1:8080",
        "novitai login https://novitai.example.com --profile prod --key-stdin < key.txt",
    ],
)
def login(
    invocation: Invocation,
    address: Annotated[
        str | None, typer.Argument(metavar="[URL]", help="The address of the server.")
    ] = None,
    key_stdin: Annotated[
        bool, typer.Option("--key-stdin", help="Read the API key from standard input.")
    ] = False,
) -> None:
    """Keep the address of a server and the key for it in a profile.

    The key is asked for, or taken from NOVITAI_API_KEY. It is checked before it is kept. The file
    with the profiles can be read by its owner only.
    """
    from novitai_client.configuration import target

    name = profiles.profile_name(invocation.profile)
    address = (
        address
        or invocation.url
        or os.environ.get("NOVITAI_URL")
        or profiles.stored_url(name)
        or _ask_url()
    )
    key = _read_key(key_stdin)
    wanted = target(address, key)
    if wanted.url.startswith("http:") and not _is_here(wanted.url):
        note("novitai: the key is sent to that server unencrypted: use its https:// address")
    client, http = connect(
        ServerAccess(wanted.url, wanted.key, f"profile {name}", name),
        invocation.within,
        curl=invocation.curl,
    )
    with http:
        current = client.keys.current()
    file = profiles.keep(name, wanted.url, wanted.key)
    scopes = ", ".join(current.scopes)
    invocation.note(f"kept in profile {name} of {file}")
    invocation.result(current, f"{wanted.url}: {current.name} ({current.id}), scopes: {scopes}")


@command(app, "logout", example="novitai logout --profile prod")
def logout(invocation: Invocation) -> None:
    """Remove a profile, with its key. The key stays valid: `novitai keys revoke` ends it."""
    if invocation.curl:
        raise UsageFailed("logout sends no request")
    name = profiles.profile_name(invocation.profile)
    if not profiles.forget(name):
        raise CommandFailed(f"there is no profile {clean(name)}")
    if invocation.as_json:
        show_json({"profile": name})
    invocation.note(f"removed profile {name}; its key is still valid")


@command(app, "whoami", schema="CurrentKey", example="novitai whoami")
def whoami(invocation: Invocation) -> None:
    """Show the server, and the name, scopes and limits of the key."""
    current = invocation.client.keys.current()
    invocation.show(current, lambda: [*_server(invocation.server), *_key(current)])


def _server(server: ServerAccess) -> list[tuple[str, object]]:
    return [("server", server.url), ("found in", server.origin)]


def _key(key: CurrentKey) -> list[tuple[str, object]]:
    return [
        ("key", f"{key.name} ({key.id})"),
        ("scopes", ", ".join(key.scopes)),
        ("created", local(key.created_at)),
        ("expires", "never" if key.expires_at is None else local(key.expires_at)),
        *_limits(key.limits),
    ]


def _limits(limits: KeyLimits | None) -> list[tuple[str, object]]:
    if limits is None:
        return [("limits", "none")]
    budget = limits.budget
    price, run = limits.max_hourly_price, limits.max_run_minutes
    return [
        ("instances", None if limits.max_instances is None else f"at most {limits.max_instances}"),
        ("price", None if price is None else f"at most {hourly(price)} for each"),
        ("run", None if run is None else f"at most {run} min for each"),
        ("budget", None if budget is None else f"{usd(budget.amount)} in a {budget.period}"),
    ]


def _ask_url() -> str:
    if not sys.stdin.isatty():
        raise UsageFailed("no server is named", "novitai login URL")
    sys.stderr.write(f"Address of the server [{_USUAL}]: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip() or _USUAL


def _read_key(from_stdin: bool) -> str:
    if from_stdin:
        key = sys.stdin.readline().strip()
    elif os.environ.get("NOVITAI_API_KEY"):
        key = os.environ["NOVITAI_API_KEY"].strip()
    elif sys.stdin.isatty():
        from getpass import getpass

        key = getpass("API key (not shown): ").strip()
    else:
        raise UsageFailed(
            "there is no terminal to ask for the key on",
            "Give it on standard input with --key-stdin, or in NOVITAI_API_KEY.",
        )
    if not key:
        raise UsageFailed("the API key is empty")
    return key


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")
