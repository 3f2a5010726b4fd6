# SPDX-License-Identifier: Apache-2.0
"""`novitai emulator`: a stand-in for Novita's API."""

from __future__ import annotations

from typing import Annotated

import typer


def _a_speed(value: float) -> float:
    if not 0 < value < float("inf"):
        raise typer.BadParameter("must be a number above 0")
    return value


def emulator(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")
    ] = 9090,
    speed: Annotated[
        float, typer.Option(callback=_a_speed, help="Speed factor: 10 is ten times real speed.")
    ] = 1.0,
    api_key: Annotated[
        str | None,
        typer.Option(help="The only API key accepted; by default, any key that is not empty."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Makes IDs, delays and random events repeatable.")
    ] = None,
) -> None:
    """Run a stand-in for Novita's API; its GPUs cost nothing and do nothing."""
    from novitai.emulator import EmulatorConfig, run
    from novitai.telemetry import streams

    streams.detach()
    run(EmulatorConfig(host=host, port=port, speed=speed, api_key=api_key, seed=seed))
