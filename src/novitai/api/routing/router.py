# SPDX-License-Identifier: Apache-2.0
"""How a route is declared: once, with all that is enforced on it and all that is documented of it.

A handler gets a `Call` and gives a response. What stands around it is the same for every route: the
key and its scope, the rate limit, the time limit, deprecation, and the OpenAPI document.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from novitai.api.http.auth import Guard
from novitai.api.http.body import JsonBody, read_body
from novitai.api.http.context import RequestContext, context_of
from novitai.api.http.errors import shutting_down
from novitai.api.http.versioning import Deprecation
from novitai.api.openapi.document import Parameter, describe, document_answers
from novitai.api.openapi.lifecycle_schemas import NoFields
from novitai.api.routing.common_errors import BAD_BODY, IDEMPOTENCY, UNKNOWN_FIELD
from novitai.clock import Clock
from novitai.domain.api_key import Scope
from novitai.domain.fields import Fields
from novitai.errors import ApiError, Forbidden, RateLimited, RequestTimeout, Unauthorized
from novitai.lifecycle.api_keys import Caller
from novitai.store.engine.errors import StoreUnavailable

_INSTANCE_ID: Final = re.compile(r"[A-Za-z0-9_]{1,64}")
_FORM: Final = re.compile(":[a-z]+}")

NOBODY: Final = Caller("", frozenset())

IDEMPOTENCY_KEY: Final = "[!-~]{1,255}"
"""The form of an `Idempotency-Key`, as a regular expression: visible ASCII."""
_IDEMPOTENCY_KEY: Final = Parameter(
    "Idempotency-Key",
    "Sent again within 24 h with the same body, the request has no second effect and gets the "
    "same answer, with `Idempotent-Replayed: true`",
    {"type": "string", "pattern": f"^{IDEMPOTENCY_KEY}$"},
    "header",
)


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way to a handler; `caller` is `NOBODY` where no key is needed."""

    request: Request
    context: RequestContext
    caller: Caller
    seconds_left: float

    @property
    def path_params(self) -> Mapping[str, str]:
        """What stands in the path for the names of its template."""
        return self.request.path_params

    async def body(self, *, optional: bool = False) -> JsonBody:
        """Read the JSON object that was sent; with `optional`, nothing at all is `{}`."""
        return await read_body(self.request, optional=optional, seconds=self.seconds_left)

    async def no_fields(self) -> JsonBody:
        """Read a body in which nothing may stand, so that nobody believes what is not heard."""
        body = await self.body(optional=True)
        Fields(body.fields).finish()
        return body


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    Attributes:
        scope: The scope a key needs; None where no key is needed.
        answers: What is answered when all is well, by status.
        errors: Examples of the errors that are the route's own; those are added that every route
            has, and those that come with a body or an `Idempotency-Key`.
        body: What is sent. An absent or empty body is `{}` where no field of it is required.
        hot: Whether it is answered in front of the framework, which costs more than the answer.
        patient: Whether it holds requests open, longer than every other may take; such requests
            are counted, and not timed.
    """

    method: str
    path: str
    handler: Handler
    scope: Scope | None
    tag: str
    summary: str
    answers: Mapping[int, type[BaseModel] | None]
    errors: Sequence[ApiError] = ()
    body: type[BaseModel] | None = None
    parameters: Sequence[Parameter] = ()
    deprecated: Deprecation | None = None
    hot: bool = False
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


def _instance_of(request: Request) -> str | None:
    """Return the instance that a path names; None where it names none that could exist."""
    given = request.path_params.get("instanceId")
    return given if isinstance(given, str) and _INSTANCE_ID.fullmatch(given) else None


class Router:
    """Adds declared operations to an application."""

    def __init__(self, app: FastAPI, guard: Guard, clock: Clock) -> None:
        self._app = app
        self._guard = guard
        self._clock = clock
        self._hot: list[Route] = []

    def add(self, *operations: Operation) -> None:
        """Add operations."""
        for operation in operations:
            endpoint = self._endpoint(operation)
            if operation.hot:
                self._hot.append(Route(operation.path, endpoint, methods=[operation.method]))
            self._document(operation, endpoint)

    def finish(self) -> None:
        """Put the hot routes in front of all others; call it when every operation was added."""
        self._app.router.routes[:0] = self._hot
        self._hot = []

    def _endpoint(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        declared = operation.deprecated.headers() if operation.deprecated else []

        async def answer(request: Request) -> Response:
            context = context_of(request)
            context.route = operation.template
            context.instance_id = _instance_of(request)
            context.held = operation.patient
            context.headers += declared
            left = max(0.0, (context.deadline - self._clock.now()) / 1000)
            # What changes something is never broken off: it would not be known whether it was
            # done. There the deadline is judged inside of the transaction.
            limit = left if operation.safe and not operation.patient else None
            try:
                async with asyncio.timeout(limit) as timer:
                    caller = NOBODY
                    if operation.scope is not None:
                        caller = await self._guard.admit(request, context, operation.scope)
                    return await operation.handler(Call(request, context, caller, left))
            except TimeoutError:
                if not timer.expired():
                    raise
                raise RequestTimeout("The request took too long; nothing was done") from None

        return answer

    def _document(
        self, operation: Operation, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> None:
        status, model = next(iter(operation.answers.items()))
        examples = [*operation.errors, *_common(operation)]
        extra: dict[str, Any] = describe(
            scope=operation.scope,
            body=operation.body,
            parameters=[*operation.parameters, *([_IDEMPOTENCY_KEY] * operation.takes_key)],
        )
        self._app.add_api_route(
            operation.path,
            endpoint,
            methods=[operation.method],
            status_code=status,
            response_model=model,
            responses=document_answers(operation.answers, examples),
            tags=[operation.tag],
            summary=operation.summary,
            description=inspect.cleandoc(operation.handler.__doc__ or ""),
            operation_id=_operation_id(operation),
            deprecated=operation.deprecated is not None or None,
            openapi_extra=extra,
        )


def _operation_id(operation: Operation) -> str:
    words = [word.strip("{}") for word in operation.template.split("/") if word]
    return "_".join([operation.method.lower(), *words]).replace("-", "_").replace(".", "_")


def _common(operation: Operation) -> list[ApiError]:
    errors: list[ApiError] = []
    if operation.body is not None:
        errors += BAD_BODY
    if operation.body is NoFields:
        errors.append(UNKNOWN_FIELD)
    if operation.takes_key:
        errors += IDEMPOTENCY
    if operation.scope is None:
        return errors
    return [
        *errors,
        Unauthorized("A valid API key is required: Authorization: Bearer <key>"),
        Forbidden(f"This API key lacks the scope '{operation.scope.value}'"),
        RateLimited("Rate limit exceeded", retry_after=1),
        RequestTimeout("The request took too long; nothing was done"),
        StoreUnavailable("The database does not answer"),
        shutting_down(),
    ]
