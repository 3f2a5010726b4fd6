# SPDX-License-Identifier: Apache-2.0
"""Compare each response that a test gets with the OpenAPI document."""

from __future__ import annotations

import re
from typing import Any, Final

import httpx2
import jsonschema_rs
import orjson
from starlette.requests import Request

from novitai.api.http.application import HttpApplication
from novitai.api.http.context import RequestContext, attach
from novitai.api.http.versioning import without_version

_UNDESCRIBED: Final = {
    "cache-control",
    "content-length",
    "content-type",
    "vary",
    "x-accel-buffering",
    "x-content-type-options",
}
"""Headers of HTTP itself, for caches, proxies and browsers."""
_OF_TESTS: Final = "testRoute"
"""The operation of the routes that tests add; what it answers differs from test to test."""
_CONTRACTS: Final[list[Contract]] = []


async def violations(
    gateway: HttpApplication, method: str, path: str, response: httpx2.Response
) -> list[str]:
    """List what in a response the document does not say; nothing for an unknown path or method.

    The document is written once in a process, with the routes of the first test.
    """
    if not _CONTRACTS:
        _CONTRACTS.append(Contract(await _document(gateway)))
    return _CONTRACTS[0].violations(method, path, response)


async def _document(gateway: HttpApplication) -> dict[str, Any]:
    """Write the document without a request, which metrics and the log would show."""
    endpoint, _ = gateway.endpoints.find("/openapi.json", "GET")
    scope = {"type": "http", "method": "GET", "path": "/openapi.json", "headers": []}
    attach(scope, RequestContext("req_of_the_tests", None, "", "", 0, 0.0))
    response = await endpoint(Request(scope))
    document: dict[str, Any] = orjson.loads(bytes(response.body))
    return document


class Contract:
    """The operations of a document, with validators of their responses."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._components = document["components"]
        # Paths without parameters go before those with parameters.
        paths = sorted(document["paths"].items(), key=lambda one: one[0].count("{"))
        self._paths = [
            (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), item)
            for path, item in paths
        ]
        self._validators: dict[str, jsonschema_rs.Validator] = {}

    def violations(self, method: str, path: str, response: httpx2.Response) -> list[str]:
        """Compare status, headers, error code and body."""
        operation = self._operation(method, without_version(path.partition("?")[0]))
        if operation is None or operation["operationId"] == _OF_TESTS:
            return []
        place = f"{operation['operationId']} {response.status_code}"
        described = operation["responses"].get(str(response.status_code))
        if described is None:
            return [f"{place} is not documented: {response.text[:200]}"]
        found = [
            f"{place} has the header {name}"
            for name in set(response.headers) - _UNDESCRIBED
            if name not in {one.lower() for one in described.get("headers", {})}
        ]
        media_type = response.headers.get("content-type", "").partition(";")[0]
        content = described.get("content", {})
        if not response.content:
            return found
        if media_type not in content:
            return [*found, f"{place} has the media type {media_type}"]
        media = content[media_type]
        if media_type.endswith("json"):
            body = response.json()
            found += [f"{place}: {one}" for one in self._errors(media["schema"], body)]
            code = body.get("error", body).get("code") if "examples" in media else None
            if code is not None and code not in media["examples"]:
                found.append(f"{place} has the code {code}")
        return found

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        for pattern, item in self._paths:
            if pattern.fullmatch(path):
                found: dict[str, Any] | None = item.get(method.lower())
                return found
        return None

    def _errors(self, schema: dict[str, Any], body: object) -> list[str]:
        name = schema["$ref"]
        if name not in self._validators:
            whole = {"components": self._components, **schema}
            self._validators[name] = jsonschema_rs.Draft202012Validator(
                whole, validate_formats=True
            )
        return [error.message for error in self._validators[name].iter_errors(body)]
