# SPDX-License-Identifier: Apache-2.0
"""The `instance-details` cache: rendered answers about single instances, never older than the row.

Every request reads the instance's row in one statement. The cached answer is used only if the row
equals the one it was rendered from, so no process has to invalidate the cache after a write. The
cache saves the rendering, not the query.
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
"""Seconds after which an unchanged copy is rendered again; bounds the memory of unused copies."""
MAX_DETAILS: Final = 2000


@dataclass(frozen=True, slots=True)
class Rendered:
    """The view of an instance as JSON.

    Attributes:
        plain: The view without `observedAt`, which changes with each listing.
        digest: A digest of `plain`.
        observed_at: When Novita last showed the instance, in Unix milliseconds.
    """

    plain: bytes
    digest: str
    observed_at: int | None

    @property
    def body(self) -> bytes:
        """The complete answer, with `observedAt`."""
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
    """Reads single instances; uses the cache if the row has not changed."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self.cache: Cache[_Copy] = Cache(
            "instance-details", clock, ttl=DETAILS_TTL, max_size=MAX_DETAILS
        )

    async def read(self, instance_id: str) -> Rendered:
        """Return the rendered view of the instance's current row.

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
    """Return the error for an instance that does not exist."""
    return NotFound(f"Instance '{instance_id}' not found", code="INSTANCE_NOT_FOUND")


def observed_at(instance: Instance, listed_at: int | None) -> int | None:
    """Return when Novita last showed the instance: the last listing, unless absent from it."""
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
