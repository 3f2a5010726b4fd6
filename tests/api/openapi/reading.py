# SPDX-License-Identifier: Apache-2.0
"""Walk through an OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method and description of every operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def references(part: object) -> Iterator[str]:
    """Yield every reference in a part of the document."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def resolved(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference to the component that it names."""
    if "$ref" not in part:
        return part
    found: Any = document
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    component: dict[str, Any] = found
    return component


def objects(part: object, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every schema with fields in a part of the document, and its place."""
    if isinstance(part, dict):
        if isinstance(part.get("properties"), dict):
            yield place, part
        for name, value in part.items():
            if name not in {"example", "examples"}:
                yield from objects(value, f"{place}/{name}")
    elif isinstance(part, list):
        for number, value in enumerate(part):
            yield from objects(value, f"{place}/{number}")


def validator(document: dict[str, Any], schema: dict[str, Any]) -> jsonschema_rs.Validator:
    """Return a validator of a schema that refers to components of the document."""
    whole = {"components": document["components"], "allOf": [schema]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
