# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Novita's GPU-instance API, faithful enough to be developed and tested against.

The names below are loaded on first use, so that importing this package costs next to nothing.
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
    """Load a public name from the module it lives in."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value
