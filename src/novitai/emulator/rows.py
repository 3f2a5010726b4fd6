# SPDX-License-Identifier: Apache-2.0
"""Instance rows as bytes, kept until something in them changes.

Listing ten thousand settled instances is then a walk over finished rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from novitai.emulator import wire
from novitai.emulator.instances import Instance, Phase, phase
from novitai.emulator.state import Emulator


@dataclass(frozen=True, slots=True)
class _Row:
    instance: Instance
    base_url: str
    seen: Phase
    made_at: float
    json: orjson.Fragment


class Rows:
    """A cache of rendered rows; a row is good for one instance object, one address, one phase.

    Whoever changes the settings clears it.
    """

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._rows: dict[str, _Row] = {}

    def seen(self, instance: Instance, now: float) -> Phase:
        """What the instance shows, without computing it twice."""
        row = self._rows.get(instance.id)
        if row is not None and row.instance is instance and row.made_at <= now < row.seen.until:
            return row.seen
        return phase(instance, now)

    def json(self, instance: Instance, now: float, base_url: str) -> orjson.Fragment:
        """The row at this moment."""
        row = self._rows.get(instance.id)
        if (
            row is not None
            and row.instance is instance
            and row.made_at <= now < row.seen.until
            and row.base_url == base_url
            and now >= self._emulator.jobs_until
        ):
            return row.json
        seen = phase(instance, now)
        made = self.make(instance, seen, now, base_url)
        if now >= self._emulator.jobs_until:
            self._rows[instance.id] = _Row(instance, base_url, seen, now, made)
        return made

    def make(self, instance: Instance, seen: Phase, now: float, base_url: str) -> orjson.Fragment:
        """A row that is not kept: of another time than the present, say."""
        settings = self._emulator.settings
        return orjson.Fragment(
            orjson.dumps(
                wire.instance(
                    instance,
                    seen,
                    base_url=base_url,
                    tcp_endpoint=self._emulator.listeners.endpoint,
                    docs_mode=settings.docs_mode,
                    creation_time=settings.creation_times,
                    price=settings.instance_prices,
                    jobs=self._emulator.on_job(instance.id, now),
                )
            )
        )

    def forget(self, instance_ids: list[str]) -> None:
        """Drop the rows of instances that no list will show again."""
        for instance_id in instance_ids:
            self._rows.pop(instance_id, None)

    def clear(self) -> None:
        """Drop all rows."""
        self._rows.clear()
