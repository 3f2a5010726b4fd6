# SPDX-License-Identifier: Apache-2.0
"""The first API key of an installation, shown once to whoever started it."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from novitai.cli.output import OutputFailed, note
from novitai.lifecycle.api_keys import KeyRing
from novitai.telemetry import streams

_SHOW_WITHIN: Final = 1.0
"""Seconds within which a key must have been taken by whoever reads standard error."""

_log: Final = structlog.get_logger(__name__)


async def show_first_key(keys: KeyRing) -> None:
    """Make a key if there is no usable one, and print it to standard error; else do nothing.

    A key that could not be shown is revoked.
    """
    made = await keys.ensure_first_key()
    if made is None:
        return
    try:
        await _show(made.text)
    except OutputFailed as error:
        await keys.revoke(made.key.id)
        _log.warning("first_key_revoked", error=str(error))


async def _show(key: str) -> None:
    """Print a key, and wait until it has been taken: before it is said that requests are.

    Raises:
        OutputFailed: nobody reads standard error.
    """
    dropped = streams.dropped()
    note(
        "novitai: there was no API key yet, so here is one with every scope. "
        f"It is shown this once:\n{key}"
    )
    taken = await asyncio.to_thread(streams.flush, _SHOW_WITHIN)
    if not taken or streams.dropped() > dropped:
        raise OutputFailed("nobody reads standard error")
