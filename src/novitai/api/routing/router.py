# SPDX-License-Identifier: Apache-2.0
"""Declare routes: one declaration both enforces and documents a route.

The annotations of a handler name its input: `body: CreateKeyRequest`, `query: PageQuery`. The
router validates the input with these models before it calls the handler, and the OpenAPI document
is built from the same models. For every route the router also checks the API key and its scope,
applies the rate limit and the time limit, and adds deprecation headers.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, get_type_hints

from cachetools import LRUCache
from starlette.requests import Request
from starlette.responses import Response

from novitai.api.http.accept import JSON
from novitai.api.http.answers import from_reply
from novitai.api.http.auth import KeyGuard
from novitai.api.http.body import MERGE_PATCH_TYPES, JsonBody, read_body
from novitai.api.http.context import RequestContext, context_of
from novitai.api.http.deadlines import DeadlineExpired, Deadlines
from novitai.api.http.endpoints import Endpoint, Endpoints
from novitai.api.http.versioning import Deprecation, without_version
from novitai.api.routing.queries import idempotency_key, query_of
from novitai.api.schemas.wire import RequestModel, read
from novitai.clock import Clock
from novitai.domain.actor import Actor
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

_MAX_QUERIES: Final = 1_000
_SHORT_QUERY: Final = 500
_RECHECK_SECONDS: Final = 0.5
"""A request that takes longer has its key or session checked again; either may end within 2 s."""

NOBODY: Final = Caller("", frozenset())

Handler = Callable[..., Awaitable[Response]]
"""Takes a `RouteCall` and, if declared, `body` and `query`."""


@dataclass(slots=True)
class RouteCall:
    """One request to a handler; `caller` is `NOBODY` if the route needs no key."""

    request: Request
    context: RequestContext
    commands: Commands
    caller: Caller = NOBODY
    seconds_left: float = 0.0
    key: IdempotencyKey | None = None

    @property
    def actor(self) -> Actor:
        """The caller as the actor of changes."""
        return self.caller.actor

    def named(self, parameter: str) -> str:
        """Return a path parameter."""
        value: str = self.request.path_params[parameter]
        return value

    async def run_once(
        self, command: Transaction[T] | Command[T], render: Callable[[T], Reply]
    ) -> Response:
        """Run a command, or return the stored response of its `Idempotency-Key`."""
        reply = await self.commands.run(
            command, render, key=self.key, deadline=self.context.deadline
        )
        return from_reply(reply)

    async def apply(self, command: Transaction[T] | Command[T]) -> T:
        """Run a command of a method that takes no `Idempotency-Key`."""
        return await self.commands.apply(command, deadline=self.context.deadline)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path.

    Attributes:
        id: The name of the operation, for generated clients: a verb and nouns in camelCase.
        scope: The scope that the API key needs; None if the route needs no key.
        answers: The models of successful responses, or the types of ready JSON, by status.
        media_type: The media type of successful responses.
        other_types: Media types of text in which they are sent instead if `Accept` prefers one.
        sends: Descriptions of headers of successful responses, by name.
        errors: Examples of the route's own errors. The document adds the errors of every route
            and those of a body or an `Idempotency-Key`.
        headers: Descriptions of the request headers it reads, by name.
        repeatable: Whether a POST or DELETE takes no `Idempotency-Key`, because it may be repeated.
        patient: Whether it holds requests open beyond the usual time limit. Such requests are
            counted but not timed.
    """

    method: str
    path: str
    id: str
    handler: Handler
    scope: Scope | None
    tag: str
    summary: str
    answers: Mapping[int, type | None]
    errors: Sequence[ApiError] = ()
    headers: Mapping[str, str] | None = None
    deprecated: Deprecation | None = None
    repeatable: bool = False
    patient: bool = False
    media_type: str = JSON
    other_types: Sequence[str] = ()
    sends: Mapping[str, str] | None = None

    @property
    def template(self) -> str:
        """The path in documentation, logs and metrics: without the converters of its parameters."""
        return _FORM.sub("}", self.path)

    @property
    def takes_key(self) -> bool:
        """Whether it takes an `Idempotency-Key`, as nearly every POST and DELETE does."""
        return self.method in {"POST", "DELETE"} and not self.repeatable

    @property
    def media_types(self) -> Sequence[str]:
        """The media types of its body; empty for JSON of any kind. A PATCH is a merge patch."""
        return MERGE_PATCH_TYPES if self.method == "PATCH" else ()

    @property
    def safe(self) -> bool:
        """Whether it only reads, so that it can be cancelled at any moment."""
        return self.method == "GET"

    @property
    def body(self) -> type[RequestModel] | None:
        """The model of the body. If no field is required, an absent or empty body means `{}`."""
        return get_type_hints(self.handler).get("body")

    @property
    def query(self) -> type[RequestModel] | None:
        """The model of the query string; None if the query string is ignored."""
        return get_type_hints(self.handler).get("query")


