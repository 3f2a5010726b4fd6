# SPDX-License-Identifier: Apache-2.0
"""Tests of the OpenAPI document and its page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from pydantic import BaseModel, TypeAdapter

from novitai.api.openapi.examples import EXAMPLES
from novitai.api.openapi.links import LINKS
from novitai.api.schemas.caches import CacheChangedResponse, CacheDeletedResponse
from novitai.api.schemas.errors import ErrorResponse, Problem
from novitai.api.schemas.health import HealthCheckResponse
from novitai.api.schemas.instances import (
    CreateInstanceRequest,
    CreateInstanceResponse,
    InstanceDetails,
    ListInstancesResponse,
)
from novitai.api.schemas.metrics import MetricsResponse
from novitai.api.schemas.webhooks import CreateWebhookRequest
from novitai.api.schemas.wire import read
from novitai.domain.api_key import Scope
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from tests.api.application import CREATE, Api
from tests.api.client import House

BODIES = {
    "/api/instances": CREATE,
    "/api/instances/start": {"instanceName": "my-instance"},
    "/api/instances/stop": {"instanceName": "my-instance"},
    "/api/instances/restart": {"instanceName": "my-instance"},
    "/api/instances/delete": {"instanceName": "my-instance"},
    "/api/instances/adopt": {"upstreamId": "3560b7fec915bbf9"},
    "/api/keys": {"name": "ci", "scopes": ["read"]},
    "/api/webhooks": {"url": "https://example.com/hook"},
    "/api/webhooks/{webhookId}/replay": {"since": "2020-01-01T00:00:00Z"},
}


@pytest.fixture
async def document(api: Api) -> dict[str, Any]:
    """Return the document as it is served."""
    answer = await api.call("GET", "/openapi.json", scope=None)
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


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


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """Every reference points to a schema in the document."""
    found = set(references(document))
    assert found
    for reference in found:
        assert reference.startswith("#/components/schemas/")
        assert reference.rpartition("/")[2] in document["components"]["schemas"]


def test_every_route_is_in_the_document(api: Api, document: dict[str, Any]) -> None:
    """Every route except the document and its page is in the document."""
    app: Any = api.gateway.app
    served = {
        (route.path_format, method)
        for route in app.routes
        for method in route.methods - {"HEAD"}
        if route.path not in {"/openapi.json", "/docs"}
    }
    assert served == {(path, method.upper()) for path, method, _ in operations(document)}


async def test_every_tag_of_the_whole_application_is_described(house: House) -> None:
    """The page builds its sections from the described tags, so no route may have another one."""
    document = (await house.call("GET", "/openapi.json")).json()
    described = [tag["name"] for tag in document["tags"]]
    used = {tag for _, _, operation in operations(document) for tag in operation["tags"]}
    assert used == set(described)
    assert len(described) == len(used)


def test_every_operation_is_described_whole(document: dict[str, Any]) -> None:
    """Each has a summary, description, tag, path parameters, security and examples of errors."""
    tags = {tag["name"] for tag in document["tags"]}
    ids = []
    for path, _, operation in operations(document):
        assert operation["summary"]
        assert operation["description"]
        assert "\n  " not in operation["description"]
        assert set(operation["tags"]) <= tags
        ids.append(operation["operationId"])
        named = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))
        assert "500" in operation["responses"]
        assert "422" not in operation["responses"] or "IDEMPOTENCY" in str(operation)
        if path.startswith("/health"):
            assert operation["security"] == []
        else:
            assert operation["security"] == [{"apiKey": []}]
            assert {"401", "403", "429"} <= set(operation["responses"])
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("kind", [OperationKind.START, OperationKind.STOP, OperationKind.RESTART])
async def test_a_verb_is_described_with_the_statuses_that_allow_it(
    house: House, kind: OperationKind
) -> None:
    """The first sentence names each status in which the verb is accepted, and no other."""
    document = (await house.call("GET", "/openapi.json")).json()
    operation = document["paths"][f"/api/instances/{{instanceId}}/{kind.value}"]["post"]
    first = operation["description"].partition(".")[0]
    accepted = set()
    for status in InstanceStatus:
        instance_id = await house.have(status)
        answer = await house.call("POST", f"/api/instances/{instance_id}/{kind.value}")
        if answer.status_code == 202:
            accepted.add(status.value)
    assert set(re.findall("`([a-z]+)`", first)) == accepted


async def test_every_post_and_delete_takes_an_idempotency_key(house: House) -> None:
    """The header is in the document, and each operation rejects a key that is too long."""
    document = (await house.call("GET", "/openapi.json", scope=None)).json()
    for path, method, operation in operations(document):
        named = {one["name"] for one in operation.get("parameters", ())}
        assert ("Idempotency-Key" in named) is (method in {"post", "delete"})
        if "Idempotency-Key" in named:
            answer = await house.call(
                method.upper(),
                re.sub(r"{\w+}", "x", path),
                scope=Scope.ADMIN,
                body=BODIES.get(path),
                headers={"Idempotency-Key": "~" * 256},
            )
            assert answer.status_code == 400, (method, path)
            assert answer.json()["error"]["details"][0]["field"] == "Idempotency-Key"


def test_every_example_of_an_error_is_such_an_error(document: dict[str, Any]) -> None:
    """Examples have the form of real error responses and match their schema."""
    envelope, problem = TypeAdapter(ErrorResponse), TypeAdapter(Problem)
    seen = set()
    for _, _, operation in operations(document):
        for status, answer in operation["responses"].items():
            for media, content in answer.get("content", {}).items():
                for code, example in content.get("examples", {}).items():
                    value = example["value"]
                    seen.add((status, code))
                    if media == "application/json":
                        envelope.validate_python(value)
                        assert value["error"]["code"] == code
                    else:
                        problem.validate_python(value)
                        assert (value["code"], str(value["status"])) == (code, status)
    assert ("429", "RATE_LIMIT_EXCEEDED") in seen
    assert ("409", "NO_CAPACITY") in seen


def test_the_request_is_described_with_its_bounds(document: dict[str, Any]) -> None:
    """The schema has the API reference's limits and forbids unknown fields."""
    schema = document["components"]["schemas"]["CreateInstanceRequest"]
    assert schema["required"] == ["name", "productName", "templateId"]
    assert schema["additionalProperties"] is False
    fields = schema["properties"]
    assert (fields["gpuNum"]["minimum"], fields["gpuNum"]["maximum"]) == (1, 8)
    assert (fields["rootfsSize"]["default"], fields["rootfsSize"]["maximum"]) == (60, 1000)
    # Generated clients send defaults, and a region that is sent excludes all others.
    assert "default" not in fields["region"]
    for field in fields.values():
        assert "null" not in str(field)
    operation = document["paths"]["/api/instances"]["post"]
    assert operation["requestBody"]["required"] is True
    assert "/CreateInstanceRequest" in str(operation["requestBody"])


