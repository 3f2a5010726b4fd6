# SPDX-License-Identifier: Apache-2.0
"""The context of a request while it is handled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from starlette.requests import HTTPConnection
from starlette.types import Scope as AsgiScope

_KEY: Final = "novitai.context"
REFUSAL: Final = "novitai.refusal"
"""Scope key, set if the server itself refuses a request (malformed HTTP): the error to return."""
CLOSING: Final = "novitai.closing"
"""Scope key, set on every request that a server receives: the server's `Closing`."""
REPLY: Final = "novitai.reply"
"""Scope key, set by a server that takes a whole response at once: its `Reply`."""
ABORT: Final = "novitai.abort"
"""Scope key, set by a server: closes the connection at once, even if the client does not read."""

Reply = Callable[[int, Sequence[tuple[bytes, bytes]], bytes], bool]
"""Sends a response: its status, headers and body. Returns False if it cannot be sent now."""


@dataclass(slots=True)
class Closing:
    """The shutdown state of a server.

    Attributes:
        asked: Set when shutdown begins: long polls return at once.
        over: Whether the time for running requests has passed: new requests are refused.
    """

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False


@dataclass(slots=True)
class RequestContext:
    """One request. `deadline` is in Unix milliseconds, `began` in monotonic seconds.

    Attributes:
        client: The address of the caller, as trusted proxies report it.
        headers: Headers to add to the response, even to an error, with names in lower case.
        route: The template of the matched route; None if no route matches.
        instance_id: The instance ID in the path, for the log; None if it is malformed.
        key_id: The ID of the API key, for the log; None until it is authenticated.
        closing: The shutdown state of the server; never set if no server runs the application.
        secure: Whether the client uses HTTPS, as trusted proxies report it.
        held: Whether the route holds requests open on purpose, so that their duration is no
            measure of speed.
    """

    request_id: str
    correlation_id: str | None
    client: str
    accept: str
    deadline: int
    began: float
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    route: str | None = None
    instance_id: str | None = None
    key_id: str | None = None
    closing: Closing = field(default_factory=Closing)
    held: bool = False
    secure: bool = False


def attach(scope: AsgiScope, context: RequestContext) -> None:
    """Store the context in an ASGI scope."""
    scope[_KEY] = context


def context_of(connection: HTTPConnection) -> RequestContext:
    """Return the context that the middleware stored."""
    return cast("RequestContext", connection.scope[_KEY])


def header_values(scope: AsgiScope, name: bytes) -> list[bytes]:
    """Return the values of all headers with a name, which is in lower case."""
    return [value for given, value in scope["headers"] if given == name]
