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
from novitai.upstream.models import (
    UpstreamBill,
    UpstreamBills,
    UpstreamInstance,
    UpstreamTemplate,
    UpstreamUtilization,
)
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


def balance(body: Object, _: int) -> int:
    """Read the available balance in 1/10000 USD; it may be negative (upstream.md §14)."""
    found = integer(body.get("availableBalance"))
    if found is None:
        raise InvalidResponse("the response has no balance")
    return found


def bills(category: str, begin: int, end: int) -> Reader[UpstreamBills]:
    """Make a reader of the hourly bills of a window; those of other hours are skipped.

    Args:
        category: The category that was asked for.
        begin: The first hour, in Unix milliseconds by upstream's clock.
        end: The end of the last hour.

    Raises:
        InvalidResponse: rows are missing, or none can be read.
    """

    def read(body: Object, _: int) -> UpstreamBills:
        items = _items(body, "bills")
        total = integer(body.get("total"))
        if total is not None and total > len(items):
            raise InvalidResponse("the response has only some of the bills")
        found: list[UpstreamBill] = []
        unreadable = 0
        for item in items:
            row = reading.bill(item, category) if type(item) is dict else None
            if row is None:
                unreadable += 1
            elif begin <= row.hour < end:
                found.append(row)
        if unreadable and unreadable == len(items):
            raise InvalidResponse("no bill of the response can be read")
        return UpstreamBills(tuple(found), unreadable)

    return read


def template(template_id: str) -> Reader[UpstreamTemplate]:
    """Make a reader of one template that requires the requested ID."""

    def read(body: Object, _: int) -> UpstreamTemplate:
        found = reading.template(mapping(body.get("template")))
        if found is None or found.id != template_id:
            raise InvalidResponse("the response is not the requested template")
        return found

    return read


def utilization(ahead: int) -> Reader[UpstreamUtilization]:
    """Make a reader of the metrics of an instance; a response without any metric is invalid.

    Args:
        ahead: Milliseconds that upstream's clock is ahead.
    """

    def read(body: Object, _: int) -> UpstreamUtilization:
        if not reading.METRICS.intersection(body):
            raise InvalidResponse("the response has no metrics")
        return reading.utilization(body, ahead)

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
