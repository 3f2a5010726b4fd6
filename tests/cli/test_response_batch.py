# SPDX-License-Identifier: Apache-2.0
"""Responses that are made in one turn of the event loop are written together."""

from __future__ import annotations

import asyncio
from typing import cast

from novitai.cli.connections import ResponseBatch


class Transport:
    """Notes what is written, in a list that several share."""

    def __init__(self, name: str, written: list[tuple[str, bytes]]) -> None:
        self.name = name
        self.written = written
        self.closing = False

    def write(self, data: bytes) -> None:
        """Note it."""
        self.written.append((self.name, data))

    def is_closing(self) -> bool:
        """Whether it is closing."""
        return self.closing


def put(batch: ResponseBatch, transport: Transport, data: bytes) -> None:
    """Put a response into the batch."""
    batch.put(cast("asyncio.Transport", transport), data)


async def test_responses_of_a_turn_are_written_at_its_end_in_order() -> None:
    """Also those of one connection; a later turn has its own end."""
    written: list[tuple[str, bytes]] = []
    batch, one, two = ResponseBatch(), Transport("one", written), Transport("two", written)
    put(batch, one, b"1")
    put(batch, two, b"2")
    put(batch, one, b"3")
    assert not written
    await asyncio.sleep(0)
    assert written == [("one", b"1"), ("two", b"2"), ("one", b"3")]
    put(batch, two, b"4")
    await asyncio.sleep(0)
    assert written[3:] == [("two", b"4")]


async def test_they_are_written_before_what_a_response_sets_off() -> None:
    """The next request of the connection, which may be answered otherwise, begins after them."""
    written: list[tuple[str, bytes]] = []
    batch, one = ResponseBatch(), Transport("one", written)
    put(batch, one, b"1")
    asyncio.get_running_loop().call_soon(one.write, b"of the next request")
    await asyncio.sleep(0)
    assert written == [("one", b"1"), ("one", b"of the next request")]


async def test_a_long_response_is_written_at_once_after_those_before() -> None:
    """It is not kept in memory."""
    written: list[tuple[str, bytes]] = []
    batch, one = ResponseBatch(), Transport("one", written)
    put(batch, one, b"1")
    put(batch, one, b"2" * 100_000)
    assert [data[:1] for _, data in written] == [b"1", b"2"]


async def test_nothing_is_written_to_a_closing_connection() -> None:
    """The others get their responses."""
    written: list[tuple[str, bytes]] = []
    batch, gone, here = ResponseBatch(), Transport("gone", written), Transport("here", written)
    put(batch, gone, b"1")
    put(batch, here, b"2")
    gone.closing = True
    await asyncio.sleep(0)
    assert written == [("here", b"2")]
