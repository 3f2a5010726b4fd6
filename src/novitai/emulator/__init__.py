# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Novita's GPU-instance API, for development and tests.

The public names are imported on first use, which keeps the import of this package fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from novitai.emulator.app import create_app
    from novitai.emulator.config import EmulatorConfig
    from novitai.emulator.server import run, serve

__all__ = ["EmulatorConfig", "create_app", "run", "serve"]

_HOMES = {
    "EmulatorConfig": "novitai.emulator.config",
    "create_app": "novitai.emulator.app",
    "run": "novitai.emulator.server",
    "serve": "novitai.emulator.server",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value
