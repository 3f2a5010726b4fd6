# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 on one connection: parsing, size limits and timeouts.

The application, not the server, also answers malformed HTTP. So the response is sent after those to
earlier requests, and it has a request ID, a log line and the error envelope.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, cast

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from novitai.api.http.context import ABORT, CLOSING, REFUSAL, REPLY
from novitai.errors import ApiError, RequestTimeout, ValidationFailed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from novitai.cli.connections import Connections

MAX_HEAD: Final = 65_536
"""Maximum bytes of a request line and headers; the parser itself has no limit."""
MAX_EXCESS: Final = 16_384
"""Maximum bytes of chunk framing, extensions and trailers of a body. Each chunk adds 16 bytes and
twice its size to the allowance, so that all normal framing fits (as in Go's `net/http`)."""
MAX_PIPELINED: Final = 16
"""How many requests of one connection may be queued before reading pauses."""
_PIECE: Final = 16_384
"""Bytes that are parsed between two checks of the limits."""

_NO_HTTP: Final = "The request is not valid HTTP/1.1"
_TOO_LONG: Final = f"The request line and the headers are longer than {MAX_HEAD} bytes"
_EXCESS: Final = f"The chunk extensions and trailers are longer than {MAX_EXCESS} bytes"
_WRONG_VERSION: Final = "Only HTTP/1.1 and HTTP/1.0 are supported"
_WRONG_HOST: Final = "The request needs exactly one valid Host header"
_WRONG_CODING: Final = "The only transfer coding that is supported is chunked, in HTTP/1.1"
_SLOW_HEAD: Final = "The request line and the headers did not arrive in time"
_SLOW_BODY: Final = "The request body did not arrive in time"

_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}) [!-~]+ HTTP/1\.[01]\r?\n")
_HOST: Final = re.compile(
    rb"(\[[0-9A-Fa-f:.%A-Za-z_~-]+\]|[0-9A-Za-z._~%!$&'()*+,;=-]*)(:[0-9]{0,5})?"
)
"""The form of `Host` (RFC 9110, section 7.2): `uri-host [ ":" port ]`; it may be empty."""
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_STAND_IN: Final = b"TRACE"
"""A method that the parser accepts and no route has."""
_NO_METHOD: Final = b"-"


class _At(Enum):
    """The part of a request that the parser is reading."""

    START = auto()
    HEAD = auto()
    BODY = auto()


class _UnacceptableError(Exception):
    """The request head is well-formed HTTP, but is refused."""