def test_absent_is_never_null(document: dict[str, Any]) -> None:
    """An optional field is not required and has no default of null."""
    schema = document["components"]["schemas"]["InstanceDetails"]
    assert "readyAt" not in schema["required"]
    assert "default" not in schema["properties"]["readyAt"]


async def test_the_page_needs_nothing_from_elsewhere(api: Api) -> None:
    """The page loads no script, style, font or image from another server."""
    answer = await api.call("GET", "/docs", scope=None)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "://" not in answer.text
    assert "__OPENAPI__" not in answer.text
    assert 'fetch("openapi.json")' in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_an_independent_validator_finds_nothing(document: dict[str, Any]) -> None:
    """An independent validator accepts the document as OpenAPI 3.1."""
    assert document["openapi"].startswith("3.1")
    validate(document, cls=OpenAPIV31SpecValidator)


def requests(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the schemas of all request bodies, by name."""
    every = document["components"]["schemas"]
    found = {
        reference.rpartition("/")[2]
        for _, _, operation in operations(document)
        for reference in references(operation.get("requestBody", {}))
    }
    seen: set[str] = set()
    while found:
        name = found.pop()
        seen.add(name)
        yield name, every[name]
        found |= {one.rpartition("/")[2] for one in references(every[name])} - seen


PARSED: dict[str, Callable[[dict[str, object]], object]] = {
    "CreateInstanceRequest": lambda sent: read(
        CreateInstanceRequest, {**CREATE, **sent}, allow_private=False
    ).wanted(),
    "CreateWebhookRequest": lambda sent: read(
        CreateWebhookRequest, {"url": "https://example.com/hook", **sent}, allow_private=False
    ).wanted(),
}
"""Parsers of the bodies whose schemas have defaults."""


def test_a_default_is_what_is_meant_by_leaving_the_field_out(document: dict[str, Any]) -> None:
    """Sending the defaults of a schema, as generated clients do, makes no difference.

    `region` has none: if it is absent, CN-HK-01 is tried first; if it is sent, only that region.
    """
    for name, schema in requests(document):
        for field, about in schema.get("properties", {}).items():
            if "default" in about:
                assert field not in schema.get("required", [])
                assert PARSED[name]({field: about["default"]}) == PARSED[name]({}), field
    region = document["components"]["schemas"]["CreateInstanceRequest"]["properties"]["region"]
    assert "Default: CN-HK-01" in region["description"]


async def test_a_parameter_s_default_is_what_is_meant_by_leaving_it_out(house: House) -> None:
    """Sending a default makes no difference, with any other parameters."""
    document = (await house.call("GET", "/openapi.json", scope=None)).json()
    there = await house.have()
    await house.have(InstanceStatus.TERMINATED)
    queries = {"/api/instances": ("", "status=terminated")}
    for path, method, operation in operations(document):
        for parameter in operation.get("parameters", []):
            if "default" not in parameter["schema"]:
                continue
            assert method == "get"
            assert parameter["required"] is False
            default = json.dumps(parameter["schema"]["default"]).strip('"')
            for query in queries.get(path, ("",)):
                url = f"{path.format(instanceId=there)}?{query}"
                plain = await house.call("GET", url)
                given = await house.call("GET", f"{url}&{parameter['name']}={default}")
                assert (given.status_code, given.content) == (plain.status_code, plain.content)


def test_every_link_leads_to_an_operation_and_its_parameter(document: dict[str, Any]) -> None:
    """Each declared link is in the document, and its target operation has the parameter."""
    by_id = {operation["operationId"]: operation for _, _, operation in operations(document)}
    for link in LINKS:
        written = by_id[link.source]["responses"][str(link.status)]["links"][link.name]
        assert written == {
            "operationId": link.target,
            "parameters": {link.parameter: link.value},
        }
        named = {one["name"] for one in by_id[link.target]["parameters"]}
        assert link.parameter in named


def test_every_example_of_an_answer_fits_its_schema(document: dict[str, Any]) -> None:
    """Each example of a response matches its schema."""
    models: dict[str, type[BaseModel]] = {
        "post_api_instances": CreateInstanceResponse,
        "get_api_instances": ListInstancesResponse,
        "get_api_instances_instanceId": InstanceDetails,
        "get_health": HealthCheckResponse,
        "get_metrics": MetricsResponse,
        "post_api_cache_clear": CacheChangedResponse,
        "delete_api_cache_cacheName_key": CacheDeletedResponse,
    }
    by_id = {operation["operationId"]: operation for _, _, operation in operations(document)}
    assert {name for name, _ in EXAMPLES} == set(models)
    for (name, status), example in EXAMPLES.items():
        answer = by_id[name]["responses"][str(status)]["content"]["application/json"]
        assert answer["example"] == example
        TypeAdapter(models[name]).validate_python(example)
        assert answer["schema"]["$ref"].endswith(f"/{models[name].__name__}")


def test_every_code_of_the_reference_is_in_the_document(document: dict[str, Any]) -> None:
    """Each error code of the API reference has an example at an operation that can return it."""
    found = {
        code
        for _, _, operation in operations(document)
        for answer in operation["responses"].values()
        for code in answer.get("content", {}).get("application/json", {}).get("examples", {})
    }
    assert found >= {
        "VALIDATION_ERROR",
        "INVALID_INSTANCE_NAME",
        "INVALID_PRODUCT_NAME",
        "INVALID_TEMPLATE_ID",
        "INVALID_GPU_NUM",
        "INVALID_ROOTFS_SIZE",
        "INVALID_WEBHOOK_URL",
        "UNAUTHORIZED",
        "FORBIDDEN",
        "INSTANCE_NOT_FOUND",
        "RATE_LIMIT_EXCEEDED",
        "REQUEST_TIMEOUT",
        "INTERNAL_SERVER_ERROR",
        "CIRCUIT_BREAKER_OPEN",
        "EXTERNAL_API_ERROR",
        "UPSTREAM_TIMEOUT",
        "STORE_UNAVAILABLE",
    }
