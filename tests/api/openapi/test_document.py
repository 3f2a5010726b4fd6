# SPDX-License-Identifier: Apache-2.0
"""Tests of the OpenAPI document and its page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from pydantic import TypeAdapter

from novitai.api.openapi.links import LINKS
from novitai.api.openapi.names import NOUNS
from novitai.api.schemas.errors import ErrorResponse, Problem
from novitai.api.schemas.instances import (
    CreateInstanceRequest,
    QuoteRequest,
)
from novitai.api.schemas.webhooks import CreateWebhookRequest
from novitai.api.schemas.wire import read
from novitai.domain.api_key import Scope
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from tests.api.application import CREATE, Api
from tests.api.client import ApiProcess
from tests.api.openapi.reading import operations, references, resolved

BODIES = {
    "/api/instances": CREATE,
    "/api/quotes": CREATE,
    "/api/budgets": {"name": "ci", "amount": 1, "period": "day"},
    "/api/instances/{instanceId}/keep": {"minutes": 60},
    "/api/instances/start": {"instanceName": "my-instance"},
    "/api/instances/stop": {"instanceName": "my-instance"},
    "/api/instances/restart": {"instanceName": "my-instance"},
    "/api/instances/delete": {"instanceName": "my-instance"},
    "/api/instances/adopt": {"upstreamId": "3560b7fec915bbf9"},
    "/api/keys": {"name": "ci", "scopes": ["read"]},
    "/api/webhooks": {"url": "https://example.com/hook"},
    "/api/webhooks/{webhookId}/replay": {"since": "2020-01-01T00:00:00Z"},
}


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """Every reference points to a schema in the document."""
    found = set(references(document))
    assert found
    for reference in found:
        assert reference.startswith("#/components/")
        assert resolved(document, {"$ref": reference})


def test_every_route_is_in_the_document(api: Api, document: dict[str, Any]) -> None:
    """Every route except the dashboard, the document, its page and its files is in the document."""
    served = {
        (path, method)
        for path, method in api.gateway.endpoints
        if path not in {"/", "/openapi.json"} and not path.startswith("/docs")
    }
    assert served == {(path, method.upper()) for path, method, _ in operations(document)}


async def test_every_tag_of_the_whole_application_is_described(api_process: ApiProcess) -> None:
    """The page builds its sections from the described tags, so no route may have another one."""
    document = (await api_process.call("GET", "/openapi.json")).json()
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
            public = operation["operationId"] == "createSession"
            assert operation["security"] == ([] if public else [{"apiKey": []}])
            assert {"401", "403", "429"} <= set(operation["responses"])
    assert len(ids) == len(set(ids))


VERBS = (
    "adopt|cancel|check|clear|confirm|create|delete|dismiss|get|keep|list|record|redeliver|release|"
    "remove|replay|restart|revoke|rotate|start|stop|stream|sync|test|update|wait"
)


async def test_operations_have_names_for_people(api_process: ApiProcess) -> None:
    """An operation ID is a verb and nouns in camelCase; lists, single reads and changes agree."""
    document = (await api_process.call("GET", "/openapi.json", scope=None)).json()
    for path, method, operation in operations(document):
        name = operation["operationId"]
        assert re.fullmatch(rf"({VERBS})([A-Z][a-z]+)+", name), name
        assert not re.search("Api|Id$|Post|Put|Patch", name), name
        fields = answer_fields(document, operation)
        if method == "get" and "nextCursor" in fields:
            assert name.startswith("list"), name
        if method == "patch":
            assert name.startswith("update"), name
        by_name = re.fullmatch("/api/instances/(start|stop|restart|delete)", path)
        if by_name:
            assert name == f"{by_name[1]}InstanceByName"


def answer_fields(document: dict[str, Any], operation: dict[str, Any]) -> set[str]:
    """Return the fields of a successful JSON response."""
    content = operation["responses"].get("200", {}).get("content", {})
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    schema = document["components"]["schemas"].get(reference.rpartition("/")[2], {})
    return set(schema.get("properties", {}))


async def test_schemas_have_nouns_as_names(api_process: ApiProcess) -> None:
    """No name tells how the source uses the model, and each renamed model is in the document."""
    document = (await api_process.call("GET", "/openapi.json", scope=None)).json()
    names = set(document["components"]["schemas"])
    assert {"Instance", "InstanceList", "NewInstance", "Operation", "Event", "Webhook"} <= names
    for name in names:
        assert re.fullmatch("([A-Z][a-z]*)+", name), name
        assert not re.search("(View|Response|Request|Patch)$", name), name
        assert not re.match("(Adopt|Change|Clear|Confirm|Create|Keep|List)[A-Z]", name), name
        assert document["components"]["schemas"][name].get("title", name) == name
    assert set(NOUNS.values()) <= names


@pytest.mark.parametrize("kind", [OperationKind.START, OperationKind.STOP, OperationKind.RESTART])
async def test_a_verb_is_described_with_the_statuses_that_allow_it(
    api_process: ApiProcess, kind: OperationKind
) -> None:
    """The first sentence names each status in which the verb is accepted, and no other."""
    document = (await api_process.call("GET", "/openapi.json")).json()
    operation = document["paths"][f"/api/instances/{{instanceId}}/{kind.value}"]["post"]
    first = operation["description"].partition(".")[0]
    accepted = set()
    for status in InstanceStatus:
        instance_id = await api_process.have(status)
        answer = await api_process.call("POST", f"/api/instances/{instance_id}/{kind.value}")
        if answer.status_code == 202:
            accepted.add(status.value)
    assert set(re.findall("`([a-z]+)`", first)) == accepted


async def test_every_post_and_delete_takes_an_idempotency_key(api_process: ApiProcess) -> None:
    """The header is in the document, and each operation rejects a key that is too long.

    A browser may log in and out again and again.
    """
    document = (await api_process.call("GET", "/openapi.json", scope=None)).json()
    for path, method, operation in operations(document):
        named = {one["name"] for one in operation.get("parameters", ())}
        assert ("Idempotency-Key" in named) is (
            method in {"post", "delete"} and path != "/api/session"
        )
        if "Idempotency-Key" in named:
            answer = await api_process.call(
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
                    value = resolved(document, example)["value"]
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
    schema = document["components"]["schemas"]["NewInstance"]
    assert schema["required"] == ["name", "productName", "templateId"]
    assert schema["additionalProperties"] is False
    fields = schema["properties"]
    assert (fields["gpuNum"]["minimum"], fields["gpuNum"]["maximum"]) == (1, 8)
    assert (fields["rootfsSize"]["minimum"], fields["rootfsSize"]["maximum"]) == (20, 1000)
    for field in fields.values():
        assert "null" not in str(field)
    operation = document["paths"]["/api/instances"]["post"]
    assert operation["requestBody"]["required"] is True
    assert "/NewInstance" in str(operation["requestBody"])


def test_absent_is_never_null(document: dict[str, Any]) -> None:
    """An optional field is not required and has no default of null."""
    schema = document["components"]["schemas"]["Instance"]
    assert "readyAt" not in schema["required"]
    assert "default" not in schema["properties"]["readyAt"]


async def test_the_page_needs_nothing_from_elsewhere(api: Api, document: dict[str, Any]) -> None:
    """The page contains the document, and loads the library's files from here alone."""
    answer = await api.call("GET", "/docs", scope=None)
    assert answer.headers["Content-Type"].startswith("text/html")
    begin, rest = answer.text.split('<script type="application/json" id="document">')
    shown, end = rest.split("</script>", 1)
    assert orjson.loads(shown) == document
    assert "<" not in shown
    for part in (begin, end):
        assert "://" not in part
        assert "fetch(" not in part
    loaded = re.findall(r'(?:src|href)="([^"]+)"', begin + end)
    assert [name.rpartition(".")[2] for name in loaded] == ["data:,", "css", "js"]


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_the_library_may_be_loaded_by_the_sandbox(api: Api, prefix: str) -> None:
    """Browsers keep its files, take them in the page's opaque origin, and get them compressed."""
    page = await api.call("GET", f"{prefix}/docs", scope=None)
    for name in re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text):
        plain = await api.call("GET", f"{prefix}/{name}", scope=None)
        assert plain.status_code == 200
        assert plain.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert "immutable" in plain.headers["Cache-Control"]
        assert plain.headers["Vary"] == "Accept-Encoding"
        small = await api.call(
            "GET", f"{prefix}/{name}", scope=None, headers={"Accept-Encoding": "gzip, br"}
        )
        assert small.headers["Content-Encoding"] == "gzip"
        assert int(small.headers["Content-Length"]) < len(plain.content) / 3
        assert small.content == plain.content


