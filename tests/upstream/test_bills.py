# SPDX-License-Identifier: Apache-2.0
"""Lists of bills: what is asked for, what is read, and what is not believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.upstream import payloads, transport
from novitai.upstream.errors import InvalidResponse, KeyRefused, RateLimited, UpstreamError
from novitai.upstream.models import UpstreamBill
from tests.upstream.strategies import ANYTHING

if TYPE_CHECKING:
    from tests.upstream.servers import Maker

HOUR = 3_600
BEGIN = 1_760_000_400
"""A full hour in Unix seconds."""
END = BEGIN + 10 * HOUR


def row(**more: Any) -> dict[str, Any]:
    """A line of a bill as Novita sends it."""
    plain = {
        "ownerID": "up",
        "startTime": str(BEGIN),
        "endTime": str(BEGIN + HOUR - 1),
        "amount": "3500",
        "voucherAmount": "500",
        "payAmount": "3000",
    }
    return {**plain, **more}


def read(*rows: Any) -> list[UpstreamBill]:
    """Read the lines of a list."""
    reader = payloads.bills("gpu", BEGIN * 1000, END * 1000)
    return list(reader({"bills": list(rows)}, 0).bills)


async def test_what_is_asked_for(make: Maker) -> None:
    """Hourly bills of one category, below the base path of figures, in Unix seconds."""
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(200, json={"bills": [row()]})

    found = await make.of(answer).bills("gpu", begin=BEGIN * 1000, end=END * 1000)
    assert found.bills == (UpstreamBill("up", "gpu", BEGIN * 1000, 3_500),)
    assert asked[0].url.path == "/openapi/v1/billing/bill/list"
    assert dict(asked[0].url.params) == {
        "cycleType": "Hour",
        "productCategory": "gpu",
        "startTime": str(BEGIN),
        "endTime": str(END),
    }


@pytest.mark.parametrize(
    ("more", "amount"),
    [
        ({}, 3_500),  # before vouchers
        ({"amount": 3_500}, 3_500),
        ({"amount": "0"}, 0),
        ({"amount": "a lot"}, None),
        ({"amount": "-1"}, None),
        ({"amount": -1}, None),
        ({"amount": None}, None),
        ({"amount": "35.5"}, None),
        ({"amount": "1" * 18}, None),
        ({"amount": {}}, None),
        ({"amount": True}, None),
    ],
)
def test_amounts(more: dict[str, Any], amount: int | None) -> None:
    """An amount is a whole number that is not negative; anything else is not readable."""
    assert [one.amount for one in read(row(**more), row())] == [amount, 3_500]


def test_an_amount_that_is_not_sent_is_payment_and_voucher() -> None:
    """The amount before vouchers is their sum; without both, it is not known."""
    given_row = row()
    del given_row["amount"]
    assert [one.amount for one in read(given_row)] == [3_500]
    del given_row["voucherAmount"]
    assert [one.amount for one in read(given_row)] == [None]


def test_hours() -> None:
    """A bill belongs to the hour in which it begins; others than those asked for are skipped."""
    begins = [BEGIN - HOUR, BEGIN + 1_200, END - 1, END]
    rows = [row(startTime=str(begin), endTime=str(begin + 60)) for begin in begins]
    assert [one.hour // 1000 for one in read(*rows[:2], *rows[3:])] == [BEGIN]
    assert [one.hour // 1000 for one in read(row(startTime=str(END - 1), endTime=None))] == [
        END - HOUR
    ]


@pytest.mark.parametrize(
    "bad",
    [
        1,
        None,
        [],
        {},
        row(ownerID=""),
        row(ownerID=None),
        row(startTime="soon"),
        row(startTime="-1"),
        row(endTime=str(BEGIN + 24 * HOUR - 1)),  # a bill of a day
        row(endTime=str(BEGIN - 1)),
    ],
)
def test_rows_that_belong_nowhere(bad: Any) -> None:
    """They are counted; a list of nothing else is not taken for an empty one."""
    reader = payloads.bills("gpu", BEGIN * 1000, END * 1000)
    found = reader({"bills": [bad, row()]}, 0)
    assert (len(found.bills), found.unreadable) == (1, 1)
    with pytest.raises(InvalidResponse):
        reader({"bills": [bad]}, 0)


def test_a_part_of_the_bills_is_none() -> None:
    """If Novita says that there are more bills than it sends, the list is not believed."""
    reader = payloads.bills("gpu", BEGIN * 1000, END * 1000)
    assert len(reader({"bills": [row()], "total": "1"}, 0).bills) == 1
    with pytest.raises(InvalidResponse):
        reader({"bills": [row()], "total": 2}, 0)


@given(body=st.dictionaries(st.sampled_from(["bills", "total"]), ANYTHING), rows=st.lists(ANYTHING))
def test_any_json_is_read_or_refused(body: dict[str, Any], rows: list[Any]) -> None:
    """No answer raises anything but the error of an answer that cannot be read."""
    reader = payloads.bills("gpu", BEGIN * 1000, END * 1000)
    bodies: list[Any] = [body, {"bills": rows}, {"bills": [row(amount=value) for value in rows]}]
    for one in bodies:
        try:
            found = reader(one, 0)
        except InvalidResponse:
            continue
        assert all(bill.amount is None or bill.amount >= 0 for bill in found.bills)


async def test_a_list_that_never_ends_is_given_up(
    make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body is read up to a limit, so endless rows fill no memory."""
    monkeypatch.setattr(transport, "MAX_BODY", 50_000)

    async def endless() -> Any:
        yield b'{"bills": ['
        while True:
            yield orjson.dumps(row()) + b","

    client = make.of(lambda _: httpx2.Response(200, content=endless()))
    with pytest.raises(InvalidResponse):
        await client.bills("gpu", begin=BEGIN * 1000, end=END * 1000)


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (429, "LIST_BILL_TOO_FAST", RateLimited),
        (401, "UNAUTHORIZED", KeyRefused),
        (500, "LIST_BILL_ERROR", UpstreamError),
        (400, "INVALID_BILL_CYCLE", UpstreamError),
        (404, "", UpstreamError),
    ],
)
async def test_a_failure_concerns_the_bills_alone(
    make: Maker, status: int, reason: str, error: type[UpstreamError]
) -> None:
    """It counts for neither health nor a breaker, is tried once, and pauses no other call."""
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        if "bill" in request.url.path:
            return httpx2.Response(status, json={"reason": reason}, headers={"Retry-After": "60"})
        return httpx2.Response(200, json={"data": []})

    client = make.of(answer)
    for _ in range(12):
        with pytest.raises(error):
            await client.bills("gpu", begin=BEGIN * 1000, end=END * 1000)
    assert len(asked) == 12
    assert not client.health().down
    assert not client.health().key_refused
    assert await client.clusters() == []
