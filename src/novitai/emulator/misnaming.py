# SPDX-License-Identifier: Apache-2.0
"""The reply to a create with the id of another instance, while the real one is made."""

from __future__ import annotations

from fnmatch import fnmatchcase

import orjson

from novitai.emulator.calling import Reply
from novitai.emulator.instances import phase
from novitai.emulator.state import Emulator

EXISTING = "existing"
"""The id of the newest other instance."""

MISSING = "missing"
"""An id that no instance has."""


def misnamed(emulator: Emulator, reply: Reply, wanted: str, caller: str) -> Reply | None:
    """The reply of a create with another id; None if it made nothing, or there is no other.

    Args:
        emulator: Where the other instance is looked for, among those the caller sees.
        reply: What the create answered.
        wanted: `existing`, `missing`, a pattern with `*` of the other's name, or the id itself.
        caller: Who asked.
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
