# SPDX-License-Identifier: Apache-2.0
"""`novitai ssh`, `open`, `credentials`, `dashboard`: get onto an instance, or to the server's page.

Host, port and user are read again each time, because they change at each start. They are text from
Novita: each is checked for its form, so that none of it can be an option of a program.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

import typer

from novitai.cli.client.failures import CommandFailed, ExitCode, UsageFailed
from novitai.cli.client.instances import InstanceName
from novitai.cli.client.invocation import Invocation, command
from novitai.cli.client.lookup import find_id, find_instance
from novitai.cli.client.tables import show_json
from novitai.cli.client.wording import clean
from novitai.cli.output import note, say

if TYPE_CHECKING:
    from novitai_client.models.instances import Credentials, Instance

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,31}")
_SSH_PORT: Final = 22

app = typer.Typer()


class WebPage(StrEnum):
    """The pages that `open` opens."""

    JUPYTER = "jupyter"
    TERMINAL = "terminal"
    DASHBOARD = "dashboard"


@dataclass(frozen=True, slots=True)
class SshTarget:
    """Where OpenSSH connects to."""

    host: str
    port: int
    user: str


def ssh_target(address: str) -> SshTarget:
    """Read the SSH address of an instance.

    Raises:
        CommandFailed: it is not `ssh://user@host:port` with a plain user and a host name or an IP
            address, so that it is not given to a program.
    """
    parts, port = None, 0
    with suppress(ValueError):
        parts = urlsplit(address)
        port = _SSH_PORT if parts.port is None else parts.port
    if (
        parts is None
        or not port
        or parts.scheme != "ssh"
        or parts.password is not None
        or parts.path not in {"", "/"}
        or parts.query
        or parts.fragment
        or not _is_host(parts.hostname or "")
        or not _USER.fullmatch(parts.username or "root")
    ):
        raise CommandFailed(
            f"the SSH address is not of the form ssh://user@host:port: {clean(address)!r}",
            "It is not used, because a part of it could be taken for an option of ssh.",
        )
    return SshTarget(parts.hostname or "", port, parts.username or "root")


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _HOST_NAME.fullmatch(text) is not None
    # A scope of IPv6 is free text.
    return "%" not in text


@command(
    app,
    "ssh",
    schema="Instance",
    example=["novitai ssh trainer", "novitai ssh trainer -- nvidia-smi -L"],
)
def ssh(
    invocation: Invocation,
    name: InstanceName,
    remote: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND...]", help="The command to run; by default, a shell."),
    ] = None,
) -> None:
    """Connect with OpenSSH, which gets host, port and user of this moment.

    The exit code is that of ssh. With --json it only prints the instance.
    """
    instance = find_instance(invocation, name)
    address = instance.connection_details and instance.connection_details.ssh
    if not address:
        raise _without(instance, "SSH")
    target = ssh_target(address)
    if invocation.as_json:
        show_json(instance)
        return
    program = shutil.which("ssh")
    if program is None:
        raise CommandFailed(
            "there is no ssh on the PATH", "Install OpenSSH, for example openssh-client."
        )
    note(
        f"novitai: {clean(instance.name)} is {target.user}@{target.host} port {target.port}; if it "
        f"asks for a password: novitai credentials {clean(instance.name)}"
    )
    # `--` ends the options of ssh, also those that it takes after the host.
    line = ["ssh", "-p", str(target.port), "-l", target.user, "--", target.host, *(remote or ())]
    sys.stdout.flush()
    sys.stderr.flush()
    invocation.close()
    try:
        os.execv(program, line)  # noqa: S606 - no shell; each part was checked, and `--` comes first
    except OSError as error:
        raise CommandFailed(f"{program} cannot be run: {error.strerror}") from None


@command(
    app,
    "open",
    schema="Instance",
    example="novitai open trainer jupyter",
)
def open_page(
    invocation: Invocation,
    name: InstanceName,
    page: Annotated[
        WebPage | None,
        typer.Argument(
            metavar="[jupyter|terminal|dashboard]", help="By default, the first there is."
        ),
    ] = None,
) -> None:
    """Open Jupyter or the web terminal of an instance in the browser, or print its address.

    With --json it only prints the instance; `novitai credentials` has addresses with a token.
    """
    if page is WebPage.DASHBOARD:
        _open_dashboard(invocation)
        return
    instance = find_instance(invocation, name)
    shown = instance.connection_details
    addresses: dict[WebPage, str | None] = {
        WebPage.JUPYTER: None if shown is None else shown.jupyter,
        WebPage.TERMINAL: None if shown is None else shown.web_terminal,
    }
    wanted: WebPage = page or next((one for one, url in addresses.items() if url), WebPage.JUPYTER)
    address = addresses[wanted]
    if not address:
        raise _without(instance, "Jupyter" if wanted is WebPage.JUPYTER else "a web terminal")
    if invocation.as_json:
        show_json(instance)
        return
    secret = _credentials(invocation, instance)
    if secret is not None:
        own = secret.jupyter if wanted is WebPage.JUPYTER else secret.web_terminal
        address = own or address
    _browse(address)


def _credentials(invocation: Invocation, instance: Instance) -> Credentials | None:
    """Read the addresses with their tokens, if the key may."""
    from novitai_client.errors import Forbidden

    try:
        return invocation.client.instances.credentials(instance.id)
    except Forbidden:
        note("novitai: this key may not read credentials, so the page may ask for a password")
        return None


@command(app, "credentials", schema="Credentials", example="novitai credentials trainer")
def credentials(invocation: Invocation, name: InstanceName) -> None:
    """Show the passwords of an instance, and addresses with a token. Needs the scope `write`."""
    found = invocation.client.instances.credentials(find_id(invocation, name))
    facts: list[tuple[str, object]] = [
        ("ssh password", found.ssh_password),
        ("terminal user", found.web_terminal_username),
        ("terminal password", found.web_terminal_password),
        ("jupyter", found.jupyter),
        ("terminal", found.web_terminal),
        *((f"port {one.port}", one.endpoint) for one in found.endpoints or ()),
    ]
    invocation.show(found, lambda: facts)
    if not any(value for _, value in facts):
        invocation.note("Novita shows no credentials for it; it may not run")


@command(app, "dashboard", schema="LoginCode", example="novitai dashboard")
def dashboard(invocation: Invocation) -> None:
    """Open the dashboard of the server in the browser, logged in with your key.

    Without a browser, or with --json, print its address. It has a code that works once, within 60
    seconds.
    """
    _open_dashboard(invocation)


def _open_dashboard(invocation: Invocation) -> None:
    from novitai_client.errors import HostNotAllowed, NotFound

    try:
        if not invocation.curl:
            with suppress(HostNotAllowed):  # browsers may use another name than this command
                invocation.client.request("GET", "/", headers={"Accept": "text/html"})
        code = invocation.client.sessions.create_code()
    except NotFound:
        raise CommandFailed(
            f"{invocation.server} has no dashboard",
            f"{invocation.server.url}/docs shows its API; `novitai ls --watch` shows what runs.",
            ExitCode.NOT_FOUND,
        ) from None
    if invocation.as_json:
        show_json(code)
        return
    _browse(code.url)


def _without(instance: Instance, what: str) -> CommandFailed:
    name = clean(instance.name)
    if instance.status != "running":
        advice = (
            f"`novitai start {name}` starts it."
            if instance.status == "stopped"
            else (f"`novitai wait {name}` waits until it serves.")
        )
        return CommandFailed(f"{name} is {instance.status}", advice, ExitCode.WRONG_STATE)
    return CommandFailed(
        f"{name} runs, and Novita publishes no address for {what}",
        "Its template may not offer it: `novitai get` shows the addresses that there are.",
        ExitCode.WRONG_STATE,
    )


def _browse(address: str) -> None:
    """Open an address, or print it if there is no browser. Only web addresses are opened."""
    import webbrowser

    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageFailed(f"it is not a web address: {clean(address)!r}")
    try:
        opened = webbrowser.get().open(address)
    except webbrowser.Error:
        opened = False
    if not opened:
        say(clean(address))
    else:
        note(f"novitai: opened {clean(parts.scheme)}://{clean(parts.netloc.rpartition('@')[2])}")
