# SPDX-License-Identifier: Apache-2.0
"""The `Date` header of replies."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import httpx2
import pytest

from tests.emulator.client import Client


def told(response: httpx2.Response) -> int:
    """Return the time of a reply's only `Date` header, in Unix seconds."""
    [date] = response.headers.get_list("date")
    return int(parsedate_to_datetime(date).timestamp())


async def test_date_and_creation_time_are_of_one_clock(client: Client) -> None:
    """An instance's creation time is the second in the `Date` of the reply to its create."""
    await client.advance(1_000_000)
    body = {"name": "x", "productId": "gpu-basic.8c32g", "gpuNum": 1, "rootfsSize": 60}
    response = await client.raw(
        "POST", "/gpu/instance/create", json={**body, "imageUrl": "ubuntu:24.04"}
    )
    shown = await client.instance(response.json()["id"])
    assert shown["createdAt"] == str(told(response))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/clusters", 200),
        ("/gpu/instance", 400),
        ("/nowhere", 404),
        ("/_emulator/clock", 200),
        ("/_emulator/nowhere", 404),
        ("/_proxy/none/80/", 404),
    ],
)
async def test_every_reply_has_a_date(client: Client, path: str, status: int) -> None:
    """Successes, refusals and responses outside the API have a `Date` header."""
    response = await client.raw("GET", path)
    assert response.status_code == status
    assert told(response) == int(client.emulator.clock.now())


async def test_a_faulty_reply_has_a_date_too(client: Client) -> None:
    """An error that a fault causes has a `Date` header."""
    await client.fault(kind="call", path="/clusters", status=503)
    assert told(await client.raw("GET", "/clusters")) == int(client.emulator.clock.now())


@pytest.mark.parametrize("offset", [-7200, 86_400])
async def test_the_date_can_be_off(client: Client, offset: int) -> None:
    """The setting shifts `Date` by some seconds; creation times do not change."""
    await client.control("PATCH", "/settings", {"dateOffsetSeconds": offset})
    instance_id = await client.create()
    now = int(client.emulator.clock.now())
    assert told(await client.raw("GET", "/clusters")) == now + offset
    assert (await client.instance(instance_id))["createdAt"] == str(now)


async def test_the_date_can_be_left_out(client: Client) -> None:
    """A null offset omits the header."""
    await client.control("PATCH", "/settings", {"dateOffsetSeconds": None})
    assert "date" not in (await client.raw("GET", "/clusters")).headers