async def test_the_page_has_no_part_in_sessions(api: Api) -> None:
    """Its policy puts it into a sandbox, where its origin is not the server's; it fetches nothing.

    Its own script is allowed by its digest alone; the library writes styles.
    """
    answer = await api.call("GET", "/docs", scope=None)
    policy = {
        name: values
        for name, *values in (
            one.split() for one in answer.headers["Content-Security-Policy"].split(";")
        )
    }
    assert policy["sandbox"] == ["allow-scripts"]
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == ["'none'"]
    assert "connect-src" not in policy
    assert policy["style-src"] == ["'self'", "'unsafe-inline'"]
    assert [value[:8] for value in policy["script-src"]] == ["'self'", "'sha256-"]


def test_an_independent_validator_finds_nothing(document: dict[str, Any]) -> None:
    """An independent validator accepts the document as OpenAPI 3.1."""
    assert document["openapi"].startswith("3.1")
    validate(document, cls=OpenAPIV31SpecValidator)


PARSED: dict[str, Callable[[dict[str, object]], object]] = {
    "NewInstance": lambda sent: read(
        CreateInstanceRequest, {**CREATE, **sent}, allow_private=False
    ).wanted(),
    "NewQuote": lambda sent: read(QuoteRequest, {**CREATE, **sent}, allow_private=False).wanted(),
    "NewWebhook": lambda sent: read(
        CreateWebhookRequest, {"url": "https://example.com/hook", **sent}, allow_private=False
    ).wanted(),
}
"""Parsers of the bodies whose schemas have defaults."""


