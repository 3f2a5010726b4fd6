# SPDX-License-Identifier: Apache-2.0
"""Checks the body of each success; one without the expected content raises `InvalidResponse`.

These checks are strict, unlike `reading`: an account must not look empty because a gateway
answered instead of upstream.
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
    """An object with an ID."""

    @property
    def id(self) -> str:
        """The ID."""
        ...


MAX_ROWS: Final = 1_000

T = TypeVar("T")
Row = TypeVar("Row", bound=Identified)
RowReader = Callable[[Object], T | None]


def created_id(body: Object, _: int) -> str:
    """Read the ID of a created instance (upstream.md §4)."""
    found = reading.identifier(body.get("id"))
    if not found:
        raise InvalidResponse("the response to a create has no ID")
    return found


def instance(
    instance_id: str, read_row: Callable[[Object], UpstreamInstance | None]
) -> Reader[UpstreamInstance]:
    """Make a reader of one instance that requires the requested ID."""

    def read(body: Object, _: int) -> UpstreamInstance:
        found = read_row(body)
        if found is None or found.id != instance_id:
            raise InvalidResponse("the response is not the requested instance")
        return found

    return read


def template(template_id: str) -> Reader[UpstreamTemplate]:
    """Make a reader of one template that requires the requested ID."""

    def read(body: Object, _: int) -> UpstreamTemplate:
        found = reading.template(mapping(body.get("template")))
        if found is None or found.id != template_id:
            raise InvalidResponse("the response is not the requested template")
        return found

    return read


def rows(key: str, read_row: RowReader[T]) -> Reader[list[T]]:
    """Make a reader of an unpaged list; rows without an ID are skipped.

    Only the first `MAX_ROWS` rows are read, because each cluster causes further calls.
    """

    def read(body: Object, _: int) -> list[T]:
        found = (read_row(row) for row in _items(body, key) if type(row) is dict)
        return list(islice((row for row in found if row is not None), MAX_ROWS))

    return read


def page(key: str, read_row: RowReader[Row]) -> Reader[Page[Row]]:
    """Make a reader of one page of a paged list."""

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
    # An empty list may be null, or absent if there is a total (upstream.md §1).
    value = body.get(key)
    if type(value) is list:
        return value
    if value is None and (key in body or "total" in body):
        return []
    raise InvalidResponse(f"the response has no list named {key}")
