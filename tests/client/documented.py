# SPDX-License-Identifier: Apache-2.0
"""A server that answers as the OpenAPI document says: every field is there, in its documented form.

It records the requests, so that tests can compare them with the document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

import httpx2

from novitai_client import Novitai

URL: Final = "http://novitai.test"
Operation = tuple[str, str]
"""The method and the path template of an operation."""
Schema = Mapping[str, Any]


@dataclass
class Sent:
    """A request, and the operation that it reaches."""

    operation: Operation
    request: httpx2.Request


@dataclass
class DocumentedServer:
    """Answers with samples made from the schemas of an OpenAPI document."""

    document: Schema
    sent: list[Sent] = field(default_factory=list)
    status: Mapping[Operation, int] = field(default_factory=dict)
    """The status with which an operation succeeds, if it has several."""

    def client(self) -> Novitai:
        """Return a client of it."""
        http = httpx2.Client(transport=httpx2.MockTransport(self.answer))
        return Novitai(URL, "nvt_of_the_tests", http=http)

    def operations(self) -> Iterator[tuple[Operation, Schema]]:
        """Yield every operation, and its description."""
        for path, item in self.document["paths"].items():
            for method, described in item.items():
                yield (method.upper(), path), described

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        """Record a request and answer it."""
        operation, described = self.reached(request)
        self.sent.append(Sent(operation, request))
        status, response = self.success(operation, described)
        if "text/csv" in request.headers.get("Accept", ""):
            return httpx2.Response(status, text="key,amount\r\n")
        if not response.get("content"):
            return httpx2.Response(status, headers={"Set-Cookie": "session=s3cret; Path=/"})
        body = self.sample(response["content"]["application/json"]["schema"])
        body.pop("nextCursor", None)
        if operation[1].endswith("/wait"):
            body["status"] = request.url.params["status"]
        return httpx2.Response(status, json=body, headers={"ETag": 'W/"1"'})

    def reached(self, request: httpx2.Request) -> tuple[Operation, Schema]:
        """Find the operation of a request; paths without parameters go first."""
        path = request.url.raw_path.decode().partition("?")[0]
        found = [
            (operation, described)
            for operation, described in self.operations()
            if operation[0] == request.method
            and re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(operation[1])), path)
        ]
        assert found, f"no operation {request.method} {unquote(path)}"
        return min(found, key=lambda one: one[0][1].count("{"))

    def success(self, operation: Operation, described: Schema) -> tuple[int, Schema]:
        """Return the status and the description of the response of a success."""
        succeeding = [
            int(status)
            for status, response in described["responses"].items()
            if status.startswith("2")
            and (status == "204" or "application/json" in response.get("content", {}))
        ]
        status = self.status.get(operation, succeeding[0])
        response: Schema = described["responses"][str(status)]
        return status, response

    def resolve(self, schema: Schema) -> Schema:
        """Follow a reference, also one to a schema or `null`."""
        while "$ref" in schema or "anyOf" in schema:
            if "anyOf" in schema:
                schema = next(one for one in schema["anyOf"] if one != {"type": "null"})
                continue
            name = schema["$ref"].rpartition("/")[2]
            schema = self.document["components"]["schemas"][name]
        return schema

    def sample(self, schema: Schema) -> Any:
        """Make a value with every field."""
        schema = self.resolve(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][0]
        match schema.get("type"):
            case "object":
                named = {name: self.sample(one) for name, one in self.fields(schema).items()}
                more = schema.get("additionalProperties")
                return named or ({"any": self.sample(more)} if isinstance(more, dict) else {})
            case "array":
                return [self.sample(schema["items"])]
            case "integer":
                return 7
            case "number":
                return 0.5
            case "boolean":
                return True
        return "2026-01-02T03:04:05.678Z" if schema.get("format") == "date-time" else "text"

    def fields(self, schema: Schema) -> Mapping[str, Schema]:
        """Return the declared fields of an object."""
        found: Mapping[str, Schema] = self.resolve(schema).get("properties", {})
        return found
