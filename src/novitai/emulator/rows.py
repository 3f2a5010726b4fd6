# SPDX-License-Identifier: Apache-2.0
"""A cache of instance rows rendered as JSON.

It makes a list of ten thousand unchanged instances cheap.
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
    """Caches rows; a row is valid for one instance object, one base URL and one phase.

    Code that changes the settings must clear the cache.
    """

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._rows: dict[str, _Row] = {}

    def seen(self, instance: Instance, now: float) -> Phase:
        """Return the instance's phase, from the cache if possible."""
        row = self._rows.get(instance.id)
        if row is not None and row.instance is instance and row.made_at <= now < row.seen.until:
            return row.seen
        return phase(instance, now)

    def json(self, instance: Instance, now: float, base_url: str) -> orjson.Fragment:
        """Return the row at `now`."""
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
        """Render a row without caching it, for example for a past time."""
        meter = self._emulator.books.meter(instance, now)
        return orjson.Fragment(
            orjson.dumps(
                wire.instance(
                    instance,
                    seen,
                    base_url=base_url,
                    tcp_endpoint=self._emulator.listeners.endpoint,
                    settings=self._emulator.settings,
                    started_at=meter.started_at(now),
                    stopped_at=meter.stopped_at(now),
                    jobs=self._emulator.on_job(instance.id, now),
                )
            )
        )

    def forget(self, instance_ids: list[str]) -> None:
        """Drop the rows of instances that no list can show any more."""
        for instance_id in instance_ids:
            self._rows.pop(instance_id, None)

    def clear(self) -> None:
        """Drop all rows."""
        self._rows.clear()
