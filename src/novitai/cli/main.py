# SPDX-License-Identifier: Apache-2.0
"""`novitai`: the commands, and the exit codes of the errors that they raise."""

from __future__ import annotations

import sys
from typing import Annotated, Final, NoReturn

import typer

from novitai.cli import configuration, database, demo, emulation, keys, output, running, webhooks
from novitai.cli.entry import INTERRUPTED
from novitai.cli.output import complain, say
from novitai.errors import ApiError, FieldError, NovitaiError, SettingsError, StartupError

_USAGE: Final = 2

app = typer.Typer(
    name="novitai",
    help="The control plane between you and rented GPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(running.serve)
app.command("api")(running.api)
app.command("worker")(running.worker)
app.command("emulator")(emulation.emulator)
app.command("demo")(demo.demo)
app.add_typer(keys.app, name="keys")
app.add_typer(webhooks.app, name="webhooks")
app.command("config")(configuration.config)
app.command("migrate")(database.migrate)


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
