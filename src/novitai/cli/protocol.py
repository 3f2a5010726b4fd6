# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 on one connection, where what cannot be read gets an answer of the application too.

The server would write a text of its own. Here it goes the way of every request instead: it gets its
turn after those that were read before it, a request id, a line in the log, and the error envelope.
"""

from __future__ import annotations

import re
import sys
from enum import Enum, auto
from typing import Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from novitai.api.middleware import UNREADABLE

MAX_HEAD: Final = 65_536
"""Bytes that a request line and its headers may come to; the parser itself knows no bound."""

_NO_HTTP: Final = "The request is not valid HTTP/1.1"
_TOO_LONG: Final = f"The request line and the headers are longer than {MAX_HEAD} bytes"

_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}) [!-~]+ HTTP/1\.[01]\r?\n")
_STAND_IN: Final = b"TRACE"
"""A method that the parser knows and no route has."""
_NO_METHOD: Final = b"-"


class _At(Enum):
    """Where in a request the parser is."""

    START = auto()
    HEAD = auto()
    BODY = auto()


class AnsweringProtocol(HttpToolsProtocol):
    """Reads requests, and has the application answer what cannot be read as one."""

    _at = _At.START
    _head = 0
    """Bytes of a head that is not complete."""
    _first = b""
    """What came last, if a request began with it whose head is not read yet."""
    _method: bytes | None = None
    """What the application is to see as the method of the request that is being read."""
    _over = False

    def data_received(self, data: bytes) -> None:
        """Read on; after what cannot be read, nothing more."""
        if self._over:
            return
        self._first = data if self._at is _At.START else b""
        super().data_received(data)
        if self._at is _At.HEAD and not self._over:
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._refuse(_TOO_LONG)

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._at = _At.HEAD

    def on_headers_complete(self) -> None:
        """Have the request answered, in its turn."""
        super().on_headers_complete()
        if self._method is not None:
            self.scope["method"] = self._method.decode()
        self._at, self._head, self._first, self._method = _At.BODY, 0, b"", None

    def on_message_complete(self) -> None:
        """End a request."""
        super().on_message_complete()
        self._at = _At.START

    def send_400_response(self, msg: str) -> None:
        """Go on where the parser only does not know the method; else refuse."""
        known = _REQUEST_LINE.match(self._first)
        unknown_method = isinstance(sys.exc_info()[1], httptools.HttpParserInvalidMethodError)
        if known is None or not unknown_method:
            self._refuse(_NO_HTTP)
            return
        # Which methods there are on a path, the application knows.
        rest = self._first[known.end(1) :]
        self._first, self._method = b"", known[1]
        self._parse_anew(_STAND_IN + rest)

    def _refuse(self, reason: str) -> None:
        """Have the application say why, after the answers to what was read before; then hang up."""
        understood = [] if self._at is _At.START else [*self.headers]
        if self._at is _At.BODY and not self._withdraw():
            self.transport.close()
            return
        self._over, self._method = True, _NO_METHOD
        self._parse_anew(_STAND_IN + b" / HTTP/1.1\r\nConnection: close\r\n\r\n")
        # Its task has not begun yet.
        self.headers[:] = understood
        self.scope[UNREADABLE] = reason  # type: ignore[typeddict-unknown-key]  # a key of our own

    def _withdraw(self) -> bool:
        """Take back the request whose body is being read; False if its answer has begun."""
        if self.pipeline and self.pipeline[0][0] is self.cycle:
            self.pipeline.popleft()
            return True
        if self.cycle.response_started:
            return False
        # To whoever handles it, the client has gone in the middle of the body.
        self.cycle.disconnected = self.cycle.response_complete = True
        self.cycle.message_event.set()
        return True

    def _parse_anew(self, data: bytes) -> None:
        self.parser = httptools.HttpRequestParser(self)
        # As the server has it: what comes after the last request of a connection is no error.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._at = _At.START
        super().data_received(data)
