# SPDX-License-Identifier: Apache-2.0
"""What is known of the request that is being answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final, cast

from starlette.requests import HTTPConnection
from starlette.types import Scope as AsgiScope

_KEY: Final = "novitai.context"
REFUSAL: Final = "novitai.refusal"
"""In the scope of what the server itself refuses, such as malformed HTTP: the error to answer."""
CLOSING: Final = "novitai.closing"
"""In the scope of every request that comes over a server: how far its end has come."""


@dataclass(slots=True)
class Closing:
    """The end of a server.

    Attributes:
        asked: Set when the server has been asked to end: long polls answer now.
        over: Whether the time for requests in hand is over: what has not begun is refused.
    """

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False


@dataclass(slots=True)
class RequestContext:
    """One request. `deadline` in Unix milliseconds, `began` in steady seconds.

    Attributes:
        client: The address of the caller, looked up behind trusted proxies.
        headers: Headers that the answer gets whatever it is.
        route: The template of the route that answers; None where none does.
        instance_id: The instance that the path names, for the log; made safe to write.
        key_id: Whose key it was, once that is known; for the log.
        closing: The end of the server; never asked for where there is no server.
        held: Whether the route holds requests open on purpose, so that how long one took says
            nothing about how fast we are.
    """

    request_id: str
    correlation_id: str | None
    client: str
    accept: str
    deadline: int
    began: float
    headers: list[tuple[str, str]] = field(default_factory=list)
    route: str | None = None
    instance_id: str | None = None
    key_id: str | None = None
    closing: Closing = field(default_factory=Closing)
    held: bool = False


def attach(scope: AsgiScope, context: RequestContext) -> None:
    """Make the context part of an ASGI scope."""
    scope[_KEY] = context


def context_of(connection: HTTPConnection) -> RequestContext:
    """Return the context that the middleware attached."""
    return cast("RequestContext", connection.scope[_KEY])
