# SPDX-License-Identifier: Apache-2.0
"""The first API key of an installation, shown once on standard error."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from novitai.cli.output import OutputFailed, note
from novitai.lifecycle.api_keys import KeyRing
from novitai.telemetry import streams

_SHOW_WITHIN: Final = 1.0
"""Seconds within which the reader of standard error must have read the key."""

_log: Final = structlog.get_logger(__name__)


async def show_first_key(keys: KeyRing) -> None:
    """If no usable key exists, create one and print it to standard error.

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
    """Print a key and wait until it has been read, before the server reports that it is ready.

    Raises:
        OutputFailed: standard error is not being read.
    """
    dropped = streams.dropped()
    note(
        "novitai: no API key existed, so one with every scope was created. "
        f"It is shown only once:\n{key}"
    )
    taken = await asyncio.to_thread(streams.flush, _SHOW_WITHIN)
    if not taken or streams.dropped() > dropped:
        raise OutputFailed("standard error is not being read")