def test_a_default_is_what_is_meant_by_leaving_the_field_out(document: dict[str, Any]) -> None:
    """Sending the default that a description names makes no difference.

    `region` has none: if it is absent, CN-HK-01 is tried first; if it is sent, only that region.
    """
    seen = set()
    for name, parse in PARSED.items():
        schema = document["components"]["schemas"][name]
        for field, about in schema["properties"].items():
            told = re.search("; default: `(.*)`$", about["description"])
            if told is not None:
                seen.add(field)
                assert field not in schema["required"]
                text = told[1]
                value = text if about.get("$ref") or "string" in str(about) else json.loads(text)
                assert parse({field: value}) == parse({}), field
    assert seen == {"gpuNum", "rootfsSize", "billingMode", "regionFallback", "enabled"}
    region = document["components"]["schemas"]["NewInstance"]["properties"]["region"]
    assert "Default: CN-HK-01" in region["description"]


async def test_a_parameter_s_default_is_what_is_meant_by_leaving_it_out(
    api_process: ApiProcess,
) -> None:
    """Sending a default makes no difference, with any other parameters."""
    document = (await api_process.call("GET", "/openapi.json", scope=None)).json()
    there = await api_process.have()
    await api_process.have(InstanceStatus.TERMINATED)
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
                plain = await api_process.call("GET", url)
                given = await api_process.call("GET", f"{url}&{parameter['name']}={default}")
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


def test_a_server_that_is_not_asked_for_the_document_does_not_load_it() -> None:
    """The modules that write the document take megabytes, so they are loaded late."""
    late = ("document", "examples", "events", "messages", "failures")
    code = (
        "import sys, novitai.api.app\n"
        f"print([one for one in {late} if f'novitai.api.openapi.{{one}}' in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
