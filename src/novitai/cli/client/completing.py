# SPDX-License-Identifier: Apache-2.0
"""`novitai completion`: the script that completes commands, options and names in a shell."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from novitai.cli.client.failures import UsageFailed
from novitai.cli.client.invocation import Invocation, command
from novitai.cli.output import say

PROGRAM: Final = "novitai"
VARIABLE: Final = "_NOVITAI_COMPLETE"
"""The environment variable of `novitai.cli.main.COMPLETION`, which imports this module lazily."""

app = typer.Typer()


class Shell(StrEnum):
    """The shells with completion."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@command(
    app,
    "completion",
    bare=True,
    example=["novitai completion bash", "novitai completion zsh"],
)
def completion(
    _invocation: Invocation,
    shell: Annotated[
        Shell | None,
        typer.Argument(metavar="[bash|zsh|fish]", help="By default, the shell in $SHELL."),
    ] = None,
) -> None:
    """Print the completion of a shell, for commands, options and the names of instances.

    bash: `source <(novitai completion bash)` in ~/.bashrc. zsh: the same line with zsh in ~/.zshrc,
    after compinit. fish: `novitai completion fish | source` in config.fish.
    """
    from typer.completion import (  # type: ignore[attr-defined]  # typer imports it there
        get_completion_script,
    )

    wanted = shell or _of_user()
    say(get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=wanted.value))


def _of_user() -> Shell:
    name = Path(os.environ.get("SHELL", "")).name
    try:
        return Shell(name)
    except ValueError:
        raise UsageFailed("the shell is not known", f"Name it: {', '.join(Shell)}.") from None
