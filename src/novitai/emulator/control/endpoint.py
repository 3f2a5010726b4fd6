# SPDX-License-Identifier: Apache-2.0
"""Declares control endpoints: method, path, accepted fields and function.

A model validates every request and refuses unknown fields, so that a misspelt fault is a 400
rather than a test that passes for the wrong reason.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from novitai.emulator.instances import Instance
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator

PREFIX = "/_emulator"


class Given(BaseModel):
    """The fields of a control request; names are camelCase, and unknown fields are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, allow_inf_nan=False
    )


class Nothing(Given):
    """For endpoints that accept no fields."""


class ControlError(Exception):
    """A control request is invalid."""

    def __init__(self, message: str, status: int = 400, details: list[object] | None = None):
        super().__init__(message)
        self.status = status
        self.details = details or []


@dataclass(frozen=True, slots=True)
class Context:
    """The objects that a control endpoint works with."""

    emulator: Emulator
    rows: Rows
    path: Mapping[str, str]

    def instance(self) -> Instance:
        """Return the instance that the path names, even if it is removed.

        Raises:
            ControlError: No such instance was ever created.
        """
        instance = self.emulator.instance_or_none(self.path["id"])
        if instance is None:
            raise ControlError(f"no instance {self.path['id']!r} was ever created", 404)
        return instance


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A control endpoint."""

    method: str
    path: str
    summary: str
    takes: type[BaseModel]
    answer: Callable[[Context, object], object]


_G = TypeVar("_G", bound=BaseModel)


def endpoint(
    method: str, path: str, takes: type[_G], answer: Callable[[Context, _G], object]
) -> Endpoint:
    """Declare an endpoint; the first line of the function's docstring is its summary."""

    def checked(context: Context, raw: object) -> object:
        return answer(context, _validated(takes, raw))

    summary = (answer.__doc__ or "").strip().split("\n", 1)[0]
    return Endpoint(method, path, summary, takes, checked)


def routes(endpoints: list[Endpoint], settle: Callable[[Emulator], Awaitable[None]]) -> list[Route]:
    """Return the endpoints as routes; `settle` runs after every request that is not a GET."""
    return [_route(each, settle) for each in endpoints]


def _route(this: Endpoint, settle: Callable[[Emulator], Awaitable[None]]) -> Route:
    async def handle(request: Request) -> Response:
        state = request.app.state
        context = Context(state.emulator, state.rows, request.path_params)
        try:
            raw: object = dict(request.query_params)
            if this.method != "GET":
                raw = _json(await request.body())
            context.emulator.settle()
            payload = this.answer(context, raw)
        except ControlError as error:
            return _response({"error": str(error), "details": error.details}, error.status)
        if this.method != "GET":
            await settle(context.emulator)
        return _response(payload, 200)

    return Route(PREFIX + this.path, handle, methods=[this.method])


def _json(body: bytes) -> object:
    if not body.strip():
        return {}
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ControlError(f"the body is not JSON: {error}") from None
    return value


def _validated(takes: type[_G], raw: object) -> _G:
    try:
        return takes.model_validate(raw)
    except ValidationError as error:
        details: list[object] = [
            {"field": ".".join(str(part) for part in each["loc"]), "message": each["msg"]}
            for each in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise ControlError(f"invalid request; {_takes(takes)}", 400, details) from None


def _takes(model: type[BaseModel]) -> str:
    if not issubclass(model, Given):
        return "see docs/reference/emulator.md"
    fields = [field.alias or name for name, field in model.model_fields.items()]
    return f"this endpoint accepts: {', '.join(fields) or 'no fields'}"


def _response(payload: object, status: int) -> Response:
    return Response(orjson.dumps(payload), status, media_type="application/json")
