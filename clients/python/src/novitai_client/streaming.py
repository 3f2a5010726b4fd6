# SPDX-License-Identifier: Apache-2.0
"""Read `text/event-stream` (HTML standard, section 9.2), without input or output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a stream; `event` is `message` if the stream gives it no type."""

    event: str
    data: str


class EventStreamParser:
    """Reads messages from the parts of one connection.

    Attributes:
        last_id: The ID to resume after. It is set when the message with it is complete.
        retry: Milliseconds to wait before a new connection, if the server said so.
    """

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        self.retry: int | None = None
        self._buffer = b""
        self._begun = False
        self._id = last_id
        self._event = ""
        self._data: list[str] = []

    def feed(self, part: bytes) -> Iterator[Message]:
        """Read a part; yield each message that is complete."""
        self._buffer += part
        if not self._begun and len(self._buffer) >= 3:
            self._begun = True
            self._buffer = self._buffer.removeprefix(b"\xef\xbb\xbf")
        *lines, self._buffer = _LINE_END.split(self._whole())
        self._buffer += self._held
        for line in lines:
            message = self._line(line.decode(errors="replace"))
            if message is not None:
                yield message

    def _whole(self) -> bytes:
        """Hold back a CR at the end: a LF that belongs to it may follow."""
        held = self._buffer.endswith(b"\r")
        self._held = b"\r" if held else b""
        return self._buffer[:-1] if held else self._buffer

    def _line(self, line: str) -> Message | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)
        return None

    def _dispatch(self) -> Message | None:
        data, event = self._data, self._event
        self._data, self._event = [], ""
        self.last_id = self._id
        return Message(event or "message", "\n".join(data)) if data else None
