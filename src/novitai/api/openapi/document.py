# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document, generated from the declared routes and their models."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from novitai import __doc__ as _about
from novitai.api.http.accept import JSON, PROBLEM
from novitai.api.http.context import RequestContext
from novitai.api.http.errors import envelope, problem, shutting_down
from novitai.api.openapi.examples import add_examples
from novitai.api.openapi.links import add_links
from novitai.api.routing.common_errors import BAD_BODY, IDEMPOTENCY, UNKNOWN_FIELD
from novitai.api.routing.queries import IDEMPOTENCY_KEY
from novitai.api.routing.router import Route
from novitai.api.schemas.errors import ErrorResponse, Problem
from novitai.api.schemas.wire import NoFields
from novitai.errors import (
    ApiError,
    Forbidden,
    InternalError,
    RequestTimeout,
    TooManyRequests,
    Unauthorized,
)
from novitai.store.engine.errors import StoreUnavailable

SECURITY: Final = "apiKey"
_REF: Final = "#/components/schemas/{model}"
_IN_PATH: Final = re.compile(r"{(\w+)}")
_EXAMPLE_AT: Final = 1_697_797_800_000
_EXAMPLE: Final = RequestContext("req_1697843200_abc123", None, "", "", 0, 0.0)

TAGS: Final = (
    ("Instances", "GPU instances: create, read, start, stop, restart and delete them."),
    ("Account", "The account at Novita: holds, orphans, adoption and release of instances."),
    ("History", "Events and operations."),
    ("Webhooks", "Standing webhooks and deliveries."),
    ("Catalogue", "Products, templates and regions that Novita offers."),
    ("Keys", "API keys and their scopes."),
    ("Cache", "Caches of records and of Novita's data; clearing them is always safe."),
    ("Metrics", "Metrics of this process as JSON, Prometheus text or OpenMetrics."),
    ("Health", "Health of this process and its dependencies. No API key is needed."),
)


PATH_PARAMETERS: Final[Mapping[str, tuple[str, int | None]]] = {
    "instanceId": ("The instance's ID", 64),
    "upstreamId": ("The instance's ID at Novita", 255),
    "operationId": ("The operation's ID", 64),
    "webhookId": ("The webhook's ID", 64),
    "deliveryId": ("The delivery's ID", 64),
    "keyId": ("The API key's ID", 64),
    "cacheName": ("The cache's name", None),
    "key": ("A key in the cache", None),
}
"""Descriptions and maximum lengths of path parameters."""

_KEY_HEADER: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "If the request is repeated within 24 h with the same key and body, it has no "
    "second effect and gets the same response, with `Idempotent-Replayed: true`",
    "schema": {"type": "string", "pattern": f"^{IDEMPOTENCY_KEY}$"},
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Generate the document of the routes from the models that validate and serialize."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route)
    models = dict.fromkeys(_models(routes))
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template=_REF
    )
    written = {
        "openapi": "3.1.0",
        "info": {
            "title": "novitai",
            "version": version("novitai"),
            "description": (_about or "").strip(),
        },
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                SECURITY: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key: `nvt_...`",
                }
            },
        },
        "tags": [{"name": name, "description": text} for name, text in TAGS],
    }
    add_links(written)
    add_examples(written)
    return written


def _models(routes: Sequence[Route]) -> Iterator[type[BaseModel]]:
    yield from (ErrorResponse, Problem)
    for route in routes:
        yield from filter(None, (route.body, *route.answers.values()))


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [route.tag],
        "summary": route.summary,
        "description": inspect.cleandoc(route.handler.__doc__ or ""),
        "operationId": _operation_id(route),
        "parameters": _parameters(route),
        "responses": _responses(route),
        "security": [] if route.scope is None else [{SECURITY: []}],
    }
    if route.scope is not None:
        operation["x-required-scope"] = route.scope.value
    if route.deprecated is not None:
        operation["deprecated"] = True
    if route.body is not None:
        content = {JSON: {"schema": _ref(route.body)}}
        operation["requestBody"] = {"required": not route.body.optional(), "content": content}
    return operation


def _operation_id(route: Route) -> str:
    words = [word.strip("{}") for word in route.template.split("/") if word]
    return "_".join([route.method.lower(), *words]).replace("-", "_").replace(".", "_")


def _parameters(route: Route) -> list[dict[str, Any]]:
    found = []
    for name in _IN_PATH.findall(route.template):
        about, longest = PATH_PARAMETERS.get(name, (name, None))
        schema = {"type": "string", **({"maxLength": longest} if longest else {})}
        found.append(_parameter("path", name, about, schema))
    if route.query is not None:
        properties = route.query.model_json_schema(ref_template=_REF).get("properties", {})
        for name, schema in properties.items():
            schema.pop("title", None)
            found.append(_parameter("query", name, schema.pop("description"), schema))
    for name, about in (route.headers or {}).items():
        found.append(_parameter("header", name, about, {"type": "string"}))
    return [*found, *([_KEY_HEADER] if route.takes_key else [])]


def _parameter(place: str, name: str, about: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": about,
        "schema": dict(schema),
    }


def _responses(route: Route) -> dict[str, Any]:
    documented: dict[str, Any] = {}
    for status, model in route.answers.items():
        documented[str(status)] = {"description": HTTPStatus(status).phrase}
        if model is not None:
            documented[str(status)]["content"] = {JSON: {"schema": _ref(model)}}
    by_status: dict[int, list[ApiError]] = {}
    for error in [*route.errors, *_common(route), InternalError("An unexpected error occurred")]:
        by_status.setdefault(error.status, []).append(error)
    for status, examples in sorted(by_status.items()):
        documented.setdefault(str(status), _error_answer(status, examples))
    return documented


def _common(route: Route) -> list[ApiError]:
    errors: list[ApiError] = []
    if route.body is not None:
        errors += BAD_BODY
    if route.body is NoFields:
        errors.append(UNKNOWN_FIELD)
    if route.takes_key:
        errors += IDEMPOTENCY
    if route.scope is None:
        return errors
    return [
        *errors,
        Unauthorized("A valid API key is required: Authorization: Bearer <key>"),
        Forbidden(f"This API key lacks the scope '{route.scope.value}'"),
        TooManyRequests("Rate limit exceeded", retry_after=1),
        RequestTimeout("The request took too long; nothing was done"),
        StoreUnavailable("The database does not answer"),
        shutting_down(),
    ]


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def _error_answer(status: int, examples: Sequence[ApiError]) -> dict[str, Any]:
    named = {error.code: error for error in examples}
    return {
        "description": HTTPStatus(status).phrase,
        "content": {
            JSON: {
                "schema": {"$ref": _REF.format(model="ErrorResponse")},
                "examples": {
                    code: {"value": envelope(error, _EXAMPLE, _EXAMPLE_AT)}
                    for code, error in named.items()
                },
            },
            PROBLEM: {
                "schema": {"$ref": _REF.format(model="Problem")},
                "examples": {
                    code: {"value": problem(error, _EXAMPLE, _EXAMPLE_AT)}
                    for code, error in named.items()
                },
            },
        },
    }
