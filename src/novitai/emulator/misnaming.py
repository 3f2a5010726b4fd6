# SPDX-License-Identifier: Apache-2.0
"""Replaces the ID in the reply to a create; the real instance is created anyway."""

from __future__ import annotations

from fnmatch import fnmatchcase

import orjson

from novitai.emulator.calling import Reply
from novitai.emulator.instances import phase
from novitai.emulator.state import Emulator

EXISTING = "existing"
"""Use the ID of the newest other instance."""

MISSING = "missing"
"""Use an ID that no instance has."""


def misnamed(emulator: Emulator, reply: Reply, wanted: str, caller: str) -> Reply | None:
    """Return the reply of a create with another ID, or None.

    The result is None if the create failed or no other instance matches.

    Args:
        emulator: Source of the other instance; only those visible to the caller count.
        reply: The original reply.
        wanted: `existing`, `missing`, a name pattern with `*`, or the ID itself.
        caller: The label of the caller's key.
    """
    if reply.status != 200:
        return None
    body = orjson.loads(reply.body)
    other = _other_id(emulator, str(body["id"]), wanted, caller)
    return None if other is None else Reply(200, orjson.dumps({**body, "id": other}))


def _other_id(emulator: Emulator, made: str, wanted: str, caller: str) -> str | None:
    if wanted == MISSING:
        return emulator.hex_id()
    if wanted != EXISTING and "*" not in wanted:
        return wanted
    now = emulator.clock.now()
    pattern = "*" if wanted == EXISTING else wanted
    return next(
        (
            each.id
            for each in emulator.newest_first()
            if each.id != made
            and fnmatchcase(each.name, pattern)
            and emulator.owns(caller, each)
            and emulator.visible(each, phase(each, now), now)
        ),
        None,
    )
