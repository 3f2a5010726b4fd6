# SPDX-License-Identifier: Apache-2.0
"""`novitai demo`: one instance from request to running, against the emulator."""

from __future__ import annotations

from typing import Annotated

import typer

from novitai.cli.ending import Ending, run_until_asked
from novitai.cli.entry import INTERRUPTED


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="End when the instance runs, instead of staying up.")
    ] = False,
) -> None:
    """Show one instance from request to running, against a stand-in for Novita."""
    with Ending(stopped_early=INTERRUPTED) as ending:
        from novitai.cli.demonstration import demonstrate

        run_until_asked(ending, demonstrate(ending, once=once))
