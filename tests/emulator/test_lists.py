# SPDX-License-Identifier: Apache-2.0
"""Lists with false totals, pages, rows and values."""

from __future__ import annotations

import json
from typing import cast

import orjson
import pytest

from tests.emulator.client import Client, Json


async def names(client: Client, **params: str | int) -> list[object]:
    """Return the names of the rows that a list shows."""
    return [row["name"] for row in await client.rows(**params)]


async def raw_list(client: Client) -> bytes:
    """Return the body of a list as bytes."""
    return (await client.raw("GET", "/gpu/instances")).content


@pytest.mark.parametrize(
    ("total", "shown"),
    [("null", {"total": None}), ("string", {"total": "3"}), ("garbage", {"total": "many"})],
)
async def test_a_total_can_be_something_else_than_a_number(
    client: Client, total: str, shown: Json
) -> None:
    """The rows do not change; `totalDelta` also applies to a string total."""
    await client.seed(names=["a", "b"])
    await client.fault(kind="list", total=total, totalDelta=1)
    reply = await client.get("/gpu/instances")
    assert len(cast("list[Json]", reply.pop("instances"))) == 2
    assert reply == shown


async def test_a_total_can_be_absent(client: Client) -> None:
    """The reply contains only the rows."""
    await client.seed(names=["a"])
    await client.fault(kind="list", total="absent")
    assert set(await client.get("/gpu/instances")) == {"instances"}


async def test_every_row_can_be_left_out(client: Client) -> None:
    """The list is complete and empty, but a look-up finds the instance."""
    [first, _] = await client.seed(names=["a", "b"])
    await client.fault(kind="list", omit="*")
    assert await client.get("/gpu/instances") == {"instances": [], "total": 0}
    assert await client.status(first) == "running"


async def test_rows_are_named_by_id_name_and_pattern_together(client: Client) -> None:
    """One list of selectors can mix IDs, names and patterns."""
    ids = await client.seed(names=["a", "b", "c-1", "c-2", "d"])
    await client.fault(kind="list", omit=[ids[0], "b", "c-*"])
    assert await names(client) == ["d"]


async def test_a_fault_strikes_the_lists_with_a_text_in_their_query(client: Client) -> None:
    """Lists whose query does not match are neither changed nor counted."""
    await client.seed(names=["a", "b"])
    made = await client.fault(
        kind="list", queryContains="pageNum=2", queryLacks="name=", totalDelta=5
    )
    totals = [
        (await client.get("/gpu/instances", **query))["total"]
        for query in ({"pageNum": 1}, {"pageNum": 2}, {"pageNum": 2, "name": "a"})
    ]
    assert totals == [2, 7, 1]
    [listed] = cast("list[Json]", (await client.control("GET", "/faults"))["faults"])
    assert listed == {**made, "matched": 1, "struck": 1}


@pytest.mark.parametrize(
    ("setting", "shown", "total"),
    [("works", ["b"], 1), ("ignored", ["b", "a"], 2), ("empty", [], 0)],
)
async def test_the_name_filter_can_be_ignored_or_find_nothing(
    client: Client, setting: str, shown: list[str], total: int
) -> None:
    """The total matches the rows; a list without the filter is not affected."""
    await client.seed(names=["a", "b"])
    await client.control("PATCH", "/settings", {"nameFilter": setting})
    assert await names(client, name="B") == shown
    assert (await client.get("/gpu/instances", name="B"))["total"] == total
    assert await names(client) == ["b", "a"]


async def test_a_page_can_be_smaller_than_asked_for(client: Client) -> None:
    """Small pages follow each other without gaps and end with an empty page."""
    await client.seed(names=["a", "b", "c"])
    await client.fault(kind="list", mostRows=2)
    pages = [await names(client, pageSize=100, pageNum=number) for number in (1, 2, 3)]
    assert pages == [["c", "b"], ["a"], []]


@pytest.mark.parametrize(
    ("pages", "shown"),
    [
        ("repeatFirst", [["c", "b"], ["c", "b"], ["c", "b"], ["c", "b"]]),
        ("repeatLast", [["c", "b"], ["a"], ["a"], ["a"]]),
    ],
)
async def test_pages_can_repeat_rows_that_are_known(
    client: Client, pages: str, shown: list[list[str]]
) -> None:
    """No page is empty, and the total is correct."""
    await client.seed(names=["a", "b", "c"])
    await client.fault(kind="list", pages=pages)
    got = [await names(client, pageSize=2, pageNum=number) for number in (1, 2, 3, 4)]
    assert got == shown
    assert (await client.get("/gpu/instances", pageSize=2, pageNum=9))["total"] == 3