class Router:
    """Makes endpoints of declared routes.

    Args:
        endpoints: The endpoints to add to.
        guard: Authenticates and limits callers.
        clock: The clock for deadlines.
        commands: Runs the commands of handlers.
        allow_private: Whether webhooks may point to private and loopback addresses.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        guard: KeyGuard,
        clock: Clock,
        commands: Commands,
        *,
        allow_private: bool,
    ) -> None:
        self._endpoints = endpoints
        self._guard = guard
        self._clock = clock
        self._commands = commands
        self._allow_private = allow_private
        self._deadlines = Deadlines()
        self._queries: LRUCache[tuple[type[RequestModel], bytes], RequestModel] = LRUCache(
            _MAX_QUERIES
        )
        self.routes: list[Route] = []

    def add(self, *routes: Route) -> None:
        """Add routes."""
        for route in routes:
            self._endpoints.add(route.path, route.method, self._endpoint(route))
            self.routes.append(route)

    def _endpoint(self, route: Route) -> Endpoint:
        declared = route.deprecated.headers() if route.deprecated else []
        template, body, query = route.template, route.body, route.query
        scope, handler, takes_key = route.scope, route.handler, route.takes_key
        media_types = route.media_types
        # A request that writes is never cancelled, because its outcome would be unknown.
        # Its deadline is checked inside the transaction.
        patient = route.patient
        limited = route.safe and not patient

        async def answer(request: Request) -> Response:
            context = context_of(request)
            context.route = template
            context.instance_id = _instance_of(request)
            context.held = patient
            if declared:
                context.headers += declared
            left = max(0.0, (context.deadline - self._clock.now()) / 1000)
            call = RouteCall(request, context, self._commands, seconds_left=left)
            if not limited:
                return await run(call)
            try:
                return await self._deadlines.limited(left, run(call))
            except DeadlineExpired:
                raise RequestTimeout("The request took too long; nothing was done") from None

        async def run(call: RouteCall) -> Response:
            if scope is not None:
                call.caller = await self._guard.admit(call.request, call.context, scope)
            sent: dict[str, RequestModel] = {}
            if query is not None:
                sent["query"] = self._query(query, call.request)
            began = self._clock.monotonic()
            if body is not None:
                given = await _body(call, body, media_types)
                if scope is not None and self._clock.monotonic() - began > _RECHECK_SECONDS:
                    await self._guard.check_again(call.caller)
                sent["body"] = self._read(body, given.fields)
                if takes_key:
                    call.key = _key(call, given)
            answered = await handler(call, **sent)
            if scope is not None and self._clock.monotonic() - began > _RECHECK_SECONDS and patient:
                await self._guard.check_again(call.caller)
            return answered

        return answer

    def _query(self, model: type[RequestModel], request: Request) -> RequestModel:
        """Validate the query string; that of a page is the same again and again."""
        key = (model, request.scope["query_string"])
        found = self._queries.get(key)
        if found is None:
            found = self._read(model, query_of(request))
            if len(key[1]) <= _SHORT_QUERY:
                self._queries[key] = found
        return found

    def _read(self, model: type[RequestModel], values: Mapping[str, object]) -> RequestModel:
        return read(model, values, now=self._clock.now(), allow_private=self._allow_private)


async def _body(call: RouteCall, model: type[RequestModel], media_types: Sequence[str]) -> JsonBody:
    return await read_body(
        call.request,
        optional=model.optional(),
        seconds=call.seconds_left,
        media_types=media_types,
    )


def _key(call: RouteCall, body: JsonBody) -> IdempotencyKey | None:
    path = without_version(call.request.scope["path"])
    given = idempotency_key(call.request)
    if given is None:
        return None
    return IdempotencyKey(call.caller.key_id, f"{call.request.method} {path}", given, body.digest)


def _instance_of(request: Request) -> str | None:
    """Return the instance ID in the path; None if it is absent or malformed."""
    given = request.path_params.get("instanceId")
    return given if isinstance(given, str) and _INSTANCE_ID.fullmatch(given) else None
