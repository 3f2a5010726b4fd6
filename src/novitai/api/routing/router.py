# SPDX-License-Identifier: Apache-2.0
"""How a route is declared: once, with all that is enforced on it and all that is documented of it.

A handler names what it is sent: `body: CreateKeyRequest`, `query: PageQuery`. Both are checked by
their models before the handler is called, and documented from the same models. What stands around
it is the same for every route: the key and its scope, the rate limit, the time limit, deprecation.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, get_type_hints

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from novitai.api.http.answers import from_reply
from novitai.api.http.auth import KeyGuard
from novitai.api.http.body import JsonBody, read_body
from novitai.api.http.context import RequestContext, context_of
from novitai.api.http.versioning import Deprecation, without_version
from novitai.api.routing.queries import idempotency_key, query_of
from novitai.api.schemas.wire import RequestModel, ResponseModel, read
from novitai.clock import Clock
from novitai.domain.api_key import Scope
from novitai.errors import ApiError, RequestTimeout
from novitai.lifecycle.api_keys import Caller
from novitai.lifecycle.commands.idempotency import (
    Command,
    Commands,
    IdempotencyKey,
    Reply,
    Transaction,
)

T = TypeVar("T")

_INSTANCE_ID: Final = re.compile(r"[A-Za-z0-9_]{1,64}")
_FORM: Final = re.compile(":[a-z]+}")

NOBODY: Final = Caller("", frozenset())

Handler = Callable[..., Awaitable[Response]]
"""Takes a `RouteCall`, and perhaps `body` and `query`."""


@dataclass(slots=True)
class RouteCall:
    """One request on its way to a handler; `caller` is `NOBODY` where no key is needed."""

    request: Request
    context: RequestContext
    commands: Commands
    caller: Caller = NOBODY
    seconds_left: float = 0.0
    key: IdempotencyKey | None = None

    def named(self, parameter: str) -> str:
        """Return a parameter of the path."""
        value: str = self.request.path_params[parameter]
        return value

    async def run_once(
        self, command: Transaction[T] | Command[T], render: Callable[[T], Reply]
    ) -> Response:
        """Carry out a command, or repeat the answer that the `Idempotency-Key` was given before."""
        reply = await self.commands.run(
            command, render, key=self.key, deadline=self.context.deadline
        )
        return from_reply(reply)

    async def apply(self, command: Transaction[T] | Command[T]) -> T:
        """Carry out a command of a method that takes no `Idempotency-Key`."""
        return await self.commands.apply(command, deadline=self.context.deadline)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path.

    Attributes:
        scope: The scope a key needs; None where no key is needed.
        answers: What is answered when all is well, by status.
        errors: Examples of the errors that are the route's own; those are added that every route
            has, and those that come with a body or an `Idempotency-Key`.
        headers: The headers it reads, by name, each with what it is for.
        patient: Whether it holds requests open, longer than every other may take; such requests
            are counted, and not timed.
    """

    method: str
    path: str
    handler: Handler
    scope: Scope | None
    tag: str
    summary: str
    answers: Mapping[int, type[ResponseModel] | None]
    errors: Sequence[ApiError] = ()
    headers: Mapping[str, str] | None = None
    deprecated: Deprecation | None = None
    patient: bool = False

    @property
    def template(self) -> str:
        """The path as it is shown and counted: without what a parameter's form may be."""
        return _FORM.sub("}", self.path)

    @property
    def takes_key(self) -> bool:
        """Whether it takes an `Idempotency-Key`, as every POST and DELETE does."""
        return self.method in {"POST", "DELETE"}

    @property
    def safe(self) -> bool:
        """Whether it changes nothing, so that it may be broken off at any moment."""
        return self.method == "GET"

    @property
    def body(self) -> type[RequestModel] | None:
        """What is sent. An absent or empty body is `{}` where no field of it is required."""
        return get_type_hints(self.handler).get("body")

    @property
    def query(self) -> type[RequestModel] | None:
        """The parameters of the query; where None, the query is not looked at."""
        return get_type_hints(self.handler).get("query")


class Router:
    """Adds declared routes to an application.

    Args:
        app: The application.
        guard: Who may come in.
        clock: The time.
        commands: Carries out what is asked for.
        allow_private: Whether webhooks may point to private and loopback addresses.
    """

    def __init__(
        self,
        app: Starlette,
        guard: KeyGuard,
        clock: Clock,
        commands: Commands,
        *,
        allow_private: bool,
    ) -> None:
        self._app = app
        self._guard = guard
        self._clock = clock
        self._commands = commands
        self._allow_private = allow_private
        self.routes: list[Route] = []

    def add(self, *routes: Route) -> None:
        """Add routes."""
        for route in routes:
            self._app.add_route(route.path, self._endpoint(route), methods=[route.method])
            self.routes.append(route)

    def _endpoint(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        declared = route.deprecated.headers() if route.deprecated else []
        template, body, query = route.template, route.body, route.query

        async def answer(request: Request) -> Response:
            context = context_of(request)
            context.route = template
            context.instance_id = _instance_of(request)
            context.held = route.patient
            context.headers += declared
            left = max(0.0, (context.deadline - self._clock.now()) / 1000)
            call = RouteCall(request, context, self._commands, seconds_left=left)
            # What changes something is never broken off: it would not be known whether it was
            # done. There the deadline is judged inside of the transaction.
            limit = left if route.safe and not route.patient else None
            try:
                async with asyncio.timeout(limit) as timer:
                    if route.scope is not None:
                        call.caller = await self._guard.admit(request, context, route.scope)
                    sent: dict[str, RequestModel] = {}
                    if query is not None:
                        sent["query"] = self._read(query, query_of(request))
                    if body is not None:
                        given = await _body(call, body)
                        sent["body"] = self._read(body, given.fields)
                        if route.takes_key:
                            call.key = _key(call, given)
                    return await route.handler(call, **sent)
            except TimeoutError:
                if not timer.expired():
                    raise
                raise RequestTimeout("The request took too long; nothing was done") from None

        return answer

    def _read(self, model: type[RequestModel], values: Mapping[str, object]) -> RequestModel:
        return read(model, values, now=self._clock.now(), allow_private=self._allow_private)


async def _body(call: RouteCall, model: type[RequestModel]) -> JsonBody:
    return await read_body(call.request, optional=model.optional(), seconds=call.seconds_left)


def _key(call: RouteCall, body: JsonBody) -> IdempotencyKey | None:
    path = without_version(call.request.scope["path"])
    given = idempotency_key(call.request)
    if given is None:
        return None
    return IdempotencyKey(call.caller.key_id, f"{call.request.method} {path}", given, body.digest)


def _instance_of(request: Request) -> str | None:
    """Return the instance that a path names; None where it names none that could exist."""
    given = request.path_params.get("instanceId")
    return given if isinstance(given, str) and _INSTANCE_ID.fullmatch(given) else None
