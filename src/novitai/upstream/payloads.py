# SPDX-License-Identifier: Apache-2.0
"""What the body of each success has to hold to be an answer at all; everything else is nonsense.

These are where tolerance ends: an account must not look empty because a gateway answered in
upstream's place.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final, Protocol, TypeVar

from novitai.upstream import reading
from novitai.upstream.errors import InvalidResponse
from novitai.upstream.gateway import Reader
from novitai.upstream.models import UpstreamInstance, UpstreamTemplate
from novitai.upstream.paging import Page
from novitai.upstream.wire import Json, Object, integer, mapping


class Identified(Protocol):
    """Something that is told apart by its id."""

    @property
    def id(self) -> str:
        """The id."""
        ...


MAX_ROWS: Final = 1_000

T = TypeVar("T")
Row = TypeVar("Row", bound=Identified)
RowReader = Callable[[Object], T | None]


def created_id(body: Object, _: int) -> str:
    """Read the id of what a create made (upstream.md §4)."""
    found = reading.identifier(body.get("id"))
    if not found:
        raise InvalidResponse("the answer to a create holds no id")
    return found


def instance(
    instance_id: str, read_row: Callable[[Object], UpstreamInstance | None]
) -> Reader[UpstreamInstance]:
    """Make a reader of one instance that insists on the id that was asked for."""

    def read(body: Object, _: int) -> UpstreamInstance:
        found = read_row(body)
        if found is None or found.id != instance_id:
            raise InvalidResponse("the answer is not the instance that was asked for")
        return found

    return read


def template(template_id: str) -> Reader[UpstreamTemplate]:
    """Make a reader of one template that insists on the id that was asked for."""

    def read(body: Object, _: int) -> UpstreamTemplate:
        found = reading.template(mapping(body.get("template")))
        if found is None or found.id != template_id:
            raise InvalidResponse("the answer is not the template that was asked for")
        return found

    return read


def rows(key: str, read_row: RowReader[T]) -> Reader[list[T]]:
    """Make a reader of a whole list, leaving out rows that cannot be told apart.

    Of more than `MAX_ROWS` the first ones are read: each cluster costs calls of its own.
    """

    def read(body: Object, _: int) -> list[T]:
        found = (read_row(row) for row in _items(body, key) if type(row) is dict)
        return list(islice((row for row in found if row is not None), MAX_ROWS))

    return read


def page(key: str, read_row: RowReader[Row]) -> Reader[Page[Row]]:
    """Make a reader of one page of a longer list."""

    def read(body: Object, asked_at: int) -> Page[Row]:
        items = _items(body, key)
        found: dict[str, Row] = {}
        unreadable = 0
        for item in items:
            row = read_row(item) if type(item) is dict else None
            if row is None:
                unreadable += 1
            else:
                found.setdefault(row.id, row)
        return Page(
            rows=found,
            count=len(items),
            unreadable=unreadable,
            total=integer(body.get("total")),
            asked_at=asked_at,
        )

    return read


def _items(body: Object, key: str) -> list[Json]:
    # An empty list may come as null, or be left out beside its total (upstream.md §1).
    value = body.get(key)
    if type(value) is list:
        return value
    if value is None and (key in body or "total" in body):
        return []
    raise InvalidResponse(f"the answer holds no list of {key}")
