# SPDX-License-Identifier: Apache-2.0
"""`/api/events/stream`: events as Server-Sent Events (HTML Living Standard, section 9.2)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

import orjson
from cachetools import LRUCache
from pydantic import Field
from starlette.responses import Response

from novitai.api.http.context import header_values
from novitai.api.http.streaming import StreamingAnswer
from novitai.api.routing.queries import InstanceFilter, OneOf
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.history import EventView
from novitai.api.schemas.wire import RequestModel, Wording, absent
from novitai.domain.api_key import Scope
from novitai.domain.event import Event, EventType
from novitai.errors import TooManyRequests
from novitai.lifecycle.queries.event_streams import (
    MAX_PER_KEY,
    Comment,
    EventStream,
    EventStreams,
    Gap,
    Item,
    StreamTerms,
)

EVENT_STREAM: Final = "text/event-stream"
RETRY_MS: Final = 2000

_PLACE: Final = "^[A-Za-z0-9_-]{1,4096}$"
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_RENDERED: Final = 2_000
"""Events that are kept as text, because all streams send the same ones at about the same time."""
_TOO_MANY: Final = TooManyRequests(
    f"This API key has {MAX_PER_KEY} open event streams: close one first", retry_after=5
)


class StreamQuery(RequestModel):
    """Which events to stream."""

    type: Annotated[EventType, Field(description="Only this type"), OneOf("Type")] = absent()
    instance_id: InstanceFilter = absent()
    since: Annotated[
        str,
        Field(
            pattern=_PLACE,
            description="Begin after this event ID, or with the events that the list with this "
            "`Event-Cursor` does not show. If it is absent, the stream begins now.",
        ),
        Wording("Since", wrong="Since must be an event ID or an Event-Cursor"),
    ] = absent()


class EventStreamRoutes:
    """Handlers of the live stream."""

    def __init__(self, streams: EventStreams) -> None:
        self._streams = streams
        self._rendered: LRUCache[str, bytes] = LRUCache(_RENDERED)

    def routes(self) -> list[Route]:
        """Declare the route."""
        return [
            Route(
                method="GET",
                path="/api/events/stream",
                id="streamEvents",
                handler=self.stream,
                scope=Scope.READ,
                tag="History",
                summary="Stream the events of all instances",
                headers={
                    "Last-Event-ID": "The last ID that the client got: the stream continues after "
                    "it. It takes precedence over `since`"
                },
                answers={200: str},
                media_type=EVENT_STREAM,
                errors=[_TOO_MANY],
                patient=True,
            )
        ]

    async def stream(self, call: RouteCall, query: StreamQuery) -> Response:
        """Stream events as they are committed, as Server-Sent Events.

        `id` is the event's ID, `event` its type, and `data` the same JSON as in `GET /api/events`.
        A stream that begins now first sends an `id` without data, so that a client whose connection
        is lost before the first event misses none.
        The events of an instance are in their order, and none is skipped. If the event to continue
        after is not in the log, the first message is `event: gap` with the data
        `{"oldest": "evt_..."}`, and the stream begins with that event. A comment is sent every 15
        seconds. The server closes the stream when it shuts down, within 2 seconds after the key was
        revoked or the session ended, and if 1,000 events wait to be read: reconnect with
        `Last-Event-ID`.
        """
        given = header_values(call.request.scope, b"last-event-id")
        wanted = StreamTerms(
            event_type=query.type,
            instance_id=query.instance_id,
            since=query.since,
            last_event_id=given[0].decode("latin-1") if given else None,
        )
        stream = await self._streams.open(call.caller.credential, wanted)
        return StreamingAnswer(
            self._parts(stream), EVENT_STREAM, _HEADERS, ended=stream.ended, close=stream.close
        )

    async def _parts(self, stream: EventStream) -> AsyncIterator[bytes]:
        yield b"retry: %d\n\n" % RETRY_MS
        if stream.place is not None:
            # An ID without data is no message; a client that reconnects sends it all the same.
            yield b"id: %b\n\n" % stream.place.encode()
        while items := await stream.items():
            yield b"".join([self._message(item) for item in items])

    def _message(self, item: Item) -> bytes:
        if isinstance(item, Comment):
            return b":\n\n"
        if isinstance(item, Gap):
            return b"event: gap\ndata: %b\n\n" % orjson.dumps({"oldest": item.oldest})
        message = self._rendered.get(item.id)
        if message is None:
            message = self._rendered[item.id] = _render(item)
        return message


def _render(event: Event) -> bytes:
    shown = EventView.of(event).json_bytes()
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event.id.encode(), event.type.encode(), shown)