async def test_a_repeated_page_of_an_empty_list_is_empty(client: Client) -> None:
    """An empty list has no page to repeat."""
    await client.fault(kind="list", pages="repeatLast")
    assert await client.get("/gpu/instances", pageNum=3) == {"instances": [], "total": 0}


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("id", "null", None),
        ("id", "number", 7),
        ("name", "null", None),
        ("name", "object", {}),
        ("name", "empty", ""),
        ("createdAt", "garbage", "?"),
        ("name", "halfEmoji", "\ud83dbad"),
    ],
)
async def test_one_value_of_a_row_is_of_another_kind(
    client: Client, field: str, value: str, expected: object
) -> None:
    """Only the selected field of the selected row changes; the total does not."""
    await client.seed(names=["good", "bad"])
    before = await client.rows()
    await client.fault(kind="list", spoil="bad", field=field, value=value)
    reply = json.loads(await raw_list(client))
    assert reply["instances"] == [{**before[0], field: expected}, before[1]]
    assert reply["total"] == 2


@pytest.mark.parametrize("field", ["id", "name"])
async def test_one_value_of_a_row_is_absent(client: Client, field: str) -> None:
    """The row lacks only the selected field."""
    await client.seed(names=["bad"])
    [before] = await client.rows()
    await client.fault(kind="list", spoil="bad", field=field, value="absent")
    assert set(before) - set((await client.rows())[0]) == {field}


async def test_a_row_is_not_an_object(client: Client) -> None:
    """A string replaces the row, and the total counts it."""
    await client.seed(names=["good", "bad"])
    await client.fault(kind="list", spoil="bad", value="notObject")
    reply = await client.get("/gpu/instances")
    rows = cast("list[object]", reply["instances"])
    assert (rows[0], reply["total"]) == ("not a row", 2)
    assert cast("Json", rows[1])["name"] == "good"


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        ("halfEmoji", rb'"name":"\ud83dbad"'),
        ("newline", b'"name":"\nbad"'),
        ("notUtf8", b'"name":"\xffbad"'),
    ],
)
async def test_a_name_can_be_unreadable_on_the_wire(
    client: Client, value: str, wire: bytes
) -> None:
    """The raw bytes make the whole list invalid for a strict JSON parser."""
    await client.seed(names=["good", "bad"])
    await client.fault(kind="list", spoil="bad", value=value)
    body = await raw_list(client)
    assert wire in body
    assert b'"name":"good"' in body
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(body)


async def test_foreign_rows_are_added_and_spoiled(client: Client) -> None:
    """Added rows are the same in every list, count in the total, and belong to no instance."""
    await client.seed(names=["mine"])
    await client.fault(kind="list", foreignRows=2, value="notUtf8", times=1)
    body = await raw_list(client)
    assert body.count(b'"name":"\xff') == 2
    assert body.endswith(b'"total":3}')
    await client.fault(kind="list", foreignRows=2)
    first, second = await client.rows(), await client.rows()
    assert first == second
    assert [row["name"] for row in first] == ["foreign-1", "foreign-2", "mine"]
    assert await names(client, name="MINE") == ["mine"]
    assert await names(client, status="exited") == []
    params = {"instanceId": str(first[0]["id"])}
    assert (await client.raw("GET", "/gpu/instance", params=params)).status_code == 400


@pytest.mark.parametrize("also", [False, True])
async def test_get_shows_a_spoiled_row_whole_unless_told_otherwise(
    client: Client, also: bool
) -> None:
    """With `alsoGet`, the look-up is spoiled too; other instances stay readable."""
    [bad, good] = await client.seed(names=["bad", "good"])
    await client.fault(kind="list", spoil="bad", value="null", alsoGet=also)
    assert (await client.instance(bad))["name"] == (None if also else "bad")
    assert (await client.instance(good))["name"] == "good"
    assert await names(client) == ["good", None]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({}, "foreignRows"),
        ({"spoil": "a"}, "value"),
        ({"value": "null", "totalDelta": 1}, "requires spoil"),
        ({"alsoGet": True, "foreignRows": 1}, "alsoGet"),
        ({"total": "wrong"}, "garbage"),
        ({"pages": "repeat"}, "repeatFirst"),
    ],
)
async def test_a_list_fault_that_means_nothing_is_refused(
    client: Client, fault: Json, says: str
) -> None:
    """The 400 names the missing or wrong field."""
    error = await client.control_refused("POST", "/faults", {"kind": "list", **fault}, 400)
    assert says in str(error)
