# SPDX-License-Identifier: Apache-2.0
"""docs/reference/commands.md has exactly the client commands, options, columns and exit codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import typer.main
from typer.core import TyperGroup

from novitai.cli.client import creating, history, instances, money, receivers, unmanaged
from novitai.cli.client.failures import ExitCode
from novitai.cli.client.tables import ListColumn
from novitai.cli.main import CLIENT, app
from tests.docs.pages import code, codes, page, rows, section

COMMON = {
    "--profile",
    "--url",
    "--within",
    "--json",
    "--curl",
    "--columns",
    "--no-header",
    "--yes",
    "--help",
}
COLUMNS: dict[str, Sequence[ListColumn[Any]]] = {
    "ls": instances.COLUMNS,
    "offers": creating._OFFERS,
    "events": history.COLUMNS,
    "costs show": money._cost_columns("instance", None, ZoneInfo("UTC")),
    "costs reconcile": money._RECONCILED,
    "budgets list": money._BUDGETS,
    "webhooks list": receivers._WEBHOOKS,
    "webhooks deliveries": receivers._DELIVERIES,
    "unmanaged": unmanaged.COLUMNS,
}


def client_commands() -> Iterator[tuple[str, Any]]:
    """Yield the client commands with their names, groups left out."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            of_group = getattr(command, "rich_help_panel", None)
            for inner, one in command.commands.items():
                if (getattr(one, "rich_help_panel", None) or of_group) == CLIENT:
                    yield f"{name} {inner}", one
        elif getattr(command, "rich_help_panel", None) == CLIENT:
            yield name, command


def own_options(command: Any) -> set[str]:
    """Return the long names of the options that only this command has."""
    return {
        max(one.opts, key=len) for one in command.params if one.opts[0].startswith("-")
    } - COMMON


def test_every_client_command_is_listed() -> None:
    """The table has each command with its sentence of the help and its own options, in order."""
    listed = [
        (code(row[0]).removeprefix("novitai "), row[1], set(codes(row[2])))
        for row in rows(section(page("reference/commands.md"), "Commands"))
    ]
    assert listed == [
        (name, command.help.split("\n\n")[0], own_options(command))
        for name, command in client_commands()
    ]


def test_every_common_option_is_listed() -> None:
    """The table of common options has those of the code."""
    table = rows(section(page("reference/commands.md"), "Options of all commands"))
    assert {codes(row[0])[0] for row in table} == COMMON - {"--help"}
    used = {max(one.opts, key=len) for _, each in client_commands() for one in each.params}
    assert used >= COMMON - {"--help"}


def test_every_exit_code_is_listed() -> None:
    """The table of exit codes has the codes of the enumeration, in order."""
    table = rows(section(page("reference/commands.md"), "Exit codes"))
    assert [int(code(row[0])) for row in table] == [one.value for one in ExitCode]


def test_every_column_is_listed() -> None:
    """The table has the columns of each list; those that `--columns` has to name come second."""
    table = rows(section(page("reference/commands.md"), "Columns"))
    assert {code(row[0]): (codes(row[1]), codes(row[2])) for row in table} == {
        name: (
            [one.name for one in columns if not one.extra],
            [one.name for one in columns if one.extra],
        )
        for name, columns in COLUMNS.items()
    }
