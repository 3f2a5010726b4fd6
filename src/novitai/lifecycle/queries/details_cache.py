# SPDX-License-Identifier: Apache-2.0
"""The `instance-details` cache: ready answers about single instances, never older than their row.

Every read reads the instance's row, in one statement, and compares it with the row from which the
copy was made; only where they are equal is the copy given. So no write, by whichever process, has
to tell the cache anything, and what is saved is the work of turning a row into an answer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import Final

import orjson

from novitai.clock import Clock, iso
from novitai.domain.instance import Instance
from novitai.domain.view import view
from novitai.errors import NotFound
from novitai.lifecycle.catalogue.cache import Cache
from novitai.store.engine.database import Database
from novitai.store.queries import snapshots
from novitai.store.queries.snapshots import InstanceSnapshot

DETAILS_TTL: Final = 60.0
"""Seconds after which a copy is made anew although nothing changed; it bounds unused memory."""
MAX_DETAILS: Final = 2000


@dataclass(frozen=True, slots=True)
class Rendered:
    """An instance as it is shown, in JSON.

    Attributes:
        plain: Everything but `observedAt`, which changes with each listing and is no news.
        digest: Changes when, and only when, `plain` does.
        observed_at: When the instance was last seen, in Unix milliseconds.
    """

    plain: bytes
    digest: str
    observed_at: int | None

    @property
    def body(self) -> bytes:
        """The whole answer."""
        if self.observed_at is None:
            return self.plain
        return b'%b,"observedAt":"%b"}' % (self.plain[:-1], iso(self.observed_at).encode())


@dataclass(frozen=True, slots=True)
class _Copy:
    facts: tuple[object, ...]
    instance: Instance
    plain: bytes
    digest: str


class Details:
    """Reads single instances, from the cache where the row is still the same."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self.cache: Cache[_Copy] = Cache(
            "instance-details", clock, ttl=DETAILS_TTL, max_size=MAX_DETAILS
        )

    async def read(self, instance_id: str) -> Rendered:
        """Show an instance as its row is now.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
        """
        snapshot = await self._database.read(partial(snapshots.read, instance_id=instance_id))
        if snapshot is None:
            self.cache.discard(instance_id)
            raise unknown(instance_id)
        facts = snapshot.facts
        copy = self.cache.peek(instance_id, lambda held: held.facts == facts)
        if copy is None:
            copy = _copy(snapshot, facts)
            self.cache.put(instance_id, copy)
        return Rendered(copy.plain, copy.digest, observed_at(copy.instance, snapshot.listed_at))


def unknown(instance_id: str) -> NotFound:
    """Make the error for an instance that there is not."""
    return NotFound(f"Instance '{instance_id}' not found", code="INSTANCE_NOT_FOUND")


def observed_at(instance: Instance, listed_at: int | None) -> int | None:
    """When the instance was last seen: by the last listing, unless that one missed it."""
    seen_at = instance.observed.at
    if seen_at is None or listed_at is None or instance.observed.missing_count:
        return seen_at
    return max(seen_at, listed_at)


def _copy(snapshot: InstanceSnapshot, facts: tuple[object, ...]) -> _Copy:
    instance = snapshot.instance()
    plain = orjson.dumps(view(instance, snapshot.operation()))
    return _Copy(facts, instance, plain, _digest(plain))


def _digest(plain: bytes) -> str:
    return hashlib.blake2b(plain, digest_size=12).hexdigest()
