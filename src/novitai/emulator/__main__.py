# SPDX-License-Identifier: Apache-2.0
"""`python -m novitai.emulator`."""

from __future__ import annotations

import argparse

from novitai.emulator.config import EmulatorConfig
from novitai.emulator.server import run


def main() -> None:
    """Parse the command line and run the emulator."""
    parser = argparse.ArgumentParser(
        prog="python -m novitai.emulator", description="A stand-in for Novita's GPU-instance API."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=9090, help="0 picks a free port (%(default)s)")
    parser.add_argument("--speed", type=_speed, default=1.0, help="speed factor (%(default)s)")
    parser.add_argument("--api-key", help="the only accepted key; default: any non-empty key")
    parser.add_argument("--seed", type=int, help="makes ids, delays and chances repeatable")
    given = parser.parse_args()
    run(
        EmulatorConfig(
            host=given.host,
            port=given.port,
            speed=given.speed,
            api_key=given.api_key,
            seed=given.seed,
        )
    )


def _speed(value: str) -> float:
    speed = float(value)
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError("must be a number above 0")
    return speed


if __name__ == "__main__":
    main()
