# SPDX-License-Identifier: Apache-2.0
"""Events and operations."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Final, Literal

import httpx2

from novitai_client.errors import NovitaiError
from novitai_client.models.history import Event, Gap, Operation
from novitai_client.sending import Answer, error_of, is_transient, read_value, unexpected
from novitai_client.streaming import EventStreamParser, Message
from novitai_client.surface import IteratorMethod, Method, Mode, Resource
from novitai_client.wire import path, query
from novitai_client.words import EventType

EventOrder = Literal["asc", "desc"]
"""Oldest or newest first."""

RETRY_SECONDS: Final = 2.0
"""The pause before a new connection, unless the server names another."""
SILENCE_SECONDS: Final = 45.0
"""A connection without a byte for so long is given up; the server writes every 15 seconds."""


class Events(Resource[Mode]):
    """Events of all instances and of the account."""

    @IteratorMethod
    async def list(
        self,
        *,
        since: str | None = None,
        order: EventOrder | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Iterate over the events of all instances, oldest first, up to the present one.

        Args:
            since: Only events after this event ID.
            order: `asc`, oldest first, unless told otherwise; `desc`: newest first.
            limit: Rows in one page.

        Example:
            for event in client.events.list(since="1760000000000.1"):
                print(event.at, event.type)
        """
        wanted = query(since=since, order=order, limit=limit)
        async for one in self._api.pages(Event, "/api/events", "events", wanted):
            yield one

    @IteratorMethod
    async def stream(
        self,
        *,
        since: str | None = None,
        type: EventType | None = None,  # noqa: A002 - the name of the parameter in the API
        instance_id: str | None = None,
    ) -> AsyncGenerator[Event | Gap, None]:
        """Iterate over events as they happen, without end. A lost connection is resumed.

        Each event comes once, and no event is skipped. If the events to resume from are no longer
        stored, a `Gap` says so, and the stream goes on.

        Args:
            since: Begin after this event ID, or after the `Event-Cursor` of a list; by default now.
            type: Only events of this type.
            instance_id: Only events of this instance.

        Raises:
            ConnectionFailed: no connection could be made for `timeout` seconds.

        Example:
            for event in client.events.stream(type="instance.running"):
                if event.type != "gap":
                    print(event.at, event.data["id"])
        """
        api, retry = self._api, RETRY_SECONDS
        last_id: str | None = None
        failures, deadline = 0, api.clock.monotonic() + api.timeout
        while True:
            wanted = query(since=None if last_id else since, type=type, instance_id=instance_id)
            resume = {"Last-Event-ID": last_id} if last_id else {}
            request = api.request(
                "GET",
                "/api/events/stream",
                query=wanted,
                headers={"Accept": "text/event-stream", **resume},
            )
            parser = EventStreamParser(last_id)
            pause: float | None = retry
            failure: NovitaiError | None = None
            try:
                async with api.transport.stream(request, SILENCE_SECONDS) as (answer, parts):
                    if answer.status == 204:
                        return
                    failure = _refused(answer)
                    if failure is None:
                        failures = 0
                        async for part in parts:
                            for message in parser.feed(part):
                                deadline = api.clock.monotonic() + api.timeout
                                yield _read(message)
                                last_id = parser.last_id
            except httpx2.DecodingError as error:
                raise unexpected(200, f"it cannot be decoded: {error}") from None
            except httpx2.TransportError as error:
                failure = api.unreachable(request, error)
                pause = max(retry, api.back_off(failures)) if is_transient(error) else None
            else:
                if failure is not None:
                    pause = api.pause_after(failure, failures)
            failures += 1
            last_id = parser.last_id
            retry = retry if parser.retry is None else parser.retry / 1000
            if failure is None:
                deadline, pause = api.clock.monotonic() + api.timeout, retry
            elif pause is None or api.clock.monotonic() + pause >= deadline:
                raise failure
            await api.transport.sleep(pause)


def _refused(answer: Answer) -> NovitaiError | None:
    if answer.status != 200:
        return error_of(answer)
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
    return None if kind == "text/event-stream" else unexpected(200, f"it is {kind or 'no stream'}")


def _read(message: Message) -> Event | Gap:
    try:
        data = json.loads(message.data)
    except ValueError:
        raise unexpected(200, f"the data of a message ({message.event}) is not JSON") from None
    if message.event == "gap":
        return read_value(Gap, data, 200)
    return read_value(Event, data, 200)


class Operations(Resource[Mode]):
    """Operations: a create, a stop and the like, while they run and afterwards."""

    @IteratorMethod
    async def list(
        self,
        *,
        instance_id: str | None = None,
        done: bool | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[Operation, None]:
        """Iterate over operations.

        Args:
            instance_id: Only those of this instance.
            done: Only those that have ended, or only those that have not.
            limit: Rows in one page.

        Example:
            for operation in client.operations.list(done=False):
                print(operation.kind, operation.phase, operation.error)
        """
        wanted = query(instance_id=instance_id, done=done, limit=limit)
        async for one in self._api.pages(Operation, "/api/operations", "operations", wanted):
            yield one

    @Method
    async def get(self, operation_id: str) -> Operation:
        """Read an operation.

        Example:
            print(client.operations.get("op_1").phase)
        """
        return await self._api.fetch(Operation, "GET", path("api", "operations", operation_id))

    @Method
    async def cancel(self, operation_id: str, *, idempotency_key: str | None = None) -> Operation:
        """Cancel an operation that has done nothing irreversible yet.

        Example:
            client.operations.cancel("op_1")
        """
        place = path("api", "operations", operation_id, "cancel")
        return await self._api.fetch(Operation, "POST", place, key=idempotency_key)
