# SPDX-License-Identifier: Apache-2.0
"""`novitai`: the commands, and the exit codes of the errors that they raise."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from novitai.cli import output
from novitai.cli.entry import INTERRUPTED
from novitai.cli.examples import example
from novitai.cli.output import complain, say
from novitai.errors import ApiError, FieldError, NovitaiError, SettingsError, StartupError

if TYPE_CHECKING:
    from typer._click.core import Command, Context

_USAGE: Final = 2
COMPLETION: Final = "_NOVITAI_COMPLETE"
"""The environment variable with which a shell asks for completions."""
SERVER: Final = "Server: on the machine that runs it"
CLIENT: Final = "Client: call a server, from anywhere"


@dataclass(frozen=True, slots=True)
class _CommandPlace:
    """Where a command is.

    Attributes:
        module: Its module, below `novitai.cli`. It is loaded when the command is used.
        function: The function of a server command, or the group of commands, in that module. None
            for a client command, which `app` of the module has under its name.
        panel: Its panel in the help.
        example: The example of a server command; client commands have their own.
        more: The module with client commands of the same group.
    """

    module: str
    function: str | None = None
    panel: str = CLIENT
    example: str = ""
    more: str | None = None


COMMANDS: Final = {
    "login": _CommandPlace("client.account"),
    "logout": _CommandPlace("client.account"),
    "whoami": _CommandPlace("client.account"),
    "offers": _CommandPlace("client.creating"),
    "quote": _CommandPlace("client.creating"),
    "create": _CommandPlace("client.creating"),
    "ls": _CommandPlace("client.instances"),
    "ps": _CommandPlace("client.instances"),
    "get": _CommandPlace("client.instances"),
    "wait": _CommandPlace("client.waiting"),
    "events": _CommandPlace("client.history"),
    "start": _CommandPlace("client.verbs"),
    "stop": _CommandPlace("client.verbs"),
    "restart": _CommandPlace("client.verbs"),
    "delete": _CommandPlace("client.verbs"),
    "keep": _CommandPlace("client.verbs"),
    "limits": _CommandPlace("client.verbs"),
    "ssh": _CommandPlace("client.reaching"),
    "open": _CommandPlace("client.reaching"),
    "credentials": _CommandPlace("client.reaching"),
    "costs": _CommandPlace("client.money", "costs_app"),
    "budgets": _CommandPlace("client.money", "budgets_app"),
    "webhooks": _CommandPlace("webhooks", "app", more="client.receivers"),
    "unmanaged": _CommandPlace("client.unmanaged"),
    "dashboard": _CommandPlace("client.reaching"),
    "doctor": _CommandPlace("doctor"),
    "completion": _CommandPlace("client.completing"),
    "serve": _CommandPlace("running", "serve", SERVER, "novitai serve --port 8080"),
    "api": _CommandPlace("running", "api", SERVER, "novitai api --host 0.0.0.0"),
    "worker": _CommandPlace("running", "worker", SERVER, "novitai worker"),
    "emulator": _CommandPlace("emulation", "emulator", SERVER, "novitai emulator --speed 60"),
    "demo": _CommandPlace("demo", "demo", SERVER, "novitai demo --once"),
    "keys": _CommandPlace("keys", "app", SERVER),
    "config": _CommandPlace("configuration", "config", SERVER, "novitai config"),
    "migrate": _CommandPlace("database", "migrate", SERVER, "novitai migrate"),
    "backup": _CommandPlace("backups", "backup", SERVER, "novitai backup novitai-2027-01-31.db"),
    "copy": _CommandPlace(
        "copying",
        "copy",
        SERVER,
        "novitai copy --from sqlite:////srv/novitai/novitai.db --to postgresql://novitai@db/novitai",
    ),
    "restore": _CommandPlace("backups", "restore", SERVER, "novitai restore novitai-2027-01-31.db"),
}
"""The commands, in the order of the help."""


class _Commands(MutableMapping[str, "Command"]):
    """The commands by name. A module is loaded when one of its commands is asked for."""

    def __init__(self) -> None:
        self._loaded: dict[str, Command] = {}

    def __getitem__(self, name: str) -> Command:
        if name not in self._loaded:
            self._loaded[name] = _load(name, COMMANDS[name])
        return self._loaded[name]

    def __setitem__(self, name: str, command: Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class LazyGroup(TyperGroup):
    """A group that loads the module of a command only when the command is used or described."""

    def __init__(self, *, commands: Any = None, **attributes: Any) -> None:
        super().__init__(commands=None, **attributes)
        self.commands = _Commands()

    def list_commands(self, ctx: Context) -> list[str]:
        """Return the names, without loading the commands."""
        return list(COMMANDS)


def _load(name: str, entry: _CommandPlace) -> Command:
    found = import_module(f"novitai.cli.{entry.module}")
    if entry.function is None:
        group = typer.main.get_group(found.app)
        command = group.commands[name]
    else:
        own = getattr(found, entry.function)
        if isinstance(own, typer.Typer):
            command = _group(own, entry)
        else:
            single = typer.Typer(add_completion=False)
            single.command(name, epilog=example(entry.example))(own)
            command = typer.main.get_command(single)
        command.name = name
    _put_in(entry.panel, command)
    return command


def _put_in(panel: str, command: Command) -> None:
    command.rich_help_panel = panel  # type: ignore[attr-defined]  # typer's commands have it


def _group(own: typer.Typer, entry: _CommandPlace) -> Command:
    """Return a group; client commands of the same group are in a panel of their own."""
    group = typer.main.get_group(own)
    if entry.more is not None:
        for command in group.commands.values():
            _put_in(SERVER, command)
        client = typer.main.get_group(import_module(f"novitai.cli.{entry.more}").app)
        for name, command in client.commands.items():
            _put_in(CLIENT, command)
            group.add_command(command, name)
    return group


app = typer.Typer(
    cls=LazyGroup,
    name="novitai",
    help="The control plane between you and rented GPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"novitai {version('novitai')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """The control plane between you and rented GPUs."""


def main() -> None:
    """Run the command named by the arguments; print a `NovitaiError` without a traceback."""
    output.prepare()
    if COMPLETION in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]  # it is there

        # Typer only does this for programs with its own options for completion.
        completion_init()
    try:
        app()
    except NovitaiError as error:
        _end(error)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _end(error: NovitaiError) -> NoReturn:
    complain(_describe(error))
    if isinstance(error, StartupError):
        sys.exit(error.exit_code)
    sys.exit(_USAGE if isinstance(error, SettingsError) else 1)


def _describe(error: NovitaiError) -> str:
    """Format an error for a terminal; if it has wrong fields, one line for each."""
    if not isinstance(error, ApiError) or not isinstance(error.details, list | tuple):
        return str(error)
    wrong = [one for one in error.details if isinstance(one, FieldError)]
    return "\n".join(f"{one.field}: {one.message}" for one in wrong) or str(error)
