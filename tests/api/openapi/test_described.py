# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document describes everything in it, and gives an example of every body."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import orjson
import pytest

from novitai.api.openapi.examples import EXAMPLES, OF_ANSWERS, OF_TEXTS
from novitai.app import Application
from novitai.domain.webhook import WEBHOOK_EVENTS
from tests.api.openapi.reading import objects, operations, resolved, validator


def test_every_schema_and_field_is_described(document: dict[str, Any]) -> None:
    """Each schema and each of its fields has a description in one line."""
    found = dict(document["components"]["schemas"])
    assert not [name for name, schema in found.items() if not schema.get("description")]
    for place, schema in objects(document, "#"):
        for name, field in schema["properties"].items():
            assert field.get("description"), f"{place}: {name}"
            assert "\n" not in field["description"], f"{place}: {name}"


def test_every_parameter_and_header_is_described(document: dict[str, Any]) -> None:
    """Each parameter, response, and header of a response has a description."""
    for path, method, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], (method, path, parameter["name"])
        for status, answer in operation["responses"].items():
            assert answer["description"], (method, path, status)
            for name, header in answer.get("headers", {}).items():
                assert resolved(document, header)["description"], (method, path, name)


def bodies(document: dict[str, Any]) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """Yield each body of a request and of a successful response: what it is of, and its media."""
    for _, _, operation in operations(document):
        name = operation["operationId"]
        for media in operation.get("requestBody", {}).get("content", {}).values():
            yield (name, "request"), media
        for status, answer in operation["responses"].items():
            if status.startswith("2"):
                for media in answer.get("content", {}).values():
                    yield (name, status), media


def test_every_body_has_an_example_that_fits_its_schema(document: dict[str, Any]) -> None:
    """Each request body and each successful response has an example, and it is valid."""
    found = list(bodies(document))
    assert len(found) > 100
    for place, media in found:
        assert "example" in media, place
        errors = validator(document, media["schema"]).iter_errors(media["example"])
        assert [str(error) for error in errors] == [], place


def test_no_example_is_left_over(document: dict[str, Any]) -> None:
    """Each declared example is in the document."""
    shown = [media["example"] for _, media in bodies(document)]
    unhealthy = document["paths"]["/health"]["get"]["responses"]["503"]
    ready = document["paths"]["/health/ready"]["get"]["responses"]["503"]
    shown += [one["content"]["application/json"]["example"] for one in (unhealthy, ready)]
    for name, example in (*EXAMPLES.items(), *OF_ANSWERS.items(), *OF_TEXTS.items()):
        assert orjson.loads(orjson.dumps(example)) in shown, name


def test_every_error_is_told_with_its_codes(document: dict[str, Any]) -> None:
    """An error response names its codes, and has an example of each in both formats."""
    for _, _, operation in operations(document):
        place = operation["operationId"]
        for status, answer in operation["responses"].items():
            if status[0] in "23":
                continue
            if "application/problem+json" not in answer["content"]:
                continue  # a state of health, not an error
            codes = re.findall("`([A-Z_]+)`", answer["description"])
            assert codes, (place, status)
            for media in answer["content"].values():
                assert list(media["examples"]) == codes, (place, status)
                check = validator(document, media["schema"])
                for code, example in media["examples"].items():
                    value = resolved(document, example)["value"]
                    assert check.is_valid(value), (place, status, code)
                    assert value.get("error", value)["code"] == code


@pytest.mark.parametrize("name", [*[one.value for one in WEBHOOK_EVENTS], "webhook.test"])
def test_every_message_to_webhooks_is_described(document: dict[str, Any], name: str) -> None:
    """Each type has its signature headers, and an example of its payload that fits the schema."""
    operation = document["webhooks"][name]["post"]
    assert operation["summary"]
    assert operation["description"].startswith(operation["summary"])
    headers = [resolved(document, one) for one in operation["parameters"]]
    assert [one["name"] for one in headers] == [
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    ]
    assert all(one["in"] == "header" and one["required"] and one["description"] for one in headers)
    media = operation["requestBody"]["content"]["application/json"]
    errors = validator(document, media["schema"]).iter_errors(media["example"])
    assert [str(error) for error in errors] == []
    assert media["example"]["type"] == name
    other = {**media["example"], "type": "instance.other"}
    assert not validator(document, media["schema"]).is_valid(other)


def test_no_other_webhook_is_described(document: dict[str, Any]) -> None:
    """The section has exactly the types that webhooks receive, and the test message."""
    assert list(document["webhooks"]) == [*[one.value for one in WEBHOOK_EVENTS], "webhook.test"]
    ids = [item["post"]["operationId"] for item in document["webhooks"].values()]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch("on([A-Z][a-z]+)+", one) for one in ids)


def test_fields_with_defaults_stay_optional(document: dict[str, Any]) -> None:
    """No field of a request has the keyword `default`, for which generators make it required."""
    fields = document["components"]["schemas"]["NewInstance"]["properties"]
    assert fields["gpuNum"]["description"].endswith("; default: `1`")
    assert fields["billingMode"]["description"].endswith("; default: `onDemand`")
    bodies = {
        media["schema"]["$ref"]
        for _, _, operation in operations(document)
        for media in operation.get("requestBody", {}).get("content", {}).values()
    }
    for reference in bodies:
        for place, schema in objects(resolved(document, {"$ref": reference}), reference):
            assert not [name for name, one in schema["properties"].items() if "default" in one], (
                place
            )


@pytest.mark.parametrize("public", [None, "https://novitai.example.com/gpu"])
async def test_the_server_is_named(idle: Application, public: str | None) -> None:
    """It is the public URL, or else the root of the server that sends the document."""
    idle.settings = idle.settings.model_copy(update={"public_url": public})
    transport = httpx2.ASGITransport(app=idle.api())
    async with httpx2.AsyncClient(transport=transport, base_url="http://novitai") as client:
        document = (await client.get("/openapi.json")).json()
    assert [one["url"] for one in document["servers"]] == [public or "/"]


def test_null_is_accepted_where_it_removes_a_value(document: dict[str, Any]) -> None:
    """The schema of a merge patch takes `null` for each field that can be removed."""
    never: dict[str, set[str]] = {
        "InstanceChange": set(),
        "LimitsChange": set(),
        "AutoStopChange": {"idleMinutes"},
        "BudgetChange": {"name", "amount", "period"},
        "WebhookChange": {"url"},
    }
    for name, kept in never.items():
        schema = document["components"]["schemas"][name]
        check = validator(document, schema)
        refused = {field for field in schema["properties"] if not check.is_valid({field: None})}
        assert refused == kept, name
