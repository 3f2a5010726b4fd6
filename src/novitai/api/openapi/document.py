# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document: what FastAPI makes of the declared routes, and what it cannot know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from novitai import __doc__ as _about
from novitai.api.http.accept import JSON, PROBLEM
from novitai.api.http.context import RequestContext
from novitai.api.http.errors import envelope, problem
from novitai.api.openapi import lifecycle_schemas, schemas, webhook_schemas
from novitai.api.openapi.examples import add_examples
from novitai.api.openapi.links import add_links
from novitai.domain.api_key import Scope
from novitai.errors import ApiError, InternalError

SECURITY: Final = "apiKey"
_REF: Final = "#/components/schemas/{model}"
_EXAMPLE_AT: Final = 1_697_797_800_000
_EXAMPLE: Final = RequestContext("req_1697843200_abc123", None, "", "", 0, 0.0)

TAGS: Final = (
    ("Instances", "GPU instances: requested once, watched until they serve, kept true."),
    ("History", "What happened, and verbs in progress or over."),
    ("Webhooks", "Who is told of what happens, and what became of it."),
    ("Catalogue", "What there is to ask for."),
    ("Keys", "API keys and their scopes."),
    ("Cache", "Copies, of records and of what Novita told; each may be emptied at any moment."),
    ("Metrics", "Numbers of this process, as JSON, Prometheus text or OpenMetrics."),
    ("Health", "Whether this process and what it depends on are well. No key needed."),
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a path, a query or a header; `schema` is JSON Schema."""

    name: str
    description: str
    schema: Mapping[str, object]
    place: str = "query"

    def as_openapi(self) -> dict[str, object]:
        """Write it as the document wants it."""
        return {
            "name": self.name,
            "in": self.place,
            "required": self.place == "path",
            "description": self.description,
            "schema": dict(self.schema),
        }


def describe(
    *,
    scope: Scope | None,
    body: type[BaseModel] | None,
    parameters: Sequence[Parameter],
) -> dict[str, Any]:
    """Describe what a route takes."""
    extra: dict[str, Any] = {"parameters": [parameter.as_openapi() for parameter in parameters]}
    extra["security"] = [] if scope is None else [{SECURITY: []}]
    if scope is not None:
        extra["x-required-scope"] = scope.value
    if body is not None:
        schema = {"$ref": _REF.format(model=body.__name__)}
        required = any(field.is_required() for field in body.model_fields.values())
        extra["requestBody"] = {"required": required, "content": {JSON: {"schema": schema}}}
    return extra


def document_answers(
    answers: Mapping[int, type[BaseModel] | None], errors: Sequence[ApiError]
) -> dict[int | str, dict[str, Any]]:
    """Describe what a route answers: its successes, and its errors with an example each."""
    documented: dict[int | str, dict[str, Any]] = {}
    for status, model in answers.items():
        documented[status] = {"description": HTTPStatus(status).phrase}
        if model is not None:
            documented[status]["model"] = model
    by_status: dict[int, list[ApiError]] = {}
    for error in [*errors, InternalError("An unexpected error occurred")]:
        by_status.setdefault(error.status, []).append(error)
    for status, examples in sorted(by_status.items()):
        documented.setdefault(status, _error_answer(status, examples))
    return documented


class Documented(FastAPI):
    """An application that gives the completed document."""

    def openapi(self) -> dict[str, Any]:
        """Write the document, the first time that it is asked for."""
        if self.openapi_schema is None:
            self.openapi_schema = _complete(
                get_openapi(
                    title=self.title,
                    version=self.version,
                    description=(_about or "").strip(),
                    routes=self.routes,
                    tags=[{"name": name, "description": text} for name, text in TAGS],
                )
            )
        return self.openapi_schema


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


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    components["securitySchemes"] = {
        SECURITY: {"type": "http", "scheme": "bearer", "description": "An API key: `nvt_...`"}
    }
    # FastAPI knows of the models that are answered; those that are asked, and errors, are added.
    _, definitions = models_json_schema(
        [
            (model, "validation")
            for model in (*schemas.REFERRED, *lifecycle_schemas.REFERRED, *webhook_schemas.REFERRED)
        ],
        ref_template=_REF,
    )
    components["schemas"] = {**components.get("schemas", {}), **definitions.get("$defs", {})}
    add_links(document)
    add_examples(document)
    return document