class _Lingering:
    """A transport that closes only its write side, so that a client still sending gets the answer.

    Closing a connection with unread bytes resets it, and the reset may reach the client before the
    response does (RFC 9112, section 9.6).
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.write = transport.write
        self.is_closing = transport.is_closing

    def close(self) -> None:
        """Close the write side; bytes that the client still sends are discarded."""
        self._transport.write_eof()


class AnsweringProtocol(HttpToolsProtocol):
    """Reads requests and passes malformed ones to the application to be refused."""

    _at = _At.START
    _heard = False
    """Whether a message has begun; blank lines before it are ignored (RFC 9112, section 2.2)."""
    _since = 0.0
    """Loop time at which the current message, or the wait for the next one, began."""
    _head = 0
    """Bytes of the incomplete head."""
    _payload = 0
    """Bytes of body data in the piece that is being parsed."""
    _allowance = 0
    """How many more bytes of chunk framing and trailers are allowed."""
    _turned = False
    """Whether a head or a message ended within the piece that is being parsed."""
    _first = b""
    """The piece being parsed, if a request begins with it; else empty."""
    _method: bytes | None = None
    """The method to pass to the application, if the parser was given another one."""
    _unread = b""
    """Bytes that have arrived and are not parsed yet."""
    _over = False
    _paused_since: float | None = None
    """Loop time since when the client has been reading a response too slowly."""
    _leaving_since: float | None = None
    """Loop time since when the connection has been closing."""
    _running: RequestResponseCycle | None = None
    """The request being answered, or the last one that was."""
    answered = False
    """Whether a request of this connection has been answered."""

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        crowd: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._crowd = crowd

    def connection_made(
        self,
        transport: asyncio.Transport,  # type: ignore[override]  # uvicorn narrows it likewise
    ) -> None:
        """Accept a connection; if there are too many, close others or refuse this one."""
        super().connection_made(transport)
        self._since = self.loop.time()
        refusal = self._crowd.admit(self)
        if refusal is not None:
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the running request, which may not be the last one read, and drop queued ones."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection once the running request is answered."""
        self._crowd.batch.flush()
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Parse new bytes; ignore all bytes after a refused request."""
        self._unset_keepalive_if_required()
        if self._over:
            return
        self._unread += data
        self._read_on()

    def pause_writing(self) -> None:
        """Record when the client stopped reading a response."""
        super().pause_writing()
        self._paused_since = self.loop.time()

    def resume_writing(self) -> None:
        """Clear that record."""
        super().resume_writing()
        self._paused_since = None

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._at = _At.HEAD
        if not self._heard:
            self._heard, self._since = True, self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailer fields are ignored (RFC 9110, section 6.5.1)."""
        if self._at is _At.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Queue the request to be answered in order."""
        self._turned = True
        method = self._method or self.parser.get_method()
        if self.parser.should_upgrade():
            return  # `_parse_without_upgrade` parses the request again, without the upgrade.
        if not self._over:
            self._check_head()
        super().on_headers_complete()
        self.scope["method"] = method.decode()
        own = self._own_keys()
        own[CLOSING] = self._crowd.closing
        own[REPLY] = self._reply
        own[ABORT] = self.transport.abort
        if method == b"CONNECT":
            self.cycle.keep_alive = False
        self._at, self._head, self._first, self._method = _At.BODY, 0, b"", None
        self._since, self._allowance = self.loop.time(), MAX_EXCESS

    def on_chunk_header(self) -> None:
        """Add the framing of a chunk to the allowance."""
        self._allowance = min(MAX_EXCESS, self._allowance + 16)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._payload += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._turned = True
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._at, self._heard, self._since = _At.START, False, self.loop.time()

    def on_response_complete(self) -> None:
        """Begin the next request, and parse the bytes that were held back while it was queued.

        uvicorn's timer for idle connections is not set: `enforce` closes them.
        """
        self.answered = True
        self.server_state.total_requests += 1
        if not self._heard:
            self._since = self.loop.time()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if self._unread:
            self.loop.call_soon(self._read_on)

    def _reply(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
        """Send the whole response of the running request in one write, with others of this turn.

        Raises:
            ValueError: a header has a control character, such as a line break.
        """
        cycle = self._running
        if cycle is None or cycle.response_started or cycle.disconnected or self.flow.write_paused:
            return False
        fields = [b"%b: %b" % field for field in (*cycle.default_headers, *headers)]
        if not cycle.keep_alive:
            fields.append(b"connection: close")
        if _CONTROL.search(b"".join(fields)):
            raise ValueError("a header has a control character")
        head = STATUS_LINE[status] + b"\r\n".join(fields)
        cycle.response_started = cycle.response_complete = True
        self._crowd.batch.put(cycle.transport, b"%b\r\n\r\n%b" % (head, body))
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._crowd.batch.flush()
            cycle.transport.close()
        cycle.on_response()
        return True

    @property
    def in_hand(self) -> bool:
        """Whether a request is being answered."""
        # uvicorn declares that `cycle` is never None, but it is None before the first request.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    @property
    def waiting_since(self) -> float | None:
        """Loop time since when the server has waited for the client; None if it is not waiting."""
        if self._at is _At.BODY:
            return None if self.pipeline else self._since
        return None if self.in_hand else self._since

    def enforce(self, now: float) -> bool:
        """Refuse or close after a timeout; return whether one had passed. `now` is loop time."""
        limits = self._crowd.limits
        if self.flow.read_paused:
            self._since = now  # The client cannot send while reading is paused.
        if self.transport.is_closing():
            self._leaving_since = self._leaving_since or now
            return self._end_if(now - self._leaving_since > limits.answer)
        if self._paused_since is not None:
            return self._end_if(now - self._paused_since > limits.answer)
        if self._over:
            return self._end_if(not self.in_hand and now - self._since > limits.linger)
        if self._at is _At.BODY:
            return self._refuse_if(now - self._since > limits.body, _SLOW_BODY)
        if self._heard:
            return self._refuse_if(now - self._since > limits.head, _SLOW_HEAD)
        return self._end_if(not self.in_hand and now - self._since > limits.idle)

    def _end_if(self, overdue: bool) -> bool:
        if overdue:
            self.transport.abort()
        return overdue

    def _refuse_if(self, overdue: bool, reason: str) -> bool:
        if overdue:
            self._refuse(RequestTimeout(reason))
        return overdue

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _read_on(self) -> None:
        """Parse the bytes that have arrived; pause reading while too many requests are queued."""
        while self._unread and not self._over and not self.transport.is_closing():
            if len(self.pipeline) >= MAX_PIPELINED:
                self.flow.pause_reading()
                return
            piece, self._unread = self._unread[:_PIECE], self._unread[_PIECE:]
            self._parse(piece)
        self._unread = b""

    def _parse(self, piece: bytes) -> None:
        self._first = piece if self._at is _At.START else b""
        self._payload, self._turned = 0, False
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._parse_without_upgrade(piece[upgrade.args[0] :])
        except httptools.HttpParserInvalidMethodError:
            self._parse_with_stand_in()
        except httptools.HttpParserCallbackError as error:
            refused = isinstance(error.__context__, _UnacceptableError)
            self._refuse(ValidationFailed(str(error.__context__) if refused else _NO_HTTP))
        except httptools.HttpParserError:
            self._refuse(ValidationFailed(_NO_HTTP))
        else:
            self._check_bounds(len(piece))

    def _check_bounds(self, size: int) -> None:
        """Refuse a head or framing that is too long; `size` is that of the piece just parsed."""
        if self._turned or self._over:
            return  # At most this one piece is not counted.
        if self._at is _At.BODY:
            self._allowance -= size - 3 * self._payload
            self._allowance = min(MAX_EXCESS, self._allowance)
            if self._allowance < 0:
                self._refuse(ValidationFailed(_EXCESS))
            return
        self._head += size
        if self._head > MAX_HEAD:
            self._refuse(ValidationFailed(_TOO_LONG))

    def _check_head(self) -> None:
        """Refuse a head that is ambiguous.

        Raises:
            _UnacceptableError: the version, `Host` or transfer coding is wrong.
        """
        version = self.parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            raise _UnacceptableError(_WRONG_VERSION)
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and version == "1.1"):
            raise _UnacceptableError(_WRONG_HOST)
        if hosts and not _HOST.fullmatch(hosts[0]):
            raise _UnacceptableError(_WRONG_HOST)
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if codings and (version == "1.0" or [one.lower() for one in codings] != [b"chunked"]):
            raise _UnacceptableError(_WRONG_CODING)

    def _parse_without_upgrade(self, rest: bytes) -> None:
        """Parse the request again without its `Upgrade` header (RFC 9110, section 7.8).

        The parser assumes that an upgrade request has no body, and would read the body as the next
        request.
        """
        method = self._method or self.parser.get_method()
        version = self.parser.get_http_version().encode()
        kept = [(name, value) for name, value in self.headers if name != b"upgrade"]
        lines = [name + b": " + value + b"\r\n" for name, value in kept]
        head = _STAND_IN + b" " + self.url + b" HTTP/" + version + b"\r\n" + b"".join(lines)
        self._method = method
        self._parse_anew(head + b"\r\n" + rest)

    def _parse_with_stand_in(self) -> None:
        """Parse a request with a method that the parser does not know.

        The parser is given another method; the application sees the original one.
        """
        known = _REQUEST_LINE.match(self._first)
        if known is None:
            self._refuse(ValidationFailed(_NO_HTTP))
            return
        rest = self._first[known.end(1) :]
        self._first, self._method = b"", known[1]
        self._parse_anew(_STAND_IN + rest)

    def _refuse(self, error: ApiError) -> None:
        """Let the application send the error, after the earlier responses; then close."""
        self._crowd.batch.flush()
        understood = [] if self._at is _At.START else [*self.headers]
        if self._at is _At.BODY and not self._withdraw():
            self.transport.close()
            return
        self._over, self._unread, self._method = True, b"", _NO_METHOD
        self._parse_anew(_STAND_IN + b" / HTTP/1.1\r\nConnection: close\r\n\r\n")
        # The request's task has not started yet, so its headers and scope can still be changed.
        self.headers[:] = understood
        self._own_keys()[REFUSAL] = error
        self.cycle.transport = cast("asyncio.Transport", _Lingering(self.transport))

    def _own_keys(self) -> dict[str, object]:
        """Return the request's scope, for keys that ASGI does not define."""
        return cast("dict[str, object]", self.scope)

    def _withdraw(self) -> bool:
        """Cancel the request whose body is being read; return False if its response has begun."""
        if self.pipeline and self.pipeline[0][0] is self.cycle:
            self.pipeline.popleft()
            return True
        if self.cycle.response_started:
            return False
        # The handler sees a client that disconnected in the middle of the body.
        self.cycle.disconnected = self.cycle.response_complete = True
        self.cycle.message_event.set()
        return True

    def _parse_anew(self, data: bytes) -> None:
        self.parser = httptools.HttpRequestParser(self)
        # As in uvicorn: data after the last request of a connection is not an error.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._at = _At.START
        self._parse(data)
