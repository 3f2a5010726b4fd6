# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document, generated from the declared routes and their models.

It is imported only when the document is written, because a server that is never asked for it needs
neither the examples nor the table of events.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

from pydantic import TypeAdapter

from novitai import __doc__ as _about
from novitai.api.http.accept import JSON
from novitai.api.openapi import messages
from novitai.api.openapi.examples import EXAMPLES, of_answer
from novitai.api.openapi.failures import ErrorAnswers
from novitai.api.openapi.headers import of_success, shared_headers
from novitai.api.openapi.links import add_links
from novitai.api.openapi.names import with_nouns
from novitai.api.routing.queries import IDEMPOTENCY_KEY
from novitai.api.routing.router import Route
from novitai.api.schemas.errors import ErrorResponse, Problem
from novitai.api.schemas.wire import JsonSchema

SECURITY: Final = "apiKey"
_REF: Final = "#/components/schemas/{model}"
_IN_PATH: Final = re.compile(r"{(\w+)}")

TAGS: Final = (
    ("Instances", "GPU instances: create, read, start, stop, restart and delete them."),
    ("Account", "The account at Novita: holds, orphans, adoption and release of instances."),
    ("History", "Events and operations."),
    ("Webhooks", "Standing webhooks and deliveries."),
    ("Budgets", "What some instances may cost in a period."),
    ("Quotes", "The offers that a create would buy now, and their prices."),
    ("Costs", "What instances cost, from the ledger."),
    ("Catalogue", "Products, templates and regions that Novita offers."),
    ("Keys", "API keys and their scopes."),
    ("Sessions", "Sessions of browsers, which log in with an API key or a one-time code."),
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
    "budgetId": ("The budget's ID", 64),
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


def document(routes: Sequence[Route], *, public_url: str | None = None) -> dict[str, Any]:
    """Generate the document of the routes from the models that validate and serialize.

    Args:
        routes: The routes.
        public_url: The URL under which clients reach the server, if it is known.
    """
    failures = ErrorAnswers()
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, failures)
    _, written = TypeAdapter.json_schemas(
        [(model, "validation", TypeAdapter(model)) for model in dict.fromkeys(_models(routes))],
        ref_template=_REF,
        schema_generator=JsonSchema,
    )
    schemas = written["$defs"]
    schemas[messages.SNAPSHOT] = messages.snapshot(schemas)
    _tell_defaults(schemas, [route.body for route in routes if route.body is not None])
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "novitai",
            "version": version("novitai"),
            "summary": "A control plane for GPU instances rented from Novita AI.",
            "description": (_about or "").strip(),
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": public_url or "/", "description": "This server"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS],
        "paths": paths,
        "webhooks": messages.webhooks(),
        "components": {
            "schemas": schemas,
            "parameters": messages.signature_headers(),
            "headers": shared_headers(),
            "examples": dict(sorted(failures.examples.items())),
            "securitySchemes": {
                SECURITY: {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "nvt_...",
                    "description": "An API key. Each operation names the scope that it needs in "
                    "`x-required-scope`: `read`, `write` or `admin`, each of which includes those "
                    "before it. A browser sends the cookie of its session instead.",
                }
            },
        },
    }
    add_links(whole)
    return with_nouns(whole)


def _models(routes: Sequence[Route]) -> Iterator[type]:
    yield from (ErrorResponse, Problem)
    for route in routes:
        models = (route.body, *route.answers.values())
        yield from (model for model in models if model not in {None, str})
    yield from messages.models()


def _tell_defaults(schemas: Mapping[str, Any], bodies: Sequence[type]) -> None:
    """Move the defaults of request bodies into the descriptions of their fields.

    Some generators make a field with a default required, and others send the default.
    """
    for name in {body.__name__ for body in bodies}:
        for field in schemas[name].get("properties", {}).values():
            if "default" in field:
                default = json.dumps(field.pop("default")).strip('"')
                field["description"] += f"; default: `{default}`"


def _operation(route: Route, failures: ErrorAnswers) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [route.tag],
        "summary": route.summary,
        "description": inspect.cleandoc(route.handler.__doc__ or ""),
        "operationId": route.id,
        "parameters": _parameters(route),
        "responses": {**failures.of(route), **_answers(route)},
        "security": [] if route.scope is None else [{SECURITY: []}],
    }
    operation["responses"] = dict(sorted(operation["responses"].items()))
    if route.scope is not None:
        operation["x-required-scope"] = route.scope.value
    if route.deprecated is not None:
        operation["deprecated"] = True
    if route.body is not None:
        content = {"schema": _ref(route.body), "example": EXAMPLES[route.body.__name__]}
        operation["requestBody"] = {
            "description": inspect.getdoc(route.body),
            "required": not route.body.optional(),
            "content": dict.fromkeys(route.media_types or (JSON,), content),
        }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    found = []
    for name in _IN_PATH.findall(route.template):
        about, longest = PATH_PARAMETERS.get(name, (name, None))
        schema = {"type": "string", **({"maxLength": longest} if longest else {})}
        found.append(_parameter("path", name, about, schema))
    if route.query is not None:
        written = route.query.model_json_schema(ref_template=_REF, schema_generator=JsonSchema)
        properties = written.get("properties", {})
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


def _answers(route: Route) -> dict[str, Any]:
    """Return the successful responses of a route, by status."""
    documented: dict[str, Any] = {}
    for status, model in route.answers.items():
        described = {
            "description": HTTPStatus(status).phrase,
            "headers": of_success(route, model),
        }
        if model is not None:
            schema = {"type": "string"} if model is str else _ref(model)
            described["content"] = {
                route.media_type: _content(route, status, route.media_type, schema),
                **{
                    media_type: _content(route, status, media_type, {"type": "string"})
                    for media_type in route.other_types
                },
            }
        documented[str(status)] = described
    return documented


def _content(route: Route, status: int, media_type: str, schema: object) -> dict[str, Any]:
    return {"schema": schema, "example": of_answer(route, status, media_type)}


def _ref(model: type) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}
