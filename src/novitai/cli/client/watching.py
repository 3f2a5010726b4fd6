# SPDX-License-Identifier: Apache-2.0
"""`novitai ls --watch`: one listing, and then the stream of events; nothing is polled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from novitai.cli.client import tables
from novitai.cli.client.instances import COLUMNS, sums
from novitai.cli.client.invocation import Invocation
from novitai.cli.output import say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from novitai_client.models.instances import Instance

_GONE = frozenset({"terminated", "released"})
_PAGE = 1000


class _Watched:
    """The instances that the list shows, as the events change them."""

    def __init__(self, *, everything: bool, status: str | None, tags: Mapping[str, str]) -> None:
        self._everything = everything
        self._status = status
        self._tags = tags
        self.rows: dict[str, Instance] = {}

    def fits(self, instance: Instance) -> bool:
        """Whether the list shows an instance."""
        if self._status is not None:
            shown = instance.status == self._status
        else:
            shown = self._everything or instance.status not in _GONE
        return shown and all(instance.tags.get(name) == one for name, one in self._tags.items())

    def take(self, instance: Instance) -> bool:
        """Note a new state of an instance; return whether the list shows or showed it."""
        shown = instance.id in self.rows
        if self.fits(instance):
            # New instances come first, as in the list.
            rows = {} if shown else {instance.id: instance}
            self.rows = {**rows, **self.rows, instance.id: instance}
            return True
        self.rows.pop(instance.id, None)
        return shown

    def ordered(self) -> list[Instance]:
        """Return the rows, newest first."""
        return list(self.rows.values())


def watch_instances(
    invocation: Invocation, *, everything: bool, status: str | None, tags: Mapping[str, str]
) -> None:
    """Show the list, and each change as it happens, until Ctrl-C."""
    watched = _Watched(everything=everything, status=status, tags=tags)
    columns = invocation.wanted(COLUMNS)
    cursor = _read(invocation, watched)
    invocation.name_server()
    if tables.is_terminal() and not invocation.as_json:
        _on_terminal(invocation, watched, cursor)
        return
    if invocation.as_json:
        for one in watched.ordered():
            tables.show_json(one, line=True)
    else:
        tables.show(columns, watched.ordered(), header=invocation.header)
    for instance in _changes(invocation, watched, cursor):
        if invocation.as_json:
            tables.show_json(instance, line=True)
        else:
            say(tables.lines(columns, [instance], header=False)[0])


def _on_terminal(invocation: Invocation, watched: _Watched, cursor: str | None) -> None:
    from rich.live import Live

    columns = invocation.wanted(COLUMNS)

    def draw() -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        rows = watched.ordered()
        shown = tables.table(columns, rows, header=invocation.header)
        return Group(shown, Text(f"{sums(rows)}; live, Ctrl-C ends it", style="dim"))

    with Live(draw(), console=tables.console(), auto_refresh=False) as live:
        for _ in _changes(invocation, watched, cursor):
            live.update(draw(), refresh=True)


def _read(invocation: Invocation, watched: _Watched) -> str | None:
    """Read the list, and return the place in the stream that its first page was taken at."""
    from novitai_client.models.instances import Instance
    from novitai_client.sending import read_value, unexpected

    rows: dict[str, Instance] = {}
    query: dict[str, Any] = {"include_terminated": True, "limit": _PAGE}
    cursor: str | None = None
    while True:
        answer = invocation.client.request("GET", "/api/instances", query=query)
        cursor = cursor or answer.headers.get("Event-Cursor")
        page = answer.json()
        found = page.get("instances") if isinstance(page, dict) else None
        if not isinstance(found, list):
            raise unexpected(answer.status, "it has no list of instances")
        for row in found:
            one = read_value(Instance, row, answer.status)
            if watched.fits(one):
                rows[one.id] = one
        following = page.get("nextCursor")
        if not following or following == query.get("cursor"):
            watched.rows = rows
            return cursor
        query["cursor"] = following


def _changes(invocation: Invocation, watched: _Watched, cursor: str | None) -> Iterator[Instance]:
    """Yield each instance of the list that has changed; after a gap the list is read again."""
    from pydantic import ValidationError

    from novitai_client.models.history import Gap
    from novitai_client.models.instances import Instance

    for event in invocation.client.events.stream(since=cursor):
        if isinstance(event, Gap):
            before = dict(watched.rows)
            _read(invocation, watched)
            yield from (one for one in watched.ordered() if before.get(one.id) != one)
            continue
        with contextlib.suppress(ValidationError):  # events about the account have other objects
            instance = Instance.model_validate(event.data)
            known = watched.rows.get(instance.id)
            if instance.cost is None and known is not None:
                instance = instance.model_copy(update={"cost": known.cost})
            if watched.take(instance):
                yield instance
