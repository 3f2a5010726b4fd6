# SPDX-License-Identifier: Apache-2.0
"""Store the actor of an operation or an event in its column `actor`."""

from __future__ import annotations

import orjson

from novitai.domain.actor import Actor, actor_of


def dump_actor(actor: Actor | None) -> str | None:
    """Serialize an actor; None if it is not known."""
    return None if actor is None else orjson.dumps(actor.view()).decode()


def load_actor(stored: str | None) -> Actor | None:
    """Parse a stored actor; None for rows from before actors were stored."""
    return None if stored is None else actor_of(orjson.loads(stored))
